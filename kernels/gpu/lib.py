"""Triton helpers that every GPU kernel shares: exact bit work and the ordered forms.

Float arithmetic here is +, -, * (compiled without fusion), tl.fma, tl.div_rn and tl.sqrt_rn only:
each is rounded once. Trees are spelled out, because Triton's own reductions associate by layout;
reductions of integers are exact in any order.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from triton import knobs

from ree.kernels import constants
from ree.kernels.gpu.source import jit_source
from ree.kernels.scalar.emit_triton import function_source
from ree.kernels.scalar.functions import FUNCTIONS

# mypy sees tl as untyped; the kernels are checked by running them


def number(x: int) -> Any:
    """A number that kernels may name: a tl.constexpr, or an int where they are interpreted, since an int
    has no remainder by a tl.constexpr there."""
    return x if knobs.runtime.interpret else tl.constexpr(x)


SEGMENT = number(constants.SEGMENT)
SUM_BLOCK = number(constants.SUM_BLOCK)
SUM_LANES = number(constants.SUM_LANES)
NAN_BITS = number(constants.CANONICAL_NAN)


@triton.jit
def f32_bits(bits: tl.constexpr):
    """The float32 with these bits."""
    return tl.full((), bits, tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def f32_neg(x):
    return (x.to(tl.uint32, bitcast=True) ^ 0x80000000).to(tl.float32, bitcast=True)


@triton.jit
def f32_abs(x):
    return (x.to(tl.uint32, bitcast=True) & 0x7FFFFFFF).to(tl.float32, bitcast=True)


@triton.jit
def f32_rint(x):
    """To an integral value, half to even, the sign of zero kept."""
    bits = x.to(tl.uint32, bitcast=True)
    size = (bits & 0x7FFFFFFF).to(tl.float32, bitcast=True)
    # below 2^23, adding and subtracting 2^23 rounds to an integer
    rounded = (size + 8388608.0) - 8388608.0
    signed = rounded.to(tl.uint32, bitcast=True) | (bits & 0x80000000)
    return tl.where(size < 8388608.0, signed.to(tl.float32, bitcast=True), x)


@triton.jit
def f32_to_i32(x):
    """Toward zero, saturating, NaN to 0."""
    inside = (x >= -2147483648.0) & (x < 2147483648.0)
    y = tl.where(inside, x, 0.0).to(tl.int32)
    y = tl.where(x >= 2147483648.0, tl.full((), 2147483647, tl.int32), y)
    return tl.where(x < -2147483648.0, tl.full((), -2147483648, tl.int32), y)


@triton.jit
def f32_to_i64(x):
    """Toward zero, saturating, NaN to 0."""
    inside = (x >= -9223372036854775808.0) & (x < 9223372036854775808.0)
    y = tl.where(inside, x, 0.0).to(tl.int64)
    y = tl.where(x >= 9223372036854775808.0, tl.full((), 9223372036854775807, tl.int64), y)
    return tl.where(x < -9223372036854775808.0, tl.full((), -9223372036854775808, tl.int64), y)


@triton.jit
def int_floordiv(a, b):
    """Quotient toward minus infinity; 0 where b is 0; the least integer over -1 is itself."""
    safe = tl.where((b == 0) | (b == -1), 1, b)
    q = a // safe
    q = q - tl.where((a - q * safe != 0) & ((a < 0) != (safe < 0)), 1, 0).to(a.dtype)
    q = tl.where(b == -1, 0 - a, q)
    return tl.where(b == 0, 0, q).to(a.dtype)


@triton.jit
def int_mod(a, b):
    return tl.where(b == 0, 0, a - int_floordiv(a, b) * b).to(a.dtype)


@triton.jit
def canonical(x):
    """x with every NaN as 0x7fc00000. In integers: to LLVM all float NaNs are alike."""
    bits = x.to(tl.uint32, bitcast=True)
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return tl.where(nan, tl.full((), NAN_BITS, tl.uint32), bits).to(tl.float32, bitcast=True)


@triton.jit
def order_key(x):
    """An int32 whose order is that of floats with -0 < +0; a NaN's key has no meaning."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def from_order_key(key):
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def max_key(x):
    """`order_key` with NaN greatest: the key's maximum is the contract's maximum."""
    return tl.where(x != x, tl.full((), 0x7FFFFFFF, tl.int32), order_key(x))


@triton.jit
def from_max_key(key):
    """NaN for the key of NaN."""
    return tl.where(key == 0x7FFFFFFF, f32_bits(NAN_BITS), from_order_key(key))


@triton.jit
def maximum_(a, b):
    """NaN if either is NaN; -0 < +0."""
    return from_max_key(tl.maximum(max_key(a), max_key(b)))


@triton.jit
def _plus(a, b):
    return a + b


@triton.jit
def halves_sum(x, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """[ROWS, WIDTH] -> [ROWS, WIDTH / 2]: element l plus element l + WIDTH / 2.

    A reduction of two elements is one addition in any layout; with `tl.split` both must lie in one
    thread, and the layout that Triton then spread over all folds held a whole row in each thread.
    """
    return tl.reduce(tl.reshape(x, (ROWS, 2, WIDTH // 2)), 1, _plus)


@triton.jit
def lanes_sum(x, ROWS: tl.constexpr):
    """[ROWS, SUM_LANES] lanes, of which there are 64, folded by halving; [ROWS]."""
    x = halves_sum(x, ROWS, SUM_LANES)
    x = halves_sum(x, ROWS, 32)
    x = halves_sum(x, ROWS, 16)
    x = halves_sum(x, ROWS, 8)
    x = halves_sum(x, ROWS, 4)
    return tl.reduce(x, 1, _plus)


exp_ = jit_source(function_source(FUNCTIONS["exp"]), "exp_", globals())
