"""Writing at indices on a GPU: a program holds a block of the output and walks all updates in order.

There are no atomics and no two programs write the same element, so the order within an element is
the contract's. An index out of range sets the error flag.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ree.kernels.gpu.launch import ERROR, KernelCall, Ptr, ceil_div, gpu_kernel, power_of_two
from ree.kernels.gpu.lib import canonical
from ree.kernels.gpu.movement import INTEGER, checked


@triton.jit
def scatter_check(idx, error, n, total, WRAP: tl.constexpr, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < total
    i = tl.load(idx + at, mask=live, other=0)
    if WRAP:
        i = tl.where(i < 0, i + n, i)
    checked(i, n, live, error)


@triton.jit
def scatter_walk(
    x, idx, src, y, columns, n, inner, k,
    SHARED: tl.constexpr, ADD: tl.constexpr, FLOAT: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """R places along the axis of C columns, a column being a pair (outer, inner)."""
    blocks = tl.cdiv(n, R)
    first = (tl.program_id(0) % blocks) * R
    r = (first + tl.arange(0, R)[:, None]).to(tl.int64)
    column = ((tl.program_id(0) // blocks) * C + tl.arange(0, C)[None, :]).to(tl.int64)
    o, c = column // inner, column % inner
    live = column < columns
    at = (o * n + r) * inner + c
    out = tl.load(x + at, mask=live & (r < n), other=0)
    for j in range(0, k):
        here = (o * k + j) * inner + c
        if SHARED:
            i = tl.load(idx + j)
            i = tl.where(i < 0, i + n, i)
            if (i >= first) & (i < first + R):
                v = tl.load(src + here, mask=live, other=0)
                out = tl.where(r == i, out + v if ADD else v, out)
        else:
            i = tl.load(idx + here, mask=live, other=-1)
            v = tl.load(src + here, mask=(i >= first) & (i < first + R), other=0)
            out = tl.where(r == i, out + v if ADD else v, out)
    if FLOAT:
        out = canonical(out)
    tl.store(y + at, out, mask=live & (r < n))


def _scatter(call: KernelCall, dtype: str, add: bool) -> None:
    a = call.args
    n, columns, shared = a.n, a.outer * a.inner, bool(a.shared)
    index = Ptr(a.index, "i64")
    total = a.updates if shared else columns * a.updates
    if columns:
        call.launch(scatter_check, (ceil_div(total, 1024),), [index, Ptr(ERROR, "i32"), n, total],
                    WRAP=shared, B=1024)  # fmt: skip
    c = min(power_of_two(columns), 128)
    r = min(power_of_two(n), max(1, 1024 // c))
    call.launch(
        scatter_walk,
        (ceil_div(columns, c) * ceil_div(n, r),),
        [Ptr(a.x, dtype), index, Ptr(a.src, dtype), Ptr(a.y, dtype), columns, n, a.inner, a.updates],
        SHARED=shared, ADD=add, FLOAT=add and dtype == "fp32", R=r, C=c,
    )  # fmt: skip


@gpu_kernel("scatter")
def _put(call: KernelCall) -> None:
    _scatter(call, INTEGER[call.args.element_bytes], False)


@gpu_kernel("scatter_add_f32")
def _add_f32(call: KernelCall) -> None:
    _scatter(call, "fp32", True)


@gpu_kernel("scatter_add_i64")
def _add_i64(call: KernelCall) -> None:
    _scatter(call, "i64", True)
