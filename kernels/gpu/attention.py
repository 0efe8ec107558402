"""Attention on a GPU: prefill in one kernel, decode split over key segments and folded in order.

A segment is 128 keys. Scores, probabilities and the segment's output stay in registers; the weighted
values are a chain of dots of 16 keys. Where V is finite, an invalid key's product is zero and nothing
is tested; a head whose V is not finite sets a flag, and `attention_careful` computes it again key by
key, reading V as +0 where the key is invalid.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ree.kernels import abi, constants
from ree.kernels.constants import BOOL_MASK, NO_MASK
from ree.kernels.gpu.contraction import dots
from ree.kernels.gpu.launch import KernelCall, Ptr, ceil_div, gpu_kernel, power_of_two
from ree.kernels.gpu.lib import SEGMENT, canonical, exp_, f32_bits, halves_sum, lanes_sum
from ree.kernels.gpu.movement import fill

FILL = 120  # programs that fill a GPU well enough
# limits to try: ptxas spills a few registers to fit one more program, or hoists too many loads
REGISTERS = (0, 224, 192, 168, 255, 128)


@triton.jit
def shift(m):
    """What is subtracted before exp: m, or +0 where nothing is valid."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit
def quarters(x, BM: tl.constexpr, WIDTH: tl.constexpr):
    """[BM, WIDTH] cut into two halves of its columns."""
    return tl.split(tl.permute(tl.reshape(x, (BM, 2, WIDTH // 2)), (0, 2, 1)))


@triton.jit
def segment_scores(
    pq, k, mask, i, tile, start, queries, keys, width, k_t, m_q, m_k, q_offset, window,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr,
    EVEN: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Scores of the queries `i` [BM] against a segment of keys, -inf where the key is invalid."""
    # offsets inside a tile are 32-bit, from a 64-bit base: registers are short here
    slot = tl.arange(0, SEGMENT)
    j = start + slot
    first = tl.cast(start, tl.int64)
    pk = k + first * k_t + tl.minimum(slot, keys - 1 - start) * k_t
    s = dots(pq, pk, 0, width, width, 1, 1, False, EVEN, BM, SEGMENT) * f32_bits(SCALE)
    position = (i + q_offset)[:, None]
    valid = (j < keys)[None, :] & (i < queries)[:, None]
    if CAUSAL:
        valid = valid & (j[None, :] <= position)
    if WINDOW:
        valid = valid & (j[None, :] > position - window)
    if MASK:
        row = tl.arange(0, BM)
        top = tl.cast(tile, tl.int64) * BM
        pm = mask + top * m_q + first * m_k + (row[:, None] * m_q + slot[None, :] * m_k)
        if MASK == 1:
            valid = valid & (tl.load(pm, mask=valid, other=0) != 0)
        else:
            s = s + tl.load(pm, mask=valid, other=0.0)
    return tl.where(valid, s, float("-inf"))


@triton.jit
def probabilities(s, BM: tl.constexpr):
    """(m, p, l) of one segment's scores. The sign of a zero maximum does not matter to exp, and a
    NaN score makes its own p and so l NaN, whatever the maximum is."""
    m = tl.max(s, axis=1)
    p = tl.where(s == float("-inf"), 0.0, exp_(s - shift(m)[:, None]))
    return m, p, lanes_sum(halves_sum(p, BM, SEGMENT), BM)


@triton.jit
def value_tile(v, start, keys, columns, values, v_t):
    """16 rows of V from key `start`; +0 outside."""
    i = tl.arange(0, 16)
    pv = v + tl.cast(start, tl.int64) * v_t + (i[:, None] * v_t + columns[None, :])
    return tl.load(pv, mask=(start + i < keys)[:, None] & (columns < values)[None, :], other=0.0)


@triton.jit
def infinite(x):
    """Per element, 1 where x is infinite or NaN."""
    return ((x.to(tl.uint32, bitcast=True) & 0x7F800000) == 0x7F800000).to(tl.int32)


@triton.jit
def weighted(p, v, start, keys, columns, values, v_t, BM: tl.constexpr, BV: tl.constexpr):
    """(chain of p * v over a segment, then + 0; per column of the tiles, whether V is not finite)."""
    low, high = quarters(p, BM, SEGMENT)
    a, b = quarters(low, BM, SEGMENT // 2)
    c, d = quarters(high, BM, SEGMENT // 2)
    p0, p1 = quarters(a, BM, SEGMENT // 4)
    p2, p3 = quarters(b, BM, SEGMENT // 4)
    p4, p5 = quarters(c, BM, SEGMENT // 4)
    p6, p7 = quarters(d, BM, SEGMENT // 4)
    o = tl.zeros((BM, BV), tl.float32)
    x = value_tile(v, start, keys, columns, values, v_t)
    bad = infinite(x)
    o = tl.dot(p0, x, o, input_precision="ieee")
    x = value_tile(v, start + 16, keys, columns, values, v_t)
    bad |= infinite(x)
    o = tl.dot(p1, x, o, input_precision="ieee")
    x = value_tile(v, start + 32, keys, columns, values, v_t)
    bad |= infinite(x)
    o = tl.dot(p2, x, o, input_precision="ieee")
    x = value_tile(v, start + 48, keys, columns, values, v_t)
    bad |= infinite(x)
    o = tl.dot(p3, x, o, input_precision="ieee")
    x = value_tile(v, start + 64, keys, columns, values, v_t)
    bad |= infinite(x)
    o = tl.dot(p4, x, o, input_precision="ieee")
    x = value_tile(v, start + 80, keys, columns, values, v_t)
    bad |= infinite(x)
    o = tl.dot(p5, x, o, input_precision="ieee")
    x = value_tile(v, start + 96, keys, columns, values, v_t)
    bad |= infinite(x)
    o = tl.dot(p6, x, o, input_precision="ieee")
    x = value_tile(v, start + 112, keys, columns, values, v_t)
    bad |= infinite(x)
    o = tl.dot(p7, x, o, input_precision="ieee")
    return o + 0.0, bad


@triton.jit
def weighted_careful(
    s, p, v, start, keys, columns, values, v_t, BM: tl.constexpr, BV: tl.constexpr
):
    """As `weighted`, one key at a time, with V read as +0 where the key is invalid."""
    slot = tl.arange(0, SEGMENT)[None, :]
    bits = p.to(tl.int32, bitcast=True)
    o = tl.zeros((BM, BV), tl.float32)
    for j in range(0, tl.minimum(SEGMENT, keys - start)):
        here = slot == j
        # exactly one slot is not zero, so the sum of integers is that slot
        pj = tl.sum(tl.where(here, bits, 0), axis=1).to(tl.float32, bitcast=True)
        valid = tl.max((here & (s != float("-inf"))).to(tl.int32), axis=1) != 0
        x = tl.load(
            v + tl.cast(start + j, tl.int64) * v_t + columns, mask=columns < values, other=0.0
        )
        x = tl.where(valid[:, None], x[None, :], 0.0)
        o = tl.fma(pj[:, None] + tl.zeros((BM, BV), tl.float32), x, o)
    return o + 0.0


@triton.jit
def fold(big_m, big_l, big_o, m, part_l, part_o):
    """The state after one more segment."""
    new_m = tl.where(m > big_m, m, big_m)
    u = shift(new_m)
    a, b = exp_(big_m - u), exp_(m - u)
    big_l = tl.fma(big_l, a, part_l * b)
    # by hand: the shapes of a fused multiply-add must agree
    wide = tl.zeros_like(big_o)
    big_o = tl.fma(big_o, a[:, None] + wide, part_o * b[:, None]) + 0.0
    return new_m, big_l, big_o


@triton.jit
def output(big_l, big_o):
    """o / l, +0 where no key was valid."""
    wide = tl.zeros_like(big_o) + big_l[:, None]
    return canonical(tl.where(wide == 0.0, 0.0, tl.div_rn(big_o, wide)))


@triton.jit
def attention(
    q, k, v, mask, out, flags, heads, group, queries, keys, width, values,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, m_b, m_h, m_q, m_k, o_b, o_h, o_t,
    q_offset, window, parts,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr,
    EVEN: tl.constexpr, CAREFUL: tl.constexpr, SPLIT: tl.constexpr,
    BM: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head: the state after all its segments, or with SPLIT after one, into
    `parts` [part][head][query][m, l, o...]; with CAREFUL only of heads whose flag is set. The division
    is left to `attention_fold`: its slow path is a call, around which registers would spill."""
    head = tl.program_id(1)
    blocks = tl.cdiv(values, BV)
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    batch, h = (head // heads).to(tl.int64), (head % heads).to(tl.int64)
    i = tile * BM + tl.arange(0, BM)
    columns = block * BV + tl.arange(0, BV)
    q += batch * q_b + h * q_h
    k += batch * k_b + (h // group) * k_h
    v += batch * v_b + (h // group) * v_h
    mask += batch * m_b + h * m_h
    pq = q + tl.minimum(i, queries - 1).to(tl.int64) * q_t
    first, last = 0, keys
    # tiles where causality or the window exclude every key change nothing
    if CAUSAL:
        last = tl.minimum(keys, tl.minimum(tile * BM + BM, queries) + q_offset)
    if WINDOW:
        first = tl.maximum(0, tile * BM + q_offset - window + 1) // SEGMENT * SEGMENT
    if SPLIT:
        first = tl.program_id(2) * SEGMENT
        last = tl.minimum(last, first + SEGMENT)
    rows = queries
    if CAREFUL:
        if tl.load(flags + head) == 0:
            last = first
            rows = 0
    big_m = tl.full((BM,), float("-inf"), tl.float32)
    big_l = tl.zeros((BM,), tl.float32)
    big_o = tl.zeros((BM, BV), tl.float32)
    bad = tl.zeros((16, BV), tl.int32)
    for start in range(first, last, SEGMENT):
        s = segment_scores(
            pq, k, mask, i, tile, start, queries, keys, width, k_t, m_q, m_k, q_offset, window,
            SCALE, CAUSAL, WINDOW, MASK, EVEN, BM,
        )  # fmt: skip
        m, p, part_l = probabilities(s, BM)
        if CAREFUL:
            part_o = weighted_careful(s, p, v, start, keys, columns, values, v_t, BM, BV)
        else:
            part_o, here = weighted(p, v, start, keys, columns, values, v_t, BM, BV)
            bad |= here
        big_m, big_l, big_o = fold(big_m, big_l, big_o, m, part_l, part_o)
    if not CAREFUL:
        if tl.max(tl.max(bad, axis=1), axis=0) != 0:
            tl.store(flags + head, 1)
    row = (tl.program_id(2) * tl.num_programs(1) + head).to(tl.int64) * queries + i
    at = parts + row * (2 + values)
    tl.store(at, big_m, mask=i < rows)
    tl.store(at + 1, big_l, mask=i < rows)
    live = (i < rows)[:, None] & (columns < values)[None, :]
    tl.store(at[:, None] + 2 + columns[None, :], big_o, mask=live)


@triton.jit
def attention_fold(
    parts, out, heads, count, queries, values, n_parts, o_b, o_h, o_t,
    BM: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Parts of `attention`, folded in order onto an empty state, which changes no bit of the first, and
    divided."""
    head = tl.program_id(1)
    blocks = tl.cdiv(values, BV)
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    i = tile * BM + tl.arange(0, BM)
    columns = block * BV + tl.arange(0, BV)
    live = (i < queries)[:, None] & (columns < values)[None, :]
    big_m = tl.full((BM,), float("-inf"), tl.float32)
    big_l = tl.zeros((BM,), tl.float32)
    big_o = tl.zeros((BM, BV), tl.float32)
    for j in range(0, n_parts):
        at = parts + ((j * count + head).to(tl.int64) * queries + i) * (2 + values)
        m = tl.load(at, mask=i < queries, other=float("-inf"))
        part_l = tl.load(at + 1, mask=i < queries, other=0.0)
        part_o = tl.load(at[:, None] + 2 + columns[None, :], mask=live, other=0.0)
        big_m, big_l, big_o = fold(big_m, big_l, big_o, m, part_l, part_o)
    batch, h = (head // heads).to(tl.int64), (head % heads).to(tl.int64)
    at = out + batch * o_b + h * o_h + i[:, None].to(tl.int64) * o_t + columns[None, :]
    tl.store(at, output(big_l, big_o), mask=live)


@gpu_kernel("attention")
def _attention(call: KernelCall) -> None:
    a = call.args
    heads, queries, keys, width, values = a.heads, a.queries, a.keys, a.width, a.value_width
    count, segments = a.batch * heads, ceil_div(keys, constants.SEGMENT)
    # the largest tiles whose registers do not spill: a mask takes many of them
    bm = 32 if queries > 16 and a.mask_kind == NO_MASK else 16
    bv = min(64, max(16, power_of_two(values)))
    warps = 16 if (bm, bv) == (16, 32) else 8
    blocks = ceil_div(values, bv)
    tiles = ceil_div(queries, bm) * blocks
    if count * tiles == 0:
        return
    split = segments > 1 and count * tiles < FILL
    q, k, v, out = (call.f32(x) for x in (a.q, a.k, a.v, a.o))
    mask = Ptr(a.mask, "i8") if a.mask_kind == BOOL_MASK else call.f32(a.mask)
    flags = call.take_scratch(count * 4, "i32")
    n_parts = segments if split else 1
    parts = call.take_scratch(n_parts * count * queries * (2 + values) * 4)
    args: list[Ptr | int] = [
        q, k, v, mask, out, flags, heads, heads // max(a.kv_heads, 1), queries, keys, width, values,
        *a.q_strides, *a.k_strides, *a.v_strides, *a.mask_strides, *a.o_strides, a.q_offset, a.window,
        parts,
    ]  # fmt: skip
    shape = {"SCALE": abi.f32_bits(a.scale), "CAUSAL": bool(a.causal), "WINDOW": a.window > 0,
             "MASK": a.mask_kind, "EVEN": width % 16 == 0}  # fmt: skip
    call.launch(fill, (ceil_div(count, 128),), [flags, count, 0], B=128)
    call.launch(attention, (tiles, count, n_parts), args, **shape,
                CAREFUL=False, SPLIT=split, BM=bm, BV=bv, warps=warps, stages=1,
                registers=REGISTERS)  # fmt: skip
    tiles = ceil_div(queries, 16) * blocks
    call.launch(attention, (tiles, count, n_parts), args, **shape,
                CAREFUL=True, SPLIT=split, BM=16, BV=bv, warps=8, stages=1, registers=REGISTERS)  # fmt: skip
    call.launch(attention_fold, (tiles, count),
                [parts, out, heads, count, queries, values, n_parts, *a.o_strides],
                BM=16, BV=bv)  # fmt: skip
