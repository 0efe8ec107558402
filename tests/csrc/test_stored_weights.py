"""Products with a weight that is kept narrow: the bits of widening it first, for every form and shape."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ree import _core
from ree.kernels.constants import STORED_BF16, STORED_F16, STORED_I8
from ree.kernels.numerics import contract

from .calling import run_kernel

ISAS = _core.isa_names()
MS, NS = (1, 2, 3, 4, 5, 14, 15, 47), (1, 31, 33, 100)


def packed(isa: str, pool: Any, x: np.ndarray) -> np.ndarray:
    """Panels of a matrix [n, k] of any element."""
    (n, k), panel = x.shape, _core.panel(isa)
    out = np.full((-(-n // panel), k, panel), 77, x.dtype)
    run_kernel(isa, pool, "pack", b=x, packed=out, k=k, n=n, stride_k=1, stride_n=k, batch=1, b_batch=0,
               element_bytes=x.itemsize)  # fmt: skip
    return out


def half(kind: str, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(bits, float32, storage): every exponent, subnormal numbers, infinities and NaN."""
    rng = np.random.default_rng([seed, *shape])
    x = rng.integers(0, 1 << 16, shape, dtype=np.uint16)
    if kind == "bf16":
        return x, (x.astype(np.uint32) << 16).view(np.float32), STORED_BF16
    return x, x.view(np.float16).astype(np.float32), STORED_F16


@pytest.fixture(scope="module", params=(1, 3))
def pool(request: pytest.FixtureRequest) -> Any:
    return _core.Pool(request.param)


def product(isa: str, pool: Any, a: np.ndarray, w: np.ndarray, storage: int, n: int, block: int = 0,
            scale: np.ndarray | None = None, offset: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
    (m, k), c = a.shape, np.full((a.shape[0], n), np.nan, np.float32)
    terms = [None if t is None else packed(isa, pool, t) for t in (scale, offset)]
    run_kernel(isa, pool, "gemm", a=a, packed=packed(isa, pool, w), scale=terms[0], offset=terms[1], c=c,
               batch=1, m=m, n=n, k=k, a_batch=0, a_row=k, b_batch=0, c_batch=0, c_row=n, storage=storage,
               block=block)  # fmt: skip
    return c


def same(x: np.ndarray, y: np.ndarray) -> None:
    np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["bf16", "f16"])
@pytest.mark.parametrize("k", [0, 1, 127, 129, 300])
def test_half_precision_is_widened_exactly(isa: str, kind: str, k: int, pool: Any) -> None:
    for m, n in itertools.product(MS, NS):
        bits, w, storage = half(kind, (n, k), m)
        a = np.random.default_rng([m, n, k]).standard_normal((m, k)).astype(np.float32)
        same(product(isa, pool, a, bits, storage, n), contract(a[:, None, :], w[None]))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("has_offset", [False, True])
@pytest.mark.parametrize(
    ("k", "block"), [(16, 16), (32, 32), (160, 32), (384, 128), (912, 16), (2080, 32)]
)
def test_blocks_are_scaled_and_moved_in_that_order(isa: str, has_offset: bool, k: int, block: int,
                                                   pool: Any) -> None:  # fmt: skip
    for m, n in itertools.product(MS, NS):
        rng = np.random.default_rng([m, n, k])
        q = rng.integers(-128, 128, (n, k), dtype=np.int8)
        # scales of every bit, so that the product is rounded and the order is seen
        scale = np.ldexp(
            rng.standard_normal((n, k // block)), rng.integers(-30, 30, (n, k // block))
        )
        scale = scale.astype(np.float32)
        offset = rng.standard_normal(scale.shape).astype(np.float32) if has_offset else None
        w = q.reshape(n, -1, block).astype(np.float32) * scale[..., None]
        if offset is not None:
            w = w + offset[..., None]
        a = rng.standard_normal((m, k)).astype(np.float32)
        got = product(isa, pool, a, q, STORED_I8, n, block, scale, offset)
        same(got, contract(a[:, None, :], w.reshape(n, k)[None]))


@pytest.mark.parametrize("isa", ISAS)
def test_many_rows_share_a_widened_segment(isa: str, pool: Any) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in ((300, 200, 1024), (130, 2000, 256)):
        q, scale = rng.integers(-128, 128, (n, k), dtype=np.int8), rng.standard_normal((n, k // 32))
        scale = scale.astype(np.float32)
        w = (q.reshape(n, -1, 32).astype(np.float32) * scale[..., None]).reshape(n, k)
        a = rng.standard_normal((m, k)).astype(np.float32)
        rows = rng.choice(m, 40, replace=False)
        same(
            product(isa, pool, a, q, STORED_I8, n, 32, scale)[rows],
            contract(a[rows, None, :], w[None]),
        )
