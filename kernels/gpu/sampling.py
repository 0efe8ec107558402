"""Drawing a token on a GPU: what the operators of ops/sampling.py give, without a sort.

A row's quotients and weights are written once; what is kept is found by two bits of a rank at a time, from the
best ranks on. Sums are of integers, so exact in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ree.kernels import constants
from ree.kernels.gpu import lib
from ree.kernels.gpu.launch import KernelCall, Ptr, ceil_div, gpu_kernel
from ree.kernels.gpu.lib import exp_, number, order_key
from ree.kernels.gpu.rows import argmax_rows, select_shape
from ree.kernels.gpu.source import jit_source
from ree.kernels.ops.random import uniform
from ree.kernels.scalar.emit_triton import function_source

WORD = number(constants.WORD_BITS)
WORD_MASK = number((1 << constants.WORD_BITS) - 1)
WEIGHT_ONE = number(1 << constants.WEIGHT_BITS)
BLOCK = 1024  # tokens that a program looks at together

uniform_ = jit_source(function_source(uniform(constants.SAMPLE_SITE)), "uniform_", vars(lib))


@triton.jit
def rank_key(q):
    """u32 that grows with the quotient; -0 is +0. No quotient of a row that is drawn from is NaN."""
    return order_key(tl.where(q == 0.0, 0.0, q)).to(tl.uint32, bitcast=True) ^ 0x80000000


@triton.jit
def weight_of(e):
    return (e * WEIGHT_ONE).to(tl.int64)


@triton.jit
def weigh_tokens(x, temperature, least, best, keys, weights, n, blocks, B: tl.constexpr):
    """keys, weights [rows, n]: rank and weight of each token; best [rows]: the id of a greatest logit."""
    row = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks) * B + tl.arange(0, B)
    inside = i < n
    x += row * n
    t = tl.load(temperature + row) + tl.zeros((B,), tl.float32)
    top = tl.load(x + tl.load(best + row)) + tl.zeros((B,), tl.float32)
    q = tl.div_rn(tl.load(x + i, mask=inside, other=0.0), t)
    e = exp_(q - tl.div_rn(top, t))
    w = tl.where(e >= tl.load(least + row), e, 0.0)
    tl.store(keys + row * n + i, rank_key(q), mask=inside)
    tl.store(weights + row * n + i, weight_of(w), mask=inside)


@triton.jit
def last_of(keys, weights, n, end_key, end_id, limit, WEIGHTED: tl.constexpr, B: tl.constexpr):
    """(key, id) of the last token, among those up to (end_key, end_id), whose better ranks have a sum of
    weights, or a number, below `limit`, which is at least 1 and at most the sum of all."""
    prefix = tl.full((), 0, tl.uint32)
    before = limit * 0
    for step in range(0, 16):
        shift = 30 - 2 * step
        s0 = tl.zeros((B,), tl.int64)
        s1 = tl.zeros((B,), tl.int64)
        s2 = tl.zeros((B,), tl.int64)
        s3 = tl.zeros((B,), tl.int64)
        for at in range(0, n, B):
            i = at + tl.arange(0, B)
            u = tl.load(keys + i, mask=i < n, other=0)
            w = tl.full((B,), 1, tl.int64)
            if WEIGHTED:
                w = tl.load(weights + i, mask=i < n, other=0)
            kept = (i < n) & ((u > end_key) | ((u == end_key) & (i <= end_id)))
            w = tl.where(kept & ((u >> shift) >> 2 == prefix), w, 0)
            digit = (u >> shift) & 3
            s0 += tl.where(digit == 0, w, 0)
            s1 += tl.where(digit == 1, w, 0)
            s2 += tl.where(digit == 2, w, 0)
            s3 += tl.where(digit == 3, w, 0)
        # from the best digit down, to the one in which the limit lies
        b3 = before + tl.sum(s3, axis=0)
        b2 = b3 + tl.sum(s2, axis=0)
        b1 = b2 + tl.sum(s1, axis=0)
        digit = tl.where(b3 >= limit, 3, tl.where(b2 >= limit, 2, tl.where(b1 >= limit, 1, 0)))
        before = tl.where(
            digit == 3, before, tl.where(digit == 2, b3, tl.where(digit == 1, b2, b1))
        )
        prefix = (prefix << 2) | digit.to(tl.uint32)
    # those of one rank weigh the same; the lower ids come first
    each = limit * 0 + 1
    if WEIGHTED:
        for at in range(0, n, B):
            i = at + tl.arange(0, B)
            u = tl.load(keys + i, mask=i < n, other=0)
            w = tl.load(weights + i, mask=i < n, other=0)
            each = tl.maximum(each, tl.max(tl.where((i < n) & (u == prefix), w, 0), axis=0))
    count = (limit - before + each - 1) // each
    seen = limit * 0
    last = tl.full((), 0, tl.int32)
    for at in range(0, n, B):
        i = at + tl.arange(0, B)
        u = tl.load(keys + i, mask=i < n, other=0)
        tie = ((i < n) & (u == prefix)).to(tl.int64)
        upto = seen + tl.cumsum(tie, axis=0)
        last = tl.maximum(last, tl.max(tl.where((tie > 0) & (upto <= count), i, 0), axis=0))
        seen += tl.sum(tie, axis=0)
    return prefix, last


@triton.jit
def kept_weights(keys, weights, at, n, end_key, end_id, B: tl.constexpr):
    """Of B tokens, 0 behind (end_key, end_id)."""
    i = at + tl.arange(0, B)
    u = tl.load(keys + i, mask=i < n, other=0)
    w = tl.load(weights + i, mask=i < n, other=0)
    return i, tl.where((u > end_key) | ((u == end_key) & (i <= end_id)), w, 0)


@triton.jit
def total_of(keys, weights, n, end_key, end_id, B: tl.constexpr):
    total = tl.zeros((B,), tl.int64)
    for at in range(0, n, B):
        _, w = kept_weights(keys, weights, at, n, end_key, end_id, B)
        total += w
    return tl.sum(total, axis=0)


@triton.jit
def draw_tokens(
    x, temperature, top_p, least, top_k, seed, position, choice, keys, weights, tokens, n, B: tl.constexpr
):  # fmt: skip
    """A row: its token, where `tokens` has the id of a greatest logit so far."""
    row = tl.program_id(0).to(tl.int64)
    x += row * n
    keys += row * n
    weights += row * n
    t = tl.load(temperature + row)
    p = tl.load(top_p + row) * (1 << WORD)
    k = tl.load(top_k + row)
    best = tl.load(tokens + row)
    greatest = tl.load(x + best)
    share = tl.where(p >= (1 << WORD), 1 << WORD, tl.where(p >= 1.0, p, 0.0).to(tl.int64))
    # not where the greatest quotient is none or infinite, nor where another is none: -inf / inf
    endless = tl.div_rn(greatest + tl.zeros((B,), tl.float32), t + tl.zeros((B,), tl.float32))
    draws = (t > 0.0) & (tl.sum((endless - endless != 0.0).to(tl.int32), axis=0) == 0)
    if t == float("inf"):
        for at in range(0, n, B):
            i = at + tl.arange(0, B)
            v = tl.load(x + i, mask=i < n, other=0.0)
            draws = draws & (tl.sum((v == float("-inf")).to(tl.int32), axis=0) == 0)
    if draws:
        top_key = tl.load(keys + best)
        first = tl.full((), 2147483647, tl.int32)
        for at in range(0, n, B):
            i = at + tl.arange(0, B)
            u = tl.load(keys + i, mask=i < n, other=0)
            first = tl.minimum(
                first, tl.min(tl.where((i < n) & (u == top_key), i, 2147483647), axis=0)
            )
        drawn = first
        if (share > 0) & (k != 1) & (tl.load(least + row) <= 1.0):
            end_key = tl.full((), 0, tl.uint32)
            end_id = tl.full((), 2147483647, tl.int32)
            if (k > 0) & (k < n):
                end_key, end_id = last_of(keys, weights, n, end_key, end_id, k, False, B)
            total = total_of(keys, weights, n, end_key, end_id, B)
            limit = (total >> WORD) * share + ((total & WORD_MASK) * share >> WORD)
            if limit < total:
                if limit > 0:
                    end_key, end_id = last_of(keys, weights, n, end_key, end_id, limit, True, B)
                else:  # the best alone
                    end_key, end_id = top_key, first
                total = total_of(keys, weights, n, end_key, end_id, B)
            two = tl.arange(0, 2)
            number_of = tl.load(choice + row) * 4 + two
            word = uniform_(
                number_of, tl.load(seed + row) + two * 0, tl.load(position + row) + two * 0
            )
            word = (word * (1 << WORD)).to(tl.int64)
            a = tl.sum(tl.where(two == 0, word, 0), axis=0)
            b = tl.sum(tl.where(two == 1, word, 0), axis=0)
            high = total >> WORD
            low = total & WORD_MASK
            target = high * a + ((high * b + low * a + (low * b >> WORD)) >> WORD)
            before = total * 0
            drawn = tl.full((), 2147483647, tl.int32)
            for at in range(0, n, B):
                i, w = kept_weights(keys, weights, at, n, end_key, end_id, B)
                upto = before + tl.cumsum(w, axis=0)
                drawn = tl.minimum(drawn, tl.min(tl.where(upto > target, i, 2147483647), axis=0))
                before += tl.sum(w, axis=0)
        tl.store(tokens + row, drawn.to(tl.int64))


@gpu_kernel("sample")
def _sample(call: KernelCall) -> None:
    a = call.args
    rows, n = a.rows, a.vocabulary
    x, tokens, temperature, least = (
        call.f32(a.logits),
        Ptr(a.tokens, "i64"),
        call.f32(a.temperature),
        call.f32(a.min_p),
    )
    keys = call.take_scratch(rows * n * 4, "u32")
    weights = call.take_scratch(rows * n * 8, "i64")
    r, c = select_shape(n, 1)
    call.launch(argmax_rows, (ceil_div(rows, r),), [x, tokens, rows, n, 1], LEAST=False, C=c, R=r)
    blocks = ceil_div(n, BLOCK)
    call.launch(weigh_tokens, (rows * blocks,),
                [x, temperature, least, tokens, keys, weights, n, blocks], B=BLOCK)  # fmt: skip
    numbers = [Ptr(s, "i64") for s in (a.top_k, a.seed, a.position, a.choice)]
    call.launch(draw_tokens, (rows,),
                [x, temperature, call.f32(a.top_p), least, *numbers, keys, weights, tokens, n],
                B=BLOCK, warps=8)  # fmt: skip
