"""Data movement on a GPU: elements are copied as integers of their size, never interpreted.

An index out of range sets the error flag and reads element 0; the run then fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import triton
import triton.language as tl

from ree.kernels.gpu import lib as triton_lib
from ree.kernels.gpu.launch import ERROR, KernelCall, Ptr, ceil_div, gpu_kernel, power_of_two
from ree.kernels.gpu.lib import canonical
from ree.kernels.gpu.source import jit_source

INTEGER = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}

COPY = """
@triton.jit
def strided_copy(x, y, rows, cols, {names}RX, CX, RY, CY, BR: tl.constexpr, BC: tl.constexpr):
    # axis `row` steps by RX and RY, axis `column` by CX and CY; the rest are digits of the program
    blocks = tl.cdiv(cols, BC)
    tiles = tl.cdiv(rows, BR) * blocks
    q = tl.program_id(0) // tiles
    pid = tl.program_id(0) % tiles
    r = ((pid // blocks) * BR + tl.arange(0, BR)[:, None]).to(tl.int64)
    c = ((pid % blocks) * BC + tl.arange(0, BC)[None, :]).to(tl.int64)
{digits}
    mask = (r < rows) & (c < cols)
    v = tl.load(x + (r * RX + c * CX), mask=mask, other=0)
    tl.store(y + (r * RY + c * CY), v, mask=mask)
"""


def _copy_kernel(digits: int) -> Any:
    names, lines = "", []
    for d in range(digits):
        names += f"E{d}, X{d}, Y{d}, "
        lines.append(f"    g = (q % E{d}).to(tl.int64)\n    q = q // E{d}\n"
                     f"    x += g * X{d}\n    y += g * Y{d}")  # fmt: skip
    text = COPY.format(names=names, digits="\n".join(lines))
    return jit_source(text, "strided_copy", vars(triton_lib))


def simplify(
    extents: Sequence[int], xs: Sequence[int], ys: Sequence[int]
) -> list[tuple[int, int, int]]:  # fmt: skip
    """Axes (extent, x stride, y stride), outermost first, neighbours merged where both allow."""
    out: list[tuple[int, int, int]] = []
    for e, x, y in zip(extents, xs, ys, strict=True):
        if e == 1:
            continue
        if out and out[-1][1] == x * e and out[-1][2] == y * e:
            out[-1] = (out[-1][0] * e, x, y)
        else:
            out.append((e, x, y))
    return out


@gpu_kernel("strided_copy")
def _strided_copy(call: KernelCall) -> None:
    a = call.args
    if 0 in a.extents:
        return
    axes = simplify(a.extents, a.x_strides, a.y_strides)
    # columns are neighbours in y; rows, if it is another axis, are neighbours in x
    axes.sort(key=lambda a: -a[2])
    column = axes.pop() if axes else (1, 1, 1)
    row = min(axes, key=lambda a: (a[1] == 0, a[1])) if axes else (1, 0, 0)
    if axes:
        axes.remove(row)
    bc = min(power_of_two(column[0]), 64 if row[0] > 8 else 1024)
    br = min(power_of_two(row[0]), max(1, 2048 // bc))
    programs = ceil_div(row[0], br) * ceil_div(column[0], bc)
    digits: list[int] = []
    for e, x, y in axes:
        programs *= e
        digits += [e, x, y]
    dtype = INTEGER[a.element_bytes]
    call.launch(
        _copy_kernel(len(axes)),
        (programs,),
        [Ptr(a.x, dtype), Ptr(a.y, dtype), row[0], column[0], *digits,
         row[1], column[1], row[2], column[2]],
        BR=br, BC=bc,
    )  # fmt: skip


@triton.jit
def checked(i, size, live, error):
    """i where it is in [0, size); otherwise 0, and the error flag is set."""
    bad = live & ((i < 0) | (i >= size))
    tl.store(error + (i * 0).to(tl.int32), tl.full(i.shape, 1, tl.int32), mask=bad)
    return tl.where(bad, 0, i)


@triton.jit
def gather_rows(table, idx, y, error, n, width, rows, BR: tl.constexpr, BC: tl.constexpr):
    r = tl.program_id(0) * BR + tl.arange(0, BR)[:, None]
    c = tl.program_id(1) * BC + tl.arange(0, BC)[None, :]
    live = r < n
    i = checked(tl.load(idx + r, mask=live, other=0), rows, live, error)
    mask = live & (c < width)
    v = tl.load(table + i * width + c, mask=mask, other=0)
    tl.store(y + r.to(tl.int64) * width + c, v, mask=mask)


@gpu_kernel("gather_rows")
def _gather_rows(call: KernelCall) -> None:
    a = call.args
    n, width, dtype = a.count, a.row_elements, INTEGER[a.element_bytes]
    bc = min(power_of_two(width), 512)
    br = max(1, min(power_of_two(n), 512 // bc))
    call.launch(
        gather_rows,
        (ceil_div(n, br), ceil_div(width, bc)),
        [Ptr(a.table, dtype), Ptr(a.index, "i64"), Ptr(a.y, dtype), Ptr(ERROR, "i32"), n, width,
         a.table_rows],
        BR=br, BC=bc,
    )  # fmt: skip


@triton.jit
def gather_axis(x, idx, y, error, outer, n_x, n_idx, inner, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = at < outer * n_idx * inner
    i = checked(tl.load(idx + at, mask=live, other=0), n_x, live, error)
    o, c = at // (n_idx * inner), at % inner
    tl.store(y + at, tl.load(x + (o * n_x + i) * inner + c, mask=live, other=0), mask=live)


@gpu_kernel("gather_axis")
def _gather_axis(call: KernelCall) -> None:
    a = call.args
    dtype = INTEGER[a.element_bytes]
    call.launch(
        gather_axis,
        (ceil_div(a.outer * a.index_n * a.inner, 1024),),
        [Ptr(a.x, dtype), Ptr(a.index, "i64"), Ptr(a.y, dtype), Ptr(ERROR, "i32"), a.outer, a.x_n,
         a.index_n, a.inner],
        B=1024,
    )  # fmt: skip


INDEX = """
@triton.jit
def index_nd(x, y, error, tuples, block, {names}BR: tl.constexpr, BC: tl.constexpr):
    t = (tl.program_id(0) * BR + tl.arange(0, BR)[:, None]).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)[None, :]
    live = t < tuples
    mask = live & (c < block)
    q = t
{digits}
    at = t * 0
{reads}
    v = tl.load(x + at + c, mask=mask, other=0)
    tl.store(y + t * block + c, v, mask=mask)
"""


def _index_kernel(k: int, nd: int) -> Any:
    names, digits, reads = "", [], []
    for d in range(nd - 1, -1, -1):
        names += f"E{d}, "
        digits.append(f"    g{d} = q % E{d}\n    q = q // E{d}")
    for j in range(k):
        names += f"i{j}, Z{j}, S{j}, " + "".join(f"T{j}_{d}, " for d in range(nd))
        offset = " + ".join(f"g{d} * T{j}_{d}" for d in range(nd)) or "0"
        reads.append(f"    v{j} = tl.load(i{j} + (t * 0 + {offset}), mask=live, other=0)\n"
                     f"    v{j} = tl.where(v{j} < 0, v{j} + Z{j}, v{j})\n"
                     f"    at += checked(v{j}, Z{j}, live, error) * S{j}")  # fmt: skip
    text = INDEX.format(names=names, digits="\n".join(digits), reads="\n".join(reads))
    return jit_source(text, "index_nd", {**vars(triton_lib), "checked": checked})


@gpu_kernel("index_nd")
def _index_nd(call: KernelCall) -> None:
    a = call.args
    nd, block, tuples = a.rank, a.block, prod(a.extents)
    args: list[Ptr | int] = list(reversed(a.extents))
    live = 0
    for j, slot in enumerate(a.index):
        if slot < 0:  # reads coordinate 0
            continue
        strides = a.index_strides[j * nd : (j + 1) * nd]
        args += [Ptr(slot, "i64"), a.x_sizes[j], a.x_steps[j], *strides]
        live += 1
    dtype = INTEGER[a.element_bytes]
    bc = min(power_of_two(block), 512)
    br = max(1, min(power_of_two(tuples), 512 // bc))
    call.launch(
        _index_kernel(live, nd),
        (ceil_div(tuples, br), ceil_div(block, bc)),
        [Ptr(a.x, dtype), Ptr(a.y, dtype), Ptr(ERROR, "i32"), tuples, block, *args],
        BR=br, BC=bc,
    )  # fmt: skip


@triton.jit
def fill(y, n, value, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    tl.store(y + at, tl.full((B,), 0, tl.int64).to(y.dtype.element_ty) + value, mask=at < n)


@gpu_kernel("fill")
def _fill(call: KernelCall) -> None:
    a = call.args
    half = 1 << (8 * a.element_bytes - 1)
    signed = (a.pattern + half) % (2 * half) - half
    y = Ptr(a.y, INTEGER[a.element_bytes])
    call.launch(fill, (ceil_div(a.n, 1024),), [y, a.n, signed], B=1024)


@triton.jit
def iota(y, n, start, step, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    tl.store(y + at, at * step + start, mask=at < n)


@gpu_kernel("iota")
def _iota(call: KernelCall) -> None:
    a = call.args
    y = Ptr(a.y, "i64")
    call.launch(iota, (ceil_div(a.n, 1024),), [y, a.n, a.start, a.step], B=1024)


@triton.jit
def canonical_copy(x, y, n, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    tl.store(y + at, canonical(tl.load(x + at, mask=at < n, other=0.0)), mask=at < n)


@gpu_kernel("canonical_copy")
def _canonical_copy(call: KernelCall) -> None:
    a = call.args
    call.launch(canonical_copy, (ceil_div(a.n, 1024),), [call.f32(a.x), call.f32(a.y), a.n], B=1024)
