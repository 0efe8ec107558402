"""All entries of a long derivation at once, for parties: block after block by the kernels in
csrc/ops/derive.inl, the same bits as operation after operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np

from ree import _core
from ree.kernels.abi import call
from ree.kernels.numerics import SEGMENT, SUM_BLOCK, SUM_LANES, canonical_nan
from ree.kernels.opdef import Array
from ree.runtime import settings

BLOCK = 1 << 20  # elements of a source that are gathered together: a multiple of both rules' blocks
Row = Callable[[int, int], Array]  # the elements of a source from one reduction index to another


def contraction(a: Row, b: Row, n: int) -> Array:
    """Segments of fused multiply-adds from +0, each followed by its addition to the total."""
    out, total = np.empty(n + ceil(n / SEGMENT), np.uint32), np.zeros(1, np.float32)
    for start, at in _blocks(n):
        x, y = _f32(a(start, at)), _f32(b(start, at))
        to = out[start + start // SEGMENT :]
        _run("derive_contraction", {"a": x, "b": y, "out": to, "total": total}, n=at - start)
    return out


def integer_contraction(a: Row, b: Row, n: int) -> Array:
    """The total after each product of 8-bit integers, as bits of an i32."""
    out, total = np.empty(n, np.uint32), np.uint32(0)
    for start, at in _blocks(n):
        products = np.multiply(a(start, at), b(start, at), dtype=np.int32).view(np.uint32)
        np.cumsum(products, dtype=np.uint32, out=out[start:at])
        out[start:at] += total
        total = out[at - 1]
    return out


def lane_sums(x: Row, n: int) -> Array:
    """Blocks of 1,024: additions to 64 lanes, then 63 folds; block results by the same rule."""
    levels = [n]
    while levels[-1] > SUM_BLOCK:
        levels.append(ceil(levels[-1] / SUM_BLOCK))
    out = np.empty(sum(m + (SUM_LANES - 1) * ceil(m / SUM_BLOCK) for m in levels), np.uint32)
    to, row = out, x
    for m in levels:
        results = np.empty(ceil(m / SUM_BLOCK), np.float32)
        for start, at in _blocks(m):
            place = start + start // SUM_BLOCK * (SUM_LANES - 1)
            given = {"x": _f32(row(start, at)), "out": to[place:],
                     "results": results[start // SUM_BLOCK :]}  # fmt: skip
            _run("derive_sum", given, n=at - start)
        to = to[m + (SUM_LANES - 1) * len(results) :]
        row = _row(results)
    return out


def extreme(x: Row, n: int, greatest: bool) -> Array:
    """The greatest or the least element so far."""
    out, state = np.empty(n, np.uint32), np.full(1, -np.inf if greatest else np.inf, np.float32)
    for start, at in _blocks(n):
        given = {"x": _f32(x(start, at)), "out": out[start:], "state": state}
        _run("derive_extreme", given, n=at - start, greatest=greatest)
    return out


def argument(x: Row, n: int, greatest: bool) -> Array:
    """The index of the best element so far."""
    out, state = np.empty(n, np.uint64), np.zeros(2, np.int64)
    for start, at in _blocks(n):
        given = {"x": _f32(x(start, at)), "out": out[start:], "state": state}
        _run("derive_argument", given, n=at - start, greatest=greatest, first=start)
    return out


def running_sum(x: Row, n: int, dtype: np.dtype[np.generic]) -> Array:
    """Additions in segments, each of which ends with its addition to the total of those before."""
    name = "derive_cumsum_f32" if dtype == np.float32 else "derive_cumsum_i64"
    out = np.empty(n + ceil(n / SEGMENT), f"u{dtype.itemsize}")
    total = np.zeros(1, dtype)
    for start, at in _blocks(n):
        given = {"x": np.ascontiguousarray(x(start, at), dtype),
                 "out": out[start + start // SEGMENT :], "total": total}  # fmt: skip
        _run(name, given, n=at - start)
    return out


def places(key: Callable[[int, int], Array], n: int, index: int) -> Array:
    """How many elements up to each come before that at `index`, by keys and then by index: n counts, u64."""
    out, count, mine = np.empty(n, np.uint64), np.uint64(0), key(index, index + 1)[0]
    for start, at in _blocks(n):
        keys = key(start, at)
        before = keys < mine
        early = max(min(index, at) - start, 0)
        before[:early] |= keys[:early] == mine
        np.cumsum(before, dtype=np.uint64, out=out[start:at])
        out[start:at] += count
        count = out[at - 1]
    return out


def updates(first: Array, hit: Callable[[int, int], Array], row: Row, n: int, add: bool) -> Array:
    """The element, then what it is after each update; hit: which updates are its own. first: of one element."""
    out, now = np.empty(n + 1, first.dtype), first
    out[0] = first[0]
    with np.errstate(all="ignore"):
        for start, at in _blocks(n):
            mine = hit(start, at)
            chain = np.concatenate([now, row(start, at)[mine]])
            if add:
                chain = np.add.accumulate(chain, dtype=first.dtype)  # in order
                chain = canonical_nan(chain) if chain.dtype == np.float32 else chain
            out[start + 1 : at + 1] = chain[np.cumsum(mine)]
            now = chain[-1:]
    return out


def _row(x: Array) -> Row:
    return lambda start, at: x[start:at]


def _blocks(n: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def _f32(x: Array) -> Array:
    return np.ascontiguousarray(x, np.float32)


def _run(kernel: str, arrays: Mapping[str, Array], **params: int) -> None:
    plan = _core.Plan(settings.isa())
    plan.add(*call(kernel, **{name: i for i, name in enumerate(arrays)}, **params))
    plan.run(settings.pool(), [x.ctypes.data for x in arrays.values()])
