"""Row kernels on a GPU: sums, selections, softmax and norms; a program holds a few whole rows.

Sums keep the contract's tree: 64 lanes over a block of 1024, folded by halving; the results of blocks
are summed by the same rule, so levels nest. Elements past the end add +0, which changes nothing: a
lane is never -0. Selections are integer maxima of ordered keys, exact in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ree.kernels import abi, constants
from ree.kernels.gpu.launch import COUNTS, KernelCall, Ptr, ceil_div, gpu_kernel
from ree.kernels.gpu.lib import (
    NAN_BITS,
    SUM_BLOCK,
    SUM_LANES,
    canonical,
    exp_,
    f32_bits,
    from_max_key,
    from_order_key,
    lanes_sum,
    max_key,
    order_key,
)

PLAIN, EXP, SQUARE = 0, 1, 2  # what is summed: x, exp(x - m), (x - m)^2


@triton.jit
def term(x, m, KIND: tl.constexpr):
    """What a sum adds for element x; the product of SQUARE is rounded before it is added."""
    if KIND == 0:
        return x
    d = x - m
    if KIND == 1:
        return exp_(d)
    return d * d


@triton.jit
def block_sum(p, m, start, n, step, live, KIND: tl.constexpr, R: tl.constexpr):
    """Sum of elements [start, min(start + 1024, n)) of R rows; p [R, 1] points to the rows."""
    lane = tl.arange(0, SUM_LANES)[None, :]
    lanes = tl.zeros((R, SUM_LANES), tl.float32)
    for at in range(start, tl.minimum(start + SUM_BLOCK, n), SUM_LANES):
        inside = live & (at + lane < n)
        x = tl.load(p + (at + lane) * step, mask=inside, other=0.0)
        lanes += tl.where(inside, term(x, m, KIND), 0.0)
    return lanes_sum(lanes, R)[:, None]


@triton.jit
def row_sum(p, m, n, step, live, KIND: tl.constexpr, LEVELS: tl.constexpr, R: tl.constexpr):
    """Sum of R rows of n elements, [R, 1]; LEVELS: 1 for n <= 1024, 2 up to 2^20, 3 beyond."""
    lane = tl.arange(0, SUM_LANES)[None, :]
    if LEVELS == 1:
        return block_sum(p, m, 0, n, step, live, KIND, R)
    third = tl.zeros((R, SUM_LANES), tl.float32)
    groups = tl.cdiv(n, SUM_BLOCK * SUM_BLOCK)
    for g in range(0, groups):
        first = g * SUM_BLOCK
        second = tl.zeros((R, SUM_LANES), tl.float32)
        for b in range(first, tl.minimum(first + SUM_BLOCK, tl.cdiv(n, SUM_BLOCK))):
            part = block_sum(p, m, b * SUM_BLOCK, n, step, live, KIND, R)
            second = tl.where(lane == b % SUM_LANES, second + part, second)
        whole = lanes_sum(second, R)[:, None]
        third = tl.where(lane == g % SUM_LANES, third + whole, third)
    return lanes_sum(third, R)[:, None]


@triton.jit
def row_max(p, n, step, live, C: tl.constexpr, R: tl.constexpr):
    """The contract's maximum of R rows, [R, 1]; NaN if any element is."""
    column = tl.arange(0, C)[None, :]
    best = tl.full((R, 1), -2147483648, tl.int32)
    for at in range(0, n, C):
        inside = live & (at + column < n)
        x = tl.load(p + (at + column) * step, mask=inside, other=0.0)
        key = tl.where(inside, max_key(x), -2147483648)
        best = tl.maximum(best, tl.max(key, axis=1)[:, None])
    return from_max_key(best)


