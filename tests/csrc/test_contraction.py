"""The contraction kernels against the NumPy reference, byte for byte."""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ree import _core
from ree.kernels.abi import FLOAT32
from ree.kernels.numerics import CANONICAL_NAN, contract

from .calling import run_kernel

ISAS = _core.isa_names()
KINDS = ("gaussian", "wide", "subnormal", "zeros", "special")
MS, NS, KS = (1, 3, 14, 15, 33), (1, 31, 32, 33, 50), (0, 1, 5, 127, 128, 129, 200, 384)
TileFn = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4
)  # csrc/kernel.hpp


@pytest.fixture(scope="module", params=(1, 2, 7))
def pool(request: pytest.FixtureRequest) -> Any:
    return _core.Pool(request.param)


@pytest.fixture(scope="module")
def pools() -> list[Any]:
    return [_core.Pool(t) for t in (1, 2, 7)]


def values(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, KINDS.index(kind), *shape])
    x = rng.standard_normal(shape).astype(np.float32)
    if kind == "wide":
        x = np.ldexp(x, rng.integers(-70, 62, shape)).astype(np.float32)
    elif kind == "subnormal":
        small = rng.integers(0, 1 << 23, shape, dtype=np.uint32)
        x = np.where(rng.random(shape) < 0.5, small.view(np.float32), x * np.float32(1e-19))
        x = np.where(rng.random(shape) < 0.5, -x, x)
    elif kind == "zeros":
        x = np.where(rng.random(shape) < 0.6, np.copysign(np.float32(0), x), x * np.float32(1e-23))
    elif kind == "special":
        odd = np.array([0x7F800000, 0xFF800000, 0x7FC00001, 0xFFC00000, 0x80000000, 0x7F7FFFFF],
                       np.uint32).view(np.float32)  # fmt: skip
        x = np.where(rng.random(shape) < 0.001, rng.choice(odd, shape), x)
    return x


