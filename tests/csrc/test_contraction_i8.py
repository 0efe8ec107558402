"""The contraction of 8-bit integers against Python's own integers, byte for byte, in both layouts."""

from __future__ import annotations

import ctypes
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ree import _core
from ree.kernels.ops.contraction_i8 import LONGEST

from .calling import run_kernel

KINDS = [(isa, g) for isa in _core.isa_names() for g in sorted({2, _core.byte_group(isa)})]
MS, NS, KS = (
    (1, 2, 3, 4, 5, 14, 15, 33),
    (1, 31, 32, 33, 130),
    (0, 1, 2, 3, 4, 5, 127, 128, 129, 384),
)
TileFn = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4)


@pytest.fixture(scope="module")
def pools() -> list[Any]:
    return [_core.Pool(t) for t in (1, 2, 7)]


def values(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    if kind == "ends":
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By Python's integers."""
    rows = [[sum(map(int.__mul__, x, y)) for y in b.tolist()] for x in a.tolist()]
    return np.array(rows, np.int32).reshape(len(a), len(b))


def packed(isa: str, group: int, pool: Any, b: np.ndarray) -> np.ndarray:
    """Words of B [n, k], of any strides."""
    (n, k), panel = b.shape, _core.panel(isa)
    out = np.full((-(-n // panel), -(-k // group), panel), 0xA5A5A5A5, np.uint32)
    run_kernel(isa, pool, "pack_i8", b=b, packed=out, k=k, n=n, stride_n=b.strides[0], stride_k=b.strides[1],
               group=group)  # fmt: skip
    return out


def gemm(isa: str, group: int, pool: Any, a: np.ndarray, b: np.ndarray, tile: Any = None) -> Any:
    (m, k), n = a.shape, b.shape[0]
    c, panels = np.full((m, n), 0x5A5A5A5A, np.int32), packed(isa, group, pool, b)
    run_kernel(isa, pool, "gemm_i8", a=a, packed=panels, c=c, m=m, n=n, k=k,
               group=group, tile=tile(c) if tile else None)  # fmt: skip
    return c


@pytest.mark.parametrize(("isa", "group"), KINDS)
@pytest.mark.parametrize("k", KS)
def test_boundaries(isa: str, group: int, k: int, pools: list[Any]) -> None:
    for i, (m, n) in enumerate(itertools.product(MS, NS)):
        kind = ("any", "ends")[i % 2]
        a, b = values(kind, (m, k), 1), values(kind, (n, k), 2)
        want = a.astype(np.int64) @ b.astype(np.int64).T
        if m * n * k < 20_000:
            assert (want == product(a, b)).all()
        np.testing.assert_array_equal(gemm(isa, group, pools[i % 3], a, b), want)


@pytest.mark.parametrize(("isa", "group"), KINDS)
@pytest.mark.parametrize(
    ("x", "y"), [(-128, -128), (-128, 127), (127, -128), (127, 127), (-1, -128)]
)
@pytest.mark.parametrize("k", [1 << 16, LONGEST])
def test_the_greatest_totals_do_not_overflow(isa: str, group: int, x: int, y: int, k: int,
                                              pools: list[Any]) -> None:  # fmt: skip
    """The offset of unsigned bytes takes sums past 2^31 on the way, where saturating would keep them."""
    a, b = np.full((2, k), x, np.int8), np.full((3, k), y, np.int8)
    got = gemm(isa, group, pools[1], a, b)
    assert got.tolist() == [[k * x * y] * 3] * 2
    assert abs(k * x * y) < 2**31


@pytest.mark.parametrize(("isa", "group"), KINDS)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(300, 70, 1000), (20, 600, 260), (190, 513, 40), (40, 40, 9000)]
)
def test_blocks_and_threads(isa: str, group: int, m: int, n: int, k: int, pools: list[Any]) -> None:
    a, b = values("any", (m, k), 3), values("any", (n, k), 4)
    want = a.astype(np.int64) @ b.astype(np.int64).T
    for pool in pools:
        np.testing.assert_array_equal(gemm(isa, group, pool, a, b), want)


@pytest.mark.parametrize(("isa", "group"), KINDS)
def test_pack_layout(isa: str, group: int, pools: list[Any]) -> None:
    panel, n, k = _core.panel(isa), 2 * _core.panel(isa) + 5, 71
    b = values("any", (n, k), 5)
    whole = np.zeros((3 * panel, -(-k // group) * group), np.int64)
    whole[:n, :k] = b.astype(np.int64) + (128 if group == 4 else 0)
    words = sum(
        (whole[:, i::group] & (1 << 32 // group) - 1) << 32 // group * i for i in range(group)
    )
    want = words.reshape(3, panel, -1).transpose(0, 2, 1)
    forms = (b, np.asfortranarray(b), np.repeat(b, 3, 1)[:, ::3])
    for form in forms:
        np.testing.assert_array_equal(packed(isa, group, pools[1], form), want)


@pytest.mark.parametrize(("isa", "group"), KINDS)
@pytest.mark.parametrize(("m", "n"), [(1, 300), (3, 40), (50, 700), (400, 90)])
def test_the_tile_function_sees_every_final_total_once(isa: str, group: int, m: int, n: int,
                                                        pools: list[Any]) -> None:  # fmt: skip
    a, b = values("any", (m, 77), 6), values("any", (n, 77), 7)
    want = a.astype(np.int64) @ b.astype(np.int64).T
    for pool in pools:
        seen, wrong = np.zeros((m, n), np.int32), []

        def tile(c: np.ndarray, seen: Any = seen, wrong: Any = wrong) -> Any:
            def called(_b: int, _p: int, r0: int, r1: int, c0: int, c1: int) -> None:
                seen[r0:r1, c0:c1] += 1
                if not np.array_equal(c[r0:r1, c0:c1], want[r0:r1, c0:c1]):
                    wrong.append((r0, r1, c0, c1))

            f = TileFn(called)
            return SimpleNamespace(
                address=ctypes.cast(f, ctypes.c_void_p).value, buffers=[], params=[], f=f
            )

        gemm(isa, group, pool, a, b, tile)
        assert (seen == 1).all()
        assert not wrong


def test_a_layout_that_the_processor_does_not_multiply_is_refused() -> None:
    a = np.ones((1, 8), np.int8)
    for isa in _core.isa_names():
        for group in {1, 3, 4, 8} - {_core.byte_group(isa)}:
            with pytest.raises(ValueError, match="does not multiply bytes"):
                gemm(isa, group, _core.Pool(1), a, a)
