"""Contractions on a GPU: `gemm`, `bmm` and `pack`, with the group's pointwise work on the results.

Every schedule keeps the contract's order. `gemm_tile` runs whole chains; when there are too few tiles
to fill a GPU, segments go to programs of their own (`gemm_segments`, or `gemv_segments` for a few
rows) and their partials are folded in order. Rows and columns beyond the matrix are clamped, computed
and not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

from ree.kernels import constants
from ree.kernels.gpu import launch
from ree.kernels.gpu import lib as triton_lib
from ree.kernels.gpu.launch import KernelCall, Ptr, ceil_div, gpu_kernel, power_of_two
from ree.kernels.gpu.lib import SEGMENT, canonical, number
from ree.kernels.gpu.pointwise import TritonCode, is_wide, tile_args, tile_code
from ree.kernels.gpu.source import jit_source

FEW_ROWS = 8  # up to which each lane keeps chains of its own columns
FILL = 120  # programs that fill a GPU well enough
PANEL = number(launch.PANEL)
BK = 16  # k of one dot: a longer float32 dot spills
STORED_BF16, STORED_F16, STORED_I8 = map(
    number, (constants.STORED_BF16, constants.STORED_F16, constants.STORED_I8)
)
ELEMENTS = {constants.STORED_F32: "fp32", constants.STORED_BF16: "i16", constants.STORED_F16: "i16",
            constants.STORED_I8: "i8"}  # fmt: skip


@triton.jit
def operand_pointers(a, b, r, c, a_row, a_k, b_k, b_n, k, PANELS: tl.constexpr):
    """Pointers to row r of A and column c of B at k = 0. With PANELS, B lies in panels [k][PANEL]."""
    pa = a + r.to(tl.int64) * a_row
    if PANELS:
        pb = b + (c // PANEL).to(tl.int64) * k * PANEL + c % PANEL
    else:
        pb = b + c.to(tl.int64) * b_n
    return pa, pb


@triton.jit
def term_pointers(scale, offset, c, k, STORED: tl.constexpr, BLOCK: tl.constexpr):
    """Pointers to the scale and offset of column c's first block, where elements of B have them."""
    at = c * 0
    if STORED == STORED_I8:
        at = (c // PANEL).to(tl.int64) * (k // BLOCK) * PANEL + c % PANEL
    return scale + at, offset + at


@triton.jit
def widened(y, ps, po, at, STORED: tl.constexpr, BLOCK: tl.constexpr, OFFSET: tl.constexpr):
    """Elements of B at 16 k from `at` on as float32, with the terms of their columns at ps and po."""
    if STORED == STORED_BF16:
        x = (y.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    elif STORED == STORED_F16:
        # the exponent's bias is another; what then lies above all numbers is infinite or NaN
        h = y.to(tl.int32)
        shifted = (h & 0x7FFF) << 13
        number = (shifted.to(tl.float32, bitcast=True) * 5192296858534827628530496329220096.0).to(
            tl.int32, bitcast=True
        )
        magnitude = tl.where(shifted < 0x0F800000, number, shifted | 0x7F800000)
        x = (magnitude | ((h & 0x8000) << 16)).to(tl.float32, bitcast=True)
    elif STORED == STORED_I8:
        row = (at // BLOCK) * PANEL
        x = y.to(tl.float32) * tl.load(ps + row)
        if OFFSET:
            x = x + tl.load(po + row)
    else:
        x = y
    return x


@triton.jit
def widen(
    b, out, scale, offset, k,
    STORED: tl.constexpr, BLOCK: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Panels of B as float32, 16 k a program; more of a panel than there is of B is widened too."""
    panel, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * 16
    i, c = at + tl.arange(0, 16)[:, None], tl.arange(0, PANEL)[None, :]
    ps, po = term_pointers(scale, offset, panel * PANEL + c, k, STORED, BLOCK)
    place = (panel * k + i) * PANEL + c
    y = tl.load(b + place, mask=(i < k) & (c >= 0), other=0)
    tl.store(out + place, widened(y, ps, po, at, STORED, BLOCK, OFFSET), mask=(i < k) & (c >= 0))


@triton.jit
def dots(
    pa, pb, start, stop, k, a_k, b_k,
    ONE: tl.constexpr, EVEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The contraction over [start, stop), start a multiple of 128. ONE: only the chain of one segment;
    EVEN: no k is out of range."""
    total = tl.zeros((BM, BN), tl.float32)
    acc = tl.zeros((BM, BN), tl.float32)
    step = tl.arange(0, 16)
    pa = pa[:, None] + (start + step)[None, :].to(tl.int64) * a_k
    pb = pb[None, :] + (start + step)[:, None].to(tl.int64) * b_k
    for at in range(start, stop, 16):
        if EVEN:
            x = tl.load(pa)
            y = tl.load(pb)
        else:
            # both sides are padded: zero times infinity would be NaN
            x = tl.load(pa, mask=(at + step)[None, :] < k, other=0.0)
            y = tl.load(pb, mask=(at + step)[:, None] < k, other=0.0)
        acc = tl.dot(x, y, acc, input_precision="ieee")
        # this form keeps the addition apart; `acc += dot` across segments would merge the chains
        if not ONE:
            if (at + 16) % SEGMENT == 0:
                total += acc
                acc = tl.zeros((BM, BN), tl.float32)
        pa += 16 * a_k
        pb += 16 * b_k
    if ONE:
        total = acc
    else:
        # the last, shorter segment; adding an empty one changes nothing, since total is never -0
        total += acc
    return total


@triton.jit
def tile_position(m, n, BM: tl.constexpr, BN: tl.constexpr):
    """Row and column of this program's tile: groups of 8 tile rows share columns in L2."""
    rows, cols = tl.cdiv(m, BM), tl.cdiv(n, BN)
    pid = tl.program_id(0)
    group = pid // (8 * cols)
    first = group * 8
    height = tl.minimum(rows - first, 8)
    inside = pid % (8 * cols)
    return first + inside % height, inside // height


@triton.jit
def gemm_segments(
    a, b, out, m, n, k, a_row, a_k, b_k, b_n,
    PANELS: tl.constexpr, EVEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Partials [segment][m][n] of segments of 128 k, one a program."""
    i, j = tile_position(m, n, BM, BN)
    segment = tl.program_id(1)
    r, c = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    pa, pb = operand_pointers(
        a, b, tl.minimum(r, m - 1), tl.minimum(c, n - 1), a_row, a_k, b_k, b_n, k, PANELS
    )
    start = segment * SEGMENT
    acc = dots(pa, pb, start, tl.minimum(start + SEGMENT, k), k, a_k, b_k, True, EVEN, BM, BN)
    at = (segment.to(tl.int64) * m + r[:, None]) * n + c[None, :]
    tl.store(out + at, acc, mask=(r < m)[:, None] & (c < n)[None, :])


@triton.jit
def gemv_segments(
    a, b, out, m, n, k, a_row, a_k, b_k, b_n, scale, offset,
    PANELS: tl.constexpr, EVEN: tl.constexpr, STORED: tl.constexpr, BLOCK: tl.constexpr,
    OFFSET: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """As `gemm_segments`, for a few rows: every lane carries the chains of its own columns. STORED, BLOCK,
    OFFSET: how B is kept (constants.py)."""
    segment = tl.program_id(1)
    r, c = tl.arange(0, BM), tl.program_id(0) * BN + tl.arange(0, BN)
    pa, pb = operand_pointers(
        a, b, tl.minimum(r, m - 1), tl.minimum(c, n - 1), a_row, a_k, b_k, b_n, k, PANELS
    )
    ps, po = term_pointers(scale, offset, tl.minimum(c, n - 1), k, STORED, BLOCK)
    acc = tl.zeros((BM, BN), tl.float32)
    for at in range(segment * SEGMENT, tl.minimum(segment * SEGMENT + SEGMENT, k), 16):
        for i in tl.static_range(16):
            step = tl.cast(at + i, tl.int64)
            if EVEN:
                x = tl.load(pa + step * a_k)
                y = tl.load(pb + step * b_k)
            else:
                x = tl.load(pa + step * a_k, mask=(r * 0 + at + i) < k, other=0.0)
                y = tl.load(pb + step * b_k, mask=(c * 0 + at + i) < k, other=0)
            y = widened(y, ps, po, at, STORED, BLOCK, OFFSET)
            acc = tl.fma(tl.broadcast_to(x[:, None], (BM, BN)), y[None, :], acc)
    at = (segment.to(tl.int64) * m + r[:, None]) * n + c[None, :]
    tl.store(out + at, acc, mask=(r < m)[:, None] & (c < n)[None, :])


@triton.jit
def pack(b, out, k, n, b_k, b_n, BK: tl.constexpr):
    """B into panels [n / PANEL][k][PANEL], zeros beyond n."""
    panel = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BK + tl.arange(0, BK)[:, None]
    j = tl.arange(0, PANEL)[None, :]
    c = panel * PANEL + j
    x = tl.load(b + i.to(tl.int64) * b_k + c * b_n, mask=(i < k) & (c < n), other=0)
    tl.store(out + (panel * k + i) * PANEL + j, x, mask=(i < k) & (j >= 0))


# {text} is the group's pointwise work on `total`
GEMM = """
@triton.jit
def {name}(
    a, b, y, m, n, k, a_b0, a_b1, a_row, a_k, b_b0, b_b1, b_k, b_n, batch1, {names}
    PANELS: tl.constexpr, EVEN: tl.constexpr, STORE: tl.constexpr, WIDE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):
    i, j = tile_position(m, n, BM, BN)
    batch = tl.program_id(1)
    outer, inner = (batch // batch1).to(tl.int64), (batch % batch1).to(tl.int64)
    a += outer * a_b0 + inner * a_b1
    b += outer * b_b0 + inner * b_b1
    row, c = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    pa, pb = operand_pointers(
        a, b, tl.minimum(row, m - 1), tl.minimum(c, n - 1), a_row, a_k, b_k, b_n, k, PANELS
    )
    total = dots(pa, pb, 0, k, k, a_k, b_k, False, EVEN, BM, BN)
    mask = (row < m)[:, None] & (c < n)[None, :]
    row_mask, column_mask = (row < m)[:, None], (c < n)[None, :]
    r, c = (batch * m + row)[:, None], c[None, :]
    if WIDE:
        r = r.to(tl.int64)
        c = c.to(tl.int64)
    if STORE:
        tl.store(y + (r * n + c), canonical(total), mask=mask)
{text}"""

FOLD = """
@triton.jit
def {name}(
    partials, y, m, n, segments, {names}
    STORE: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):
    blocks = tl.cdiv(n, BN)
    pid = tl.program_id(0)
    r = (pid // blocks) * BM + tl.arange(0, BM)[:, None]
    c = (pid % blocks) * BN + tl.arange(0, BN)[None, :]
    if WIDE:
        r = r.to(tl.int64)
        c = c.to(tl.int64)
    row_mask, column_mask = r < m, c < n
    mask = row_mask & column_mask
    total = tl.zeros((BM, BN), tl.float32)
    for s in range(0, segments):
        at = (tl.cast(s, tl.int64) * m + r) * n + c
        total += tl.load(partials + at, mask=mask, other=0.0)
    if STORE:
        tl.store(y + (r * n + c), canonical(total), mask=mask)
{text}"""


def _kernel(template: str, name: str, code: TritonCode) -> Any:
    names = "".join(f"{x}, " for x in code.names)
    scope = {**vars(triton_lib), **globals()}
    return jit_source(template.format(name=name, names=names, text=code.text), name, scope)


@dataclass(frozen=True)
class PanelStorage:
    """How B is kept, as the arguments of `gemm` say it; scale and offset are any pointers where there are
    none."""

    scale: Ptr
    offset: Ptr
    storage: int = constants.STORED_F32
    block: int = 0
    has_offset: bool = False

    @property
    def constants(self) -> dict[str, Any]:
        return {"STORED": self.storage, "BLOCK": self.block, "OFFSET": int(self.has_offset)}


def contract(
    call: KernelCall,
    batch: tuple[int, int],
    mnk: tuple[int, int, int],
    strides: Sequence[int],
    operands: tuple[Ptr, Ptr, int],
    panels: bool,
    kept: PanelStorage | None = None,
) -> None:
    """operands: A, B, and the slot of C. strides: a_b0, a_b1, a_row, a_k, b_b0, b_b1, b_k, b_n. panels: B
    lies as `pack` leaves it, and may be kept narrow."""
    m, n, k = mnk
    count, own = batch[0] * batch[1], call.args.tile
    a, b, y = operands
    total: frozenset[int] = frozenset()
    code, extra, store, wide = TritonCode("", ()), [], True, count * m * n >= 2**31
    if call.tile is not None:
        spec = call.tile
        total = frozenset(i for i in range(len(spec.sources)) if own.slots[i] == y)
        code = tile_code(spec, total)
        extra = tile_args(spec, own, total)
        store = y not in own.slots[len(spec.sources) :]
        wide = wide or is_wide(spec, own, n)
    out = Ptr(y, "fp32")
    sources = [a, b]
    segments = ceil_div(k, constants.SEGMENT)
    kept = kept or PanelStorage(a, a)
    if kept.storage != constants.STORED_F32 and not (segments > 1 and m <= FEW_ROWS):
        # many rows read a panel many times: it is widened once
        panel = call.take_scratch(ceil_div(n, launch.PANEL) * launch.PANEL * k * 4)
        call.launch(widen, (ceil_div(n, launch.PANEL), ceil_div(k, 16)), [b, panel, kept.scale, kept.offset, k],
                    warps=8, **kept.constants)  # fmt: skip
        sources, kept = [a, panel], PanelStorage(a, a)
    bm, bn, warps = tile_size(m, n, count)
    tiles = ceil_div(m, bm) * ceil_div(n, bn)
    even = k % BK == 0
    if count == 1 and segments > 1 and (m <= FEW_ROWS or 2 * tiles <= FILL):
        partials = call.take_scratch(segments * m * n * 4)
        few = m <= FEW_ROWS
        if few:
            bm, bn, warps = power_of_two(m), min(128, max(32, power_of_two(n))), 1
            tiles = ceil_div(n, bn)
        terms, constexpr = ([kept.scale, kept.offset], kept.constants) if few else ([], {})
        call.launch(
            gemv_segments if few else gemm_segments,
            (tiles, segments),
            [*sources, partials, m, n, k, *strides[2:4], *strides[6:], *terms],
            PANELS=panels, EVEN=even, **constexpr, BM=bm, BN=bn, warps=warps, stages=3,
        )  # fmt: skip
        bn = min(power_of_two(n), 128)
        bm = min(power_of_two(m), 512 // bn)
        call.launch(
            _kernel(FOLD, "gemm_fold", code),
            (ceil_div(m, bm) * ceil_div(n, bn),),
            [partials, out, m, n, segments, *extra],
            STORE=store, WIDE=wide, BM=bm, BN=bn,
        )  # fmt: skip
        return
    call.launch(
        _kernel(GEMM, "gemm", code),
        (tiles, count),
        [*sources, out, m, n, k, *strides, batch[1], *extra],
        PANELS=panels, EVEN=even, STORE=store, WIDE=wide, BM=bm, BN=bn, warps=warps, stages=3,
    )  # fmt: skip


def tile_size(m: int, n: int, count: int) -> tuple[int, int, int]:
    """(rows, columns, warps) of a tile: the largest that still fills the GPU."""
    for bm, bn, warps in ((128, 128, 8), (128, 64, 8), (64, 64, 4)):
        if ceil_div(m, bm) * ceil_div(n, bn) * count >= FILL and m > bm // 2 and n > bn // 2:
            return bm, bn, warps
    rows = min(64, max(16, power_of_two(m)))
    cols = min(64, max(16, power_of_two(n)))
    return rows, cols, 4 if rows * cols >= 1024 else 1


@gpu_kernel("gemm")
def _gemm(call: KernelCall) -> None:
    a = call.args
    kept = PanelStorage(call.f32(a.scale), call.f32(a.offset), a.storage, a.block, a.offset >= 0)
    contract(call, (1, a.batch), (a.m, a.n, a.k), [0, a.a_batch, a.a_row, 1, 0, a.b_batch, launch.PANEL, 1],
             (call.f32(a.a), Ptr(a.packed, ELEMENTS[a.storage]), a.c), True, kept)  # fmt: skip


@gpu_kernel("bmm")
def _bmm(call: KernelCall) -> None:
    a = call.args
    strides = [a.a_batch0, a.a_batch1, a.a_row, a.a_k, a.b_batch0, a.b_batch1, a.b_k, a.b_n]
    contract(call, (a.batch0, a.batch1), (a.m, a.n, a.k), strides,
             (call.f32(a.a), call.f32(a.b), a.c), False)  # fmt: skip


@gpu_kernel("pack")
def _pack(call: KernelCall) -> None:
    a = call.args
    if a.batch != 1:
        raise ValueError(f"pack: expected one matrix, got {a.batch}")
    element = {4: "fp32", 2: "i16", 1: "i8"}[a.element_bytes]
    call.launch(
        pack,
        (ceil_div(a.n, launch.PANEL), ceil_div(a.k, 32)),
        [Ptr(a.b, element), Ptr(a.packed, element), a.k, a.n, a.stride_k, a.stride_n],
        BK=32,
    )


__all__ = ["canonical"]  # the generated kernels find it here
