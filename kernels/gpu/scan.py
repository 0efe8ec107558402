"""Scans on a GPU: cumsum in three passes over segments of 128."""

from __future__ import annotations

import triton
import triton.language as tl

from ree.kernels import constants
from ree.kernels.gpu.launch import COUNTS, KernelCall, Ptr, ceil_div, gpu_kernel
from ree.kernels.gpu.lib import SEGMENT, canonical

LANES = 128  # chains of one program


@triton.jit(do_not_specialize=COUNTS)
def scan_segments(x, y, totals, rows, n, inner, segments, B: tl.constexpr):
    """y: running sums inside each segment; totals[row][segment]. A lane is one segment of a row."""
    lane = (tl.program_id(0) * B + tl.arange(0, B)).to(tl.int64)
    live = lane < rows * segments
    row, segment = lane % rows, lane // rows
    at = (row // inner) * n * inner + row % inner + segment * SEGMENT * inner
    s = tl.zeros((B,), y.dtype.element_ty)
    for k in range(0, SEGMENT):
        inside = live & (segment * SEGMENT + k < n)
        s = s + tl.load(x + at + k * inner, mask=inside, other=0)
        tl.store(y + at + k * inner, s, mask=inside)
    tl.store(totals + row * segments + segment, s, mask=live)


@triton.jit(do_not_specialize=COUNTS)
def scan_totals(totals, rows, segments, B: tl.constexpr):
    """totals[row][segment] becomes the total of the segments before it."""
    row = (tl.program_id(0) * B + tl.arange(0, B)).to(tl.int64)
    live = row < rows
    total = tl.zeros((B,), totals.dtype.element_ty)
    for j in range(0, segments):
        s = tl.load(totals + row * segments + j, mask=live, other=0)
        tl.store(totals + row * segments + j, total, mask=live)
        total = total + s


@triton.jit(do_not_specialize=COUNTS)
def scan_add(y, totals, rows, n, inner, segments, FLOAT: tl.constexpr, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < rows * n
    k = (at // inner) % n
    row = at // (n * inner) * inner + at % inner
    before = tl.load(totals + row * segments + k // SEGMENT, mask=live, other=0)
    out = before + tl.load(y + at, mask=live, other=0)
    if FLOAT:
        out = canonical(out)
    tl.store(y + at, out, mask=live)


def _cumsum(call: KernelCall, dtype: str, size: int) -> None:
    a = call.args
    n, inner = a.n, a.inner
    rows, segments = a.outer * inner, ceil_div(n, constants.SEGMENT)
    x, y = Ptr(a.x, dtype), Ptr(a.y, dtype)
    totals = call.take_scratch(rows * segments * size, dtype)
    call.launch(scan_segments, (ceil_div(rows * segments, LANES),),
                [x, y, totals, rows, n, inner, segments], B=LANES)  # fmt: skip
    call.launch(scan_totals, (ceil_div(rows, LANES),), [totals, rows, segments], B=LANES)
    call.launch(scan_add, (ceil_div(rows * n, 1024),), [y, totals, rows, n, inner, segments],
                FLOAT=dtype == "fp32", B=1024)  # fmt: skip


@gpu_kernel("cumsum_f32")
def _cumsum_f32(call: KernelCall) -> None:
    _cumsum(call, "fp32", 4)


@gpu_kernel("cumsum_i64")
def _cumsum_i64(call: KernelCall) -> None:
    _cumsum(call, "i64", 8)