@functools.cache
def problem(kind: str, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A [m, k], B [n, k] and their contraction [m, n]."""
    a, b = values(kind, (m, k), 1), values(kind, (n, k), 2)
    return a, b, contract(a[:, None, :], b[None])


def packed(isa: str, pool: Any, b: np.ndarray) -> np.ndarray:
    """Panels of B [..., n, k], of any strides."""
    *batch, n, k = b.shape
    panel = _core.panel(isa)
    out = np.full((*batch, -(-n // panel), k, panel), np.nan, np.float32)
    stride_n, stride_k = b.strides[-2] // 4, b.strides[-1] // 4
    count, step = (batch[0], b.strides[0] // 4) if batch else (1, 0)
    run_kernel(isa, pool, "pack", b=b, packed=out, k=k, n=n, stride_k=stride_k, stride_n=stride_n,
               batch=count, b_batch=step, element_bytes=4)  # fmt: skip
    return out


def gemm(isa: str, pool: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (m, k), n = a.shape, b.shape[0]
    c = np.full((m, n), np.nan, np.float32)
    call_gemm(isa, pool, a, packed(isa, pool, b), c, m, n, k, a.strides[0] // 4)
    return c


def call_gemm(isa: str, pool: Any, a: np.ndarray, p: np.ndarray, c: np.ndarray, m: int, n: int, k: int,
              a_row: int) -> None:  # fmt: skip
    run_kernel(isa, pool, "gemm", a=a, packed=p, c=c, batch=1, m=m, n=n, k=k, a_batch=0, a_row=a_row,
               b_batch=0, c_batch=0, c_row=n, **FLOAT32)  # fmt: skip


def same(x: np.ndarray, y: np.ndarray) -> None:
    np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("k", KS)
def test_gemm_boundaries(isa: str, k: int, pools: list[Any]) -> None:
    for i, (m, n) in enumerate(itertools.product(MS, NS)):
        a, b, want = problem(KINDS[(i + k) % len(KINDS)], m, n, k)
        same(gemm(isa, pools[i % 3], a, b), want)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "n", "k"), [(2, 130, 300), (4, 70, 257), (13, 300, 130),
                                           (75, 40, 261), (20, 37, 2180)])  # fmt: skip
def test_gemm_kinds_and_threads(isa: str, kind: str, m: int, n: int, k: int, pool: Any) -> None:
    a, b, want = problem(kind, m, n, k)
    same(gemm(isa, pool, a, b), want)


def test_inputs_reach_the_hard_cases() -> None:
    subnormal = problem("subnormal", 75, 40, 261)[2]
    assert np.any((subnormal != 0) & (np.abs(subnormal) < np.finfo(np.float32).tiny))
    special = problem("special", 75, 40, 261)[2]
    assert np.isnan(special).any()
    assert np.isinf(special).any()
    assert np.isfinite(special).any()
    assert np.abs(problem("wide", 75, 40, 261)[2]).max() > 1e34
    assert set(special.view(np.uint32)[np.isnan(special)]) == {CANONICAL_NAN}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("m", [1, 20])
def test_total_is_never_negative_zero(isa: str, m: int, pool: Any) -> None:
    a = np.full((m, 130), -1e-30, np.float32)
    b = np.full((33, 130), 1e-30, np.float32)
    same(gemm(isa, pool, a, b), np.zeros((m, 33), np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_pack_layout(isa: str, pool: Any) -> None:
    panel = _core.panel(isa)
    n, k = 2 * panel + 5, 70
    b = np.random.default_rng(0).integers(0, 1 << 32, (3, n, k), np.uint32).view(np.float32)
    want = np.zeros((3, 3 * panel, k), np.float32)
    want[:, :n] = b
    want = np.ascontiguousarray(want.reshape(3, 3, panel, k).transpose(0, 1, 3, 2))
    wide = np.zeros((3, n, 2 * k), np.float32)
    wide[:, :, ::2] = b
    for form in (b, np.ascontiguousarray(b.transpose(0, 2, 1)).transpose(0, 2, 1), wide[:, :, ::2]):
        same(packed(isa, pool, form), want)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 45, 140), (3, 77, 200), (33, 50, 129), (180, 50, 140)]
)
@pytest.mark.parametrize("shared", [False, True])
def test_bmm_strides(isa: str, m: int, n: int, k: int, shared: bool, pool: Any) -> None:
    a = values("gaussian", (2, 3, m, k), 3)
    b = values("gaussian", (2, 3, n, k), 4)
    if shared:
        b = np.broadcast_to(b[:1, :1], b.shape)
    want = contract(a[..., :, None, :], b[..., None, :, :])

    def forms(x: np.ndarray) -> Iterator[np.ndarray]:
        """The same values: last axis contiguous, the one before it, neither."""
        dense = x[:1, :1] if shared and x is b else x
        for form in (
            dense.copy(),
            np.swapaxes(np.swapaxes(dense, -1, -2).copy(), -1, -2),
            np.repeat(dense, 2, axis=-1)[..., ::2],
        ):
            yield np.broadcast_to(form, x.shape)

    for x, y in itertools.product(forms(a), forms(b)):
        c = np.full((3, 2, m, n + 3), np.nan, np.float32).transpose(1, 0, 2, 3)
        strides = zip(
            ("a_batch0", "a_batch1", "a_row", "a_k", "b_batch0", "b_batch1", "b_n", "b_k"),
            [s // 4 for z in (x, y) for s in z.strides], strict=True)  # fmt: skip
        c_strides = zip(
            ("c_batch0", "c_batch1", "c_row"), [s // 4 for s in c.strides[:3]], strict=True
        )
        run_kernel(isa, pool, "bmm", a=x, b=y, c=c, batch0=2, batch1=3, m=m, n=n, k=k, **dict(strides),
                   **dict(c_strides))  # fmt: skip
        same(np.ascontiguousarray(c[..., :n]), want)
        assert np.isnan(c[..., n:]).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("k", [0, 7])
def test_batched_gemm(isa: str, k: int, pool: Any) -> None:
    """Per-element and shared right-hand sides; gaps between rows are left alone."""
    for m, n, share in itertools.product((2, 19), (5, 70), (False, True)):
        a, b = values("gaussian", (4, m, k + 3), 5)[..., :k], values("gaussian", (4, n, k), 6)
        p = packed(isa, pool, b)
        c = np.full((4, m, n + 2), np.nan, np.float32)
        run_kernel(isa, pool, "gemm", a=a, packed=p, c=c, batch=4, m=m, n=n, k=k, a_batch=m * (k + 3),
                   a_row=k + 3, b_batch=0 if share else p[0].size, c_batch=m * (n + 2),
                   c_row=n + 2, **FLOAT32)  # fmt: skip
        want = contract(a[:, :, None, :], (b[:1] if share else b)[:, None])
        same(np.ascontiguousarray(c[..., :n]), want)
        assert np.isnan(c[..., n:]).all()


class Recorder:
    """A tile function that checks the totals it is shown and replaces them by their double."""

    def __init__(self, c: np.ndarray, want: np.ndarray, params: list[int]) -> None:
        self.c, self.want, self.params, self.buffers = c, want, params, [c]
        self.count = np.zeros(c.shape, np.int64)
        self.faults: list[str] = []
        self.lock = threading.Lock()
        self.function = TileFn(self)
        self.address = ctypes.cast(self.function, ctypes.c_void_p).value or 0

    def __call__(self, bufs: int, params: int, r0: int, r1: int, c0: int, c1: int) -> None:
        with self.lock:
            block = np.s_[r0:r1, c0:c1]
            self.count[block] += 1
            if not (0 <= r0 < r1 <= self.c.shape[0] and 0 <= c0 < c1 <= self.c.shape[1]):
                self.faults.append(f"block {r0, r1, c0, c1}")
            if (ctypes.c_void_p * 1).from_address(bufs)[0] != self.c.ctypes.data:
                self.faults.append("buffers")
            if list((ctypes.c_int64 * len(self.params)).from_address(params)) != self.params:
                self.faults.append("params")
            if self.want[block].tobytes() != self.c[block].tobytes():
                self.faults.append(f"totals of {r0, r1, c0, c1}")
            self.c[block] *= 2

    def check(self) -> None:
        assert not self.faults
        assert (self.count == 1).all()
        same(self.c, self.want * np.float32(2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 500, 140), (3, 45, 5), (33, 600, 129), (190, 33, 12),
                                           (15, 33, 2180), (6, 2, 0)])  # fmt: skip
def test_epilogue_sees_every_block_once(isa: str, m: int, n: int, k: int, pool: Any) -> None:
    a, b = values("gaussian", (2, m, k), 7), values("gaussian", (2, n, k), 8)
    want = contract(a[:, :, None, :], b[:, None]).reshape(2 * m, n)
    p = packed(isa, pool, b)
    for kernel in ("gemm", "bmm"):
        c = np.full((2 * m, n), np.nan, np.float32)
        tile = Recorder(c, want, [11, -12])
        common = {"a": a, "c": c, "m": m, "n": n, "k": k, "a_row": k, "c_row": n, "tile": tile}
        if kernel == "gemm":
            run_kernel(isa, pool, "gemm", packed=p, batch=2, a_batch=m * k, b_batch=p[0].size,
                       c_batch=m * n, **common, **FLOAT32)  # fmt: skip
        else:
            run_kernel(isa, pool, "bmm", b=b, batch0=1, batch1=2, a_batch0=0, a_batch1=m * k, a_k=1,
                       b_batch0=0, b_batch1=n * k, b_k=1, b_n=k, c_batch0=0, c_batch1=m * n,
                       **common)  # fmt: skip
        tile.check()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 400_000), (3, 50_001), (70_000, 3),
                                            (1000, 70), (0, 5), (5, 0)])  # fmt: skip
def test_tile_partitions_its_region(isa: str, rows: int, cols: int, pool: Any) -> None:
    c = np.ones((rows, cols), np.float32)
    tile = Recorder(c, c.copy(), [5])
    run_kernel(isa, pool, "tile", rows=rows, columns=cols, tile=tile)
    tile.check()


def _set_mxcsr() -> Any:
    """A function that sets this thread's MXCSR, compiled for the purpose."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly("""
        declare void @llvm.x86.sse.ldmxcsr(ptr)
        define void @set(i32 %x) {
          %p = alloca i32
          store i32 %x, ptr %p
          call void @llvm.x86.sse.ldmxcsr(ptr %p)
          ret void
        }""")
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint32)(engine.get_function_address("set"))
    return function, engine


@pytest.mark.skipif("avx512" not in ISAS and "avx2" not in ISAS, reason="needs x86-64")
@pytest.mark.parametrize("mode", [0x9FC0, 0x7F80], ids=["flush", "toward_zero"])
def test_a_caller_with_another_float_mode(mode: int) -> None:
    """Neither the calling thread nor workers born under its mode compute in it."""
    a, b, want = problem("subnormal", 75, 40, 261)
    set_mxcsr, _engine = _set_mxcsr()
    results = []

    def run() -> None:
        for threads, isa in itertools.product((1, 3), ISAS):
            right = packed(isa, _core.Pool(1), b)
            c = np.empty((75, 40), np.float32)
            set_mxcsr(mode)
            dirty = _core.float_mode_is_clean()
            call_gemm(isa, _core.Pool(threads), a, right, c, 75, 40, 261, 261)
            restored = _core.float_mode_is_clean()
            set_mxcsr(0x1F80)
            results.append((dirty, restored, c))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(results) == 2 * len(ISAS)
    for dirty, restored, c in results:
        assert not dirty
        assert not restored
        same(c, want)
