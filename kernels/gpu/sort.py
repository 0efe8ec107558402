"""Sorting on a GPU: an element's place is the number of elements that come before it.

Counting is exact in any order. The work is n^2 for a row: meant for rows of up to some tens of
thousands of elements; longer ones are right, and slow.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ree.kernels.gpu.launch import KernelCall, Ptr, ceil_div, gpu_kernel
from ree.kernels.gpu.lib import max_key


@triton.jit
def sort_key(v, FLOAT: tl.constexpr, DESCENDING: tl.constexpr):
    """A signed integer in the order wanted: NaN greatest, -0 equal to +0."""
    key = v
    if FLOAT:
        key = max_key(tl.where(v == 0.0, 0.0, v))
    if DESCENDING:
        key = ~key
    return key


@triton.jit
def sort_by_rank(
    x, y, where, n, inner, FLOAT: tl.constexpr, DESCENDING: tl.constexpr, B: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    """B elements of one row find their places among all n."""
    blocks = tl.cdiv(n, B)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks) * B + tl.arange(0, B)[:, None]
    base = (row // inner) * n * inner + row % inner
    v = tl.load(x + base + i.to(tl.int64) * inner, mask=i < n, other=0)
    key = sort_key(v, FLOAT, DESCENDING)
    place = tl.zeros((B, 1), tl.int32)
    for at in range(0, n, C):
        j = at + tl.arange(0, C)[None, :]
        other = tl.load(x + base + j.to(tl.int64) * inner, mask=j < n, other=0)
        k = sort_key(other, FLOAT, DESCENDING)
        before = (j < n) & ((k < key) | ((k == key) & (j < i)))
        place += tl.sum(before.to(tl.int32), axis=1)[:, None]
    at = base + place.to(tl.int64) * inner
    tl.store(y + at, v, mask=i < n)
    tl.store(where + at, i.to(tl.int64), mask=i < n)


def _sort(call: KernelCall, dtype: str) -> None:
    a = call.args
    b = 16 if a.n <= 16 else 64
    call.launch(
        sort_by_rank,
        (a.outer * a.inner * ceil_div(a.n, b),),
        [Ptr(a.x, dtype), Ptr(a.y, dtype), Ptr(a.indices, "i64"), a.n, a.inner],
        FLOAT=dtype == "fp32", DESCENDING=bool(a.descending), B=b, C=b,
    )  # fmt: skip


@gpu_kernel("sort_f32")
def _sort_f32(call: KernelCall) -> None:
    _sort(call, "fp32")


@gpu_kernel("sort_i64")
def _sort_i64(call: KernelCall) -> None:
    _sort(call, "i64")