@triton.jit
def row_pointers(x, row, rows, n, inner):
    """Pointers to the first elements of rows, where rows of one outer index interleave."""
    safe = tl.minimum(row, rows - 1).to(tl.int64)
    return x + (safe // inner) * n * inner + safe % inner


@triton.jit(do_not_specialize=COUNTS)
def sum_rows(x, y, rows, n, inner, MEAN: tl.constexpr, LEVELS: tl.constexpr, R: tl.constexpr):
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    live = row < rows
    total = row_sum(row_pointers(x, row, rows, n, inner), 0.0, n, inner, live, 0, LEVELS, R)
    if MEAN:
        total = tl.div_rn(total, tl.full((R, 1), n, tl.int32).to(tl.float32))
    tl.store(y + row, canonical(total), mask=live)


@triton.jit(do_not_specialize=COUNTS)
def sum_blocks(x, out, rows, n, inner, blocks, R: tl.constexpr):
    """out[row][block]: sums of blocks of 1024, for rows too long for one program."""
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    block = tl.program_id(1)
    live = row < rows
    p = row_pointers(x, row, rows, n, inner)
    part = block_sum(p, 0.0, block * SUM_BLOCK, n, inner, live, 0, R)
    tl.store(out + row.to(tl.int64) * blocks + block, part, mask=live)


@triton.jit(do_not_specialize=COUNTS)
def mean_of(x, n, rows, R: tl.constexpr):
    """x / n in place."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    total = tl.load(x + row, mask=row < rows, other=0.0)
    y = tl.div_rn(total, tl.full((R,), n, tl.int32).to(tl.float32))
    tl.store(x + row, canonical(y), mask=row < rows)


@triton.jit(do_not_specialize=COUNTS)
def select_rows(x, y, rows, n, inner, LEAST: tl.constexpr, C: tl.constexpr, R: tl.constexpr):
    """Maximum or, with LEAST, minimum of each row."""
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    live = row < rows
    p = row_pointers(x, row, rows, n, inner)
    column = tl.arange(0, C)[None, :]
    # the least key is the greatest of the negated order; NaN stays on top of both
    best = tl.full((R, 1), -2147483648, tl.int32)
    for at in range(0, n, C):
        inside = live & (at + column < n)
        v = tl.load(p + (at + column) * inner, mask=inside, other=0.0)
        key = max_key(v)
        if LEAST:
            key = tl.where(v != v, 2147483647, ~order_key(v))
        best = tl.maximum(best, tl.max(tl.where(inside, key, -2147483648), axis=1)[:, None])
    if LEAST:
        out = tl.where(best == 2147483647, f32_bits(NAN_BITS), from_order_key(~best))
    else:
        out = from_max_key(best)
    tl.store(y + row, canonical(out), mask=live)


@triton.jit(do_not_specialize=COUNTS)
def argmax_rows(x, y, rows, n, inner, LEAST: tl.constexpr, C: tl.constexpr, R: tl.constexpr):
    """Lowest index of the greatest or least element: NaN before all, -0 equal to +0."""
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    live = row < rows
    p = row_pointers(x, row, rows, n, inner)
    column = tl.arange(0, C)[None, :]
    best = tl.full((R, 1), -2147483648, tl.int32)
    where = tl.full((R, 1), 0, tl.int64)
    for at in range(0, n, C):
        inside = live & (at + column < n)
        v = tl.load(p + (at + column) * inner, mask=inside, other=0.0)
        v = tl.where(v == 0.0, 0.0, v)
        key = max_key(v)
        if LEAST:
            key = tl.where(v != v, 2147483647, ~order_key(v))
        key = tl.where(inside, key, -2147483648)
        top = tl.max(key, axis=1)[:, None]
        first = tl.min(tl.where(inside & (key == top), at + column, 2147483647), axis=1)[:, None]
        where = tl.where(top > best, first.to(tl.int64), where)
        best = tl.maximum(best, top)
    tl.store(y + row, where, mask=live)


@triton.jit(do_not_specialize=COUNTS)
def softmax(
    x, y, rows, n, sx, sy, LEVELS: tl.constexpr, C: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    live = row < rows
    p = x + tl.minimum(row, rows - 1).to(tl.int64) * sx
    m = row_max(p, n, 1, live, C, R)
    total = row_sum(p, m, n, 1, live, 1, LEVELS, R)
    column = tl.arange(0, C)[None, :]
    for at in range(0, n, C):
        inside = live & (at + column < n)
        v = tl.load(p + at + column, mask=inside, other=0.0)
        out = tl.div_rn(exp_(v - m), total + tl.zeros((R, C), tl.float32))
        tl.store(y + row.to(tl.int64) * sy + at + column, canonical(out), mask=inside)


@triton.jit(do_not_specialize=COUNTS)
def norm(
    x, w, b, y, rows, n, sx, sy,
    EPS: tl.constexpr, CENTRE: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr,
    LEVELS: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """(x - mean) / sqrt(variance + eps) [* w] [+ b]; without CENTRE the mean is not taken."""
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    live = row < rows
    p = x + tl.minimum(row, rows - 1).to(tl.int64) * sx
    count = tl.full((R, 1), n, tl.int32).to(tl.float32)
    mean = tl.zeros((R, 1), tl.float32)
    if CENTRE:
        mean = tl.div_rn(row_sum(p, 0.0, n, 1, live, 0, LEVELS, R), count)
        square = row_sum(p, mean, n, 1, live, 2, LEVELS, R)
    else:
        square = row_sum(p, 0.0, n, 1, live, 2, LEVELS, R)
    root = tl.sqrt_rn(tl.div_rn(square, count) + f32_bits(EPS))
    scale = tl.div_rn(tl.full((R, 1), 1.0, tl.float32), root)
    column = tl.arange(0, C)[None, :]
    for at in range(0, n, C):
        inside = live & (at + column < n)
        v = tl.load(p + at + column, mask=inside, other=0.0)
        if CENTRE:
            v = v - mean
        v = v * scale
        if WEIGHT:
            v = v * tl.load(w + at + column, mask=at + column < n, other=0.0)
        if BIAS:
            v = v + tl.load(b + at + column, mask=at + column < n, other=0.0)
        tl.store(y + row.to(tl.int64) * sy + at + column, canonical(v), mask=inside)


def levels(n: int) -> int:
    """Levels of the sum tree over n elements, as `row_sum` counts them."""
    return 1 if n <= constants.SUM_BLOCK else 2


# Few sizes, so that every kernel there can be is compiled and audited ahead; what sticks out is masked.


def rows_of(rows: int, n: int, inner: int = 1) -> int:
    """Rows of one program: neighbours in memory when columns are summed; one where the sum has several
    levels, whose lanes would take 157 registers a thread for four rows and take 30 for one."""
    if inner > 1:
        return 32
    return 4 if rows > 1 and levels(n) == 1 else 1


def columns_of(n: int) -> int:
    """Elements of a row that a program of softmax or a norm writes at once."""
    return 32 if n <= 32 else 128


@gpu_kernel("sum")
def _sum(call: KernelCall) -> None:
    a = call.args
    n, inner, mean = a.n, a.inner, bool(a.mean)
    rows, x, y = a.outer * inner, call.f32(a.x), call.f32(a.y)
    r = rows_of(rows, n, inner)
    # blocks of their own for long rows that are few, and for long columns: the lanes of two levels of 32
    # rows would spill
    most = constants.SUM_BLOCK
    split = n > most and (inner > 1 or (n > 4 * most and ceil_div(rows, r) < 256))
    count = n
    while split and count > most:
        blocks = ceil_div(count, most)
        out = y if blocks == 1 else call.take_scratch(rows * blocks * 4)
        call.launch(sum_blocks, (ceil_div(rows, r), blocks), [x, out, rows, count, inner, blocks],
                    R=r)  # fmt: skip
        x, count, inner = out, blocks, 1
    # a last level over block results; their mean is over n, not over the blocks
    call.launch(sum_rows, (ceil_div(rows, r),), [x, y, rows, count, inner],
                MEAN=mean and not split, LEVELS=levels(count), R=r)  # fmt: skip
    if mean and split:
        call.launch(mean_of, (ceil_div(rows, 128),), [y, n, rows], R=128)


def _select(call: KernelCall, least: bool) -> None:
    a = call.args
    rows = a.outer * a.inner
    r, c = select_shape(a.n, a.inner)
    call.launch(select_rows, (ceil_div(rows, r),),
                [call.f32(a.x), call.f32(a.y), rows, a.n, a.inner], LEAST=least, C=c, R=r)  # fmt: skip


def select_shape(n: int, inner: int) -> tuple[int, int]:
    """(rows, elements of each) that a program of a selection reads at once."""
    if inner > 1 or n <= 32:
        return 32, 32
    return (4, 256) if n <= 256 else (1, 1024)


@gpu_kernel("amax")
def _amax(call: KernelCall) -> None:
    _select(call, False)


@gpu_kernel("amin")
def _amin(call: KernelCall) -> None:
    _select(call, True)


def _arg(call: KernelCall, least: bool) -> None:
    a = call.args
    rows = a.outer * a.inner
    r, c = select_shape(a.n, a.inner)
    call.launch(argmax_rows, (ceil_div(rows, r),),
                [call.f32(a.x), Ptr(a.y, "i64"), rows, a.n, a.inner], LEAST=least, C=c, R=r)  # fmt: skip


@gpu_kernel("argmax")
def _argmax(call: KernelCall) -> None:
    _arg(call, False)


@gpu_kernel("argmin")
def _argmin(call: KernelCall) -> None:
    _arg(call, True)


@gpu_kernel("softmax")
def _softmax(call: KernelCall) -> None:
    a = call.args
    r = rows_of(a.rows, a.n)
    call.launch(softmax, (ceil_div(a.rows, r),),
                [call.f32(a.x), call.f32(a.y), a.rows, a.n, a.x_row, a.y_row],
                LEVELS=levels(a.n), C=columns_of(a.n), R=r)  # fmt: skip


def _norm(call: KernelCall, bias: int, centre: bool) -> None:
    a = call.args
    r = rows_of(a.rows, a.n)
    call.launch(
        norm,
        (ceil_div(a.rows, r),),
        [call.f32(a.x), call.f32(a.weight), call.f32(bias), call.f32(a.y), a.rows, a.n, a.x_row, a.y_row],
        EPS=abi.f32_bits(a.eps), CENTRE=centre, WEIGHT=a.weight >= 0, BIAS=bias >= 0,
        LEVELS=levels(a.n), C=columns_of(a.n), R=r,
    )  # fmt: skip


@gpu_kernel("layer_norm")
def _layer_norm(call: KernelCall) -> None:
    _norm(call, call.args.bias, True)


@gpu_kernel("rms_norm")
def _rms_norm(call: KernelCall) -> None:
    _norm(call, -1, False)
