"""Data-movement kernels against NumPy, byte for byte, for every ISA and several thread counts."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ree import _core
from ree.kernels.index import contiguous_strides
from ree.kernels.numerics import canonical_nan

from .calling import run_kernel

ISAS = _core.isa_names()
POOLS = {n: _core.Pool(n) for n in (1, 2, 7)}
DTYPES = (np.uint8, np.uint16, np.uint32, np.uint64)
Array = npt.NDArray[np.generic]


def call(isa: str, threads: int, kernel: str, /, **arguments: Any) -> None:
    run_kernel(isa, POOLS[threads], kernel, **arguments)


@pytest.fixture(params=[(isa, n) for isa in ISAS for n in POOLS], ids=str)
def where(request: pytest.FixtureRequest) -> tuple[str, int]:
    value: tuple[str, int] = request.param
    return value


def noise(shape: tuple[int, ...], dtype: type, seed: int = 0) -> Array:
    bits = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(bits, dtype).reshape(shape).copy()


def elem_strides(a: Array) -> list[int]:
    return [s // a.itemsize for s in a.strides]


def copy(where: tuple[str, int], x: Array, y: Array) -> None:
    assert x.shape == y.shape
    call(*where, "strided_copy", x=x, y=y, element_bytes=x.itemsize, rank=x.ndim, extents=x.shape,
         x_strides=elem_strides(x), y_strides=elem_strides(y))  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_copy_permuted(where: tuple[str, int], dtype: type) -> None:
    x = noise((3, 1, 37, 65), dtype)
    for order in permutations(range(4)):
        view = x.transpose(order)
        y: Array = np.zeros(view.shape, dtype)
        copy(where, view, y)
        assert y.tobytes() == np.ascontiguousarray(view).tobytes()


def test_copy_large_transpose_and_row(where: tuple[str, int]) -> None:
    x = noise((300, 517), np.uint32)
    y = np.zeros((517, 300), np.uint32)
    copy(where, x.T, y)
    assert (y == x.T).all()
    flat = noise((100_003,), np.uint32)
    out = np.zeros_like(flat)
    copy(where, flat, out)
    assert (out == flat).all()


def test_copy_views(where: tuple[str, int]) -> None:
    x = noise((6, 40, 33), np.uint32)
    cases = [
        x[1:5, ::3, 2:30],
        x[:, ::-1, ::-2],
        np.broadcast_to(x[:, :1, :], (6, 9, 33)),
        np.broadcast_to(x[:, :, :1], (6, 40, 50)),
        np.broadcast_to(x[0, 0, :], (2, 3, 4, 5, 33)),
        np.broadcast_to(x[0, 0, 0], (5, 7)),
        np.broadcast_to(x[:, :, :1].transpose(2, 1, 0), (8, 40, 6)),
        x[0, 0, 0, ...],
        x[:0],
        noise((2, 2, 3, 2, 2, 3, 2, 5), np.uint32).transpose(7, 0, 6, 1, 5, 2, 4, 3),
    ]
    for view in cases:
        y = np.zeros(view.shape, np.uint32)
        copy(where, view, y)
        assert (y == view).all(), view.shape


def test_copy_into_a_strided_result(where: tuple[str, int]) -> None:
    x = noise((5, 34, 40), np.uint32)
    for order in permutations(range(3)):
        y = np.full((5, 36, 80), 7, np.uint32)
        want = y.copy()
        target = y[:, 1:35, ::2].transpose(order)
        source = np.ascontiguousarray(x.transpose(order))
        want[:, 1:35, ::2] = x
        copy(where, source, target)
        assert (y == want).all()


def test_gather_rows(where: tuple[str, int]) -> None:
    table = noise((50, 19), np.uint16)
    idx = np.random.default_rng(1).integers(0, 50, 9001)
    y = np.zeros((9001, 19), np.uint16)
    size = {"row_elements": 19, "table_rows": 50, "element_bytes": 2, "panel": 1}
    call(*where, "gather_rows", table=table, index=idx, y=y, count=9001, **size)
    assert (y == table[idx]).all()
    for bad in (-1, 50):
        wrong = idx.copy()
        wrong[8000] = bad
        with pytest.raises(IndexError, match=rf"index {bad} at position 8000 .*\[0, 50\)"):
            call(*where, "gather_rows", table=table, index=wrong, y=y, count=9001, **size)
    call(*where, "gather_rows", table=table, index=idx, y=y, count=0, **size)
    for panel in (4, 32):  # as `pack` lays a matrix of contractions
        for dtype in (np.uint8, np.uint16, np.float32, np.float64):
            plain = noise((50, 19), dtype)
            padded = np.zeros((-(-50 // panel) * panel, 19), dtype)
            padded[:50] = plain
            packed = np.ascontiguousarray(padded.reshape(-1, panel, 19).swapaxes(1, 2))
            y = np.zeros((9001, 19), dtype)
            size |= {"element_bytes": plain.itemsize, "panel": panel}
            call(*where, "gather_rows", table=packed, index=idx, y=y, count=9001, **size)
            assert y.tobytes() == plain[idx].tobytes()


def index_nd(where: tuple[str, int], x: Array, *indices: Array) -> Array:
    shape = np.broadcast_shapes(*(i.shape for i in indices))
    k = len(indices)
    y = np.zeros((*shape, *x.shape[k:]), x.dtype)
    strides = [s for idx in indices for s in elem_strides(np.broadcast_to(idx, shape))]
    call(*where, "index_nd", x=x, y=y, index=indices, element_bytes=x.itemsize, indices=k,
         rank=len(shape), block=int(np.prod(x.shape[k:])), extents=shape, index_strides=strides,
         x_steps=contiguous_strides(x.shape)[:k], x_sizes=x.shape[:k])  # fmt: skip
    return y


@pytest.mark.parametrize("dtype", DTYPES)
def test_index_nd(where: tuple[str, int], dtype: type) -> None:
    x = noise((7, 11, 13), dtype)
    rng = np.random.default_rng(2)
    rows, cols = rng.integers(-7, 7, (90, 1)), rng.integers(-11, 11, (1, 70))
    assert (index_nd(where, x, rows, cols) == x[rows, cols]).all()
    deep = rng.integers(-13, 13, (3, 1, 70))
    assert (index_nd(where, x, rows, cols, deep) == x[rows, cols, deep]).all()
    one = np.array(-3)
    assert (index_nd(where, x, one) == x[-3]).all()
    assert index_nd(where, x, rows[:0]).shape == (0, 1, 11, 13)


def test_index_nd_out_of_range(where: tuple[str, int]) -> None:
    x = noise((7, 11), np.uint32)
    for bad in (7, -8):
        with pytest.raises(IndexError, match=rf"index {bad} at position 3 .*\[-7, 7\)"):
            index_nd(where, x, np.array([0, 1, 2, bad, 4]))


def test_index_nd_null_index_reads_coordinate_zero(where: tuple[str, int]) -> None:
    x = noise((4, 5), np.uint32)
    idx, y = np.array([3, 0, -1]), np.zeros(3, np.uint32)
    call(*where, "index_nd", x=x, y=y, index=[None, idx], element_bytes=4, indices=2, rank=1, block=1,
         extents=[3], index_strides=[0, 1], x_steps=[5, 1], x_sizes=[4, 5])  # fmt: skip
    assert (y == x[0, idx]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_axis(where: tuple[str, int], dtype: type, axis: int) -> None:
    x = noise((5, 6, 7), dtype)
    shape = list(x.shape)
    shape[axis] = 4000
    idx = np.random.default_rng(3).integers(0, x.shape[axis], shape)
    y: Array = np.zeros(shape, dtype)
    outer, inner = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    arguments = {"x": x, "index": idx, "y": y, "element_bytes": x.itemsize, "outer": outer,
                 "x_n": x.shape[axis], "index_n": 4000, "inner": inner}  # fmt: skip
    call(*where, "gather_axis", **arguments)
    assert (y == np.take_along_axis(x, idx, axis)).all()
    idx.reshape(-1)[12345] = x.shape[axis]
    with pytest.raises(IndexError, match=f"index {x.shape[axis]} at position 12345 "):
        call(*where, "gather_axis", **arguments)


def test_fill_and_iota(where: tuple[str, int]) -> None:
    for dtype in DTYPES:
        for n in (0, 1, 70_001):
            y = noise((n + 1,), dtype)
            last = y[-1]
            pattern = int(np.frombuffer(b"\xfe" * y.itemsize, f"i{y.itemsize}")[0])
            call(*where, "fill", y=y, n=n, element_bytes=y.itemsize, pattern=pattern)
            assert y[:-1].tobytes() == b"\xfe" * (n * y.itemsize)
            assert y[-1] == last
    for n, start, step in ((70_001, -5, 3), (4, 2**63 - 2, 1), (0, 0, 1)):
        z = np.zeros(n, np.int64)
        call(*where, "iota", y=z, n=n, start=start, step=step)
        with np.errstate(over="ignore"):
            assert (z == np.int64(start) + np.int64(step) * np.arange(n)).all()


def test_canonical_copy(where: tuple[str, int]) -> None:
    x = noise((70_003,), np.uint32).view(np.float32)
    x[::5] = np.array(0xFFC00001, np.uint32).view(np.float32)
    x[:2] = np.array([0x7F800000, 0x7F800001], np.uint32).view(np.float32)
    y = np.zeros_like(x)
    call(*where, "canonical_copy", x=x, y=y, n=x.size)
    assert y.tobytes() == canonical_nan(x).tobytes()
    call(*where, "canonical_copy", x=x, y=x, n=x.size)
    assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_short_rows(where: tuple[str, int], dtype: type) -> None:
    """Views whose rows are short: permuted, strided and reversed axes, blocks cut out of long axes."""
    x = noise((6, 10, 7, 5), dtype)
    views = [
        x.transpose(1, 3, 0, 2)[::-1, :, ::2, ::-1],
        x.transpose(0, 2, 3, 1)[:, ::-1, ::-1, 1:9:3],
        x.reshape(60, 35)[:, :8].reshape(60, 2, 4).transpose(0, 2, 1),
        noise((4099, 3), dtype)[::-1, ::-1],
        noise((512, 4, 2, 2), dtype).transpose(0, 2, 1, 3)[:, ::-1],
    ]
    for v in views:
        y = np.zeros(v.shape, dtype)
        copy(where, v, y)
        assert y.tobytes() == v.tobytes()
