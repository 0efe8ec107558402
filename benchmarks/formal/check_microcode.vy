# pragma version 0.4.3
"""
@title Properties of the microcode's integers
@notice For all operands of 32 bits, of 64 where the same holds, and bools. A second formula counts in int256, whose
        numbers are those that the bits stand for; Microcode wraps unsigned words.
"""

from . import expect
from ..lib import microcode

I32: constant(uint256) = 1
U32: constant(uint256) = 2
I64: constant(uint256) = 3
BOOL: constant(uint256) = 4
INVALID: constant(uint256) = max_value(uint256)


@internal
@pure
def _step(op: uint256, result: uint256, operand: uint256, a: uint256, b: uint256) -> uint256:
    return microcode.step(op << 56 | (16 * result + operand) << 48, a, b, 0)


@internal
@pure
def _value(type_: uint256, x: uint256) -> int256:
    """
    @notice What bits of a type stand for.
    """
    n: int256 = convert(x, int256)
    if type_ == I32 and n >= 2**31:
        return n - 2**32
    if type_ == I64 and n >= 2**63:
        return n - 2**64
    return n


@internal
@pure
def _modulus(type_: uint256) -> int256:
    if type_ == BOOL:
        return 2
    return 2**64 if type_ == I64 else 2**32


@internal
@pure
def _wrapped(type_: uint256, x: uint256, wanted: int256):
    """
    @notice x are bits of the type, and stand for the value but for a multiple of 2^32 or 2^64.
    """
    m: int256 = self._modulus(type_)
    n: int256 = convert(x, int256)
    expect.holds(n >= 0 and n < m and (wanted - n) & (m - 1) == 0)


@internal
@pure
def _cut(type_: uint256, x: uint256) -> uint256:
    return x & convert(self._modulus(type_) - 1, uint256)


@external
def check_add_sub(wide: bool, signed: bool, x: uint256, y: uint256):
    type_: uint256 = (I64 if wide else I32) if signed or wide else U32
    a: uint256 = self._cut(type_, x)
    b: uint256 = self._cut(type_, y)
    self._wrapped(type_, self._step(2, type_, type_, a, b), self._value(type_, a) + self._value(type_, b))
    self._wrapped(type_, self._step(3, type_, type_, a, b), self._value(type_, a) - self._value(type_, b))


@external
def check_mul(x: uint256, y: uint256):
    """
    @notice The low half and the high half are the product.
    """
    a: uint256 = self._cut(U32, x)
    b: uint256 = self._cut(U32, y)
    low: uint256 = self._step(4, U32, U32, a, b)
    high: uint256 = self._step(24, U32, U32, a, b)
    expect.holds(low < 2**32 and high < 2**32 and (high << 32) + low == unsafe_mul(a, b))
    # that the low half is the same of signed factors is a lemma


@external
def check_mul_signed(x: uint256):
    """
    @notice The low half, by factors at the edges.
    """
    a: uint256 = self._cut(I32, x)
    v: int256 = self._value(I32, a)
    for w: int256 in [-(2**31), 1 - 2**31, -65537, -7, -1, 0, 1, 3, 10, 65535, 2**30, 2**31 - 1]:
        b: uint256 = convert(w & (2**32 - 1), uint256)
        self._wrapped(I32, self._step(4, I32, I32, a, b), unsafe_mul(v, w))


@external
def check_neg_abs(wide: bool, signed: bool, x: uint256):
    type_: uint256 = (I64 if wide else I32) if signed or wide else U32
    a: uint256 = self._cut(type_, x)
    v: int256 = self._value(type_, a)
    self._wrapped(type_, self._step(8, type_, type_, a, 0), -v)
    self._wrapped(type_, self._step(9, type_, type_, a, 0), -v if v < 0 else v)


@external
def check_compare(wide: bool, signed: bool, x: uint256, y: uint256):
    type_: uint256 = (I64 if wide else I32) if signed or wide else U32
    a: uint256 = self._cut(type_, x)
    b: uint256 = self._cut(type_, y)
    v: int256 = self._value(type_, a)
    w: int256 = self._value(type_, b)
    expect.holds(self._step(11, BOOL, type_, a, b) == convert(v < w, uint256))
    expect.holds(self._step(12, BOOL, type_, a, b) == convert(v <= w, uint256))
    expect.holds(self._step(13, BOOL, type_, a, b) == convert(v == w, uint256))
    expect.holds(self._step(14, BOOL, type_, a, b) == convert(v != w, uint256))


@external
def check_bits(kind: uint256, x: uint256, y: uint256):
    """
    @notice By sums: a + b = (a and b) + (a or b) = 2 (a and b) + (a xor b), and a or b has no bit that neither has.
    """
    type_: uint256 = I32 + (kind & 3)
    a: uint256 = self._cut(type_, x)
    b: uint256 = self._cut(type_, y)
    both: uint256 = self._step(18, type_, type_, a, b)
    any_: uint256 = self._step(19, type_, type_, a, b)
    one: uint256 = self._step(20, type_, type_, a, b)
    expect.holds(both + any_ == a + b and 2 * both + one == a + b)
    expect.holds(any_ == both ^ one and both & one == 0)
    expect.holds(self._step(21, type_, type_, a, 0) == convert(self._modulus(type_) - 1, uint256) - a)


@external
def check_shifts(signed: bool, x: uint256):
    """
    @notice Times 2^b, and divided by 2^b toward minus infinity; by as many bits as there are no result.
    """
    type_: uint256 = I32 if signed else U32
    a: uint256 = self._cut(type_, x)
    v: int256 = self._value(type_, a)
    for b: uint256 in range(32):
        by: int256 = convert(1 << b, int256)
        self._wrapped(type_, self._step(22, type_, type_, a, b), unsafe_mul(v, by))
        r: uint256 = self._step(23, type_, type_, a, b)
        rest: int256 = v - unsafe_mul(self._value(type_, r), by)
        expect.holds(r < 2**32 and rest >= 0 and rest < by)


@external
def check_no_shift(signed: bool, x: uint256, y: uint256):
    type_: uint256 = I32 if signed else U32
    b: uint256 = self._cut(type_, y)
    assert b >= 32
    expect.holds(self._step(22, type_, type_, self._cut(type_, x), b) == INVALID)
    expect.holds(self._step(23, type_, type_, self._cut(type_, x), b) == INVALID)


@external
def check_convert(from_: uint256, to: uint256, x: uint256):
    """
    @notice Between integers and bools: the value, wrapped; of bools whether it is not 0.
    """
    source: uint256 = I32 + (from_ & 3)
    target: uint256 = I32 + (to & 3)
    a: uint256 = self._cut(source, x)
    r: uint256 = self._step(16, target, source, a, 0)
    if target == BOOL:
        expect.holds(r == convert(a != 0, uint256))
    else:
        self._wrapped(target, r, self._value(source, a))


@external
def check_to_float(signed: bool, x: uint256):
    """
    @notice The nearest float32 to an integer, the even one of two.
    """
    type_: uint256 = I32 if signed else U32
    a: uint256 = self._cut(type_, x)
    r: uint256 = self._step(16, 0, type_, a, 0)
    v: int256 = self._value(type_, a)
    if v == 0:
        expect.holds(r == 0)
        return
    expect.holds(r >> 31 == convert(v < 0, uint256))
    m: uint256 = r & (2**31 - 1)
    e: uint256 = m >> 23
    expect.holds(e >= 127 and e <= 159)
    # in units of 2^-23, a step of 2^(e - 127)
    n: uint256 = convert(-v if v < 0 else v, uint256) << 24  # twice the value
    step: uint256 = 1 << (e - 127)
    here: uint256 = (m & (2**23 - 1)) + 2**23 << (e - 126)  # twice
    expect.holds(n <= here + step and n + step >= here)
    if n == here + step or n + step == here:
        expect.holds(m & 1 == 0)
    if m & (2**23 - 1) == 0:  # below a power of two steps are half as wide
        expect.holds(2 * (here - n) <= step or n >= here)


@external
def check_to_integer(signed: bool, x: uint256):
    """
    @notice Of a float32 the integer toward zero, at the ends of the range where it lies beyond; 0 of NaN. The target
            is saturated as if it were signed.
    """
    type_: uint256 = I32
    a: uint256 = x & (2**32 - 1)
    r: uint256 = self._step(16, type_, 0, a, 0)
    n: uint256 = a & (2**31 - 1)
    v: int256 = self._value(type_, r)
    expect.holds(r < 2**32)
    if n > 255 * 2**23:
        expect.holds(v == 0)
    elif n >= 158 * 2**23:  # 2^31
        expect.holds(v == (-(2**31) if a >= 2**31 else 2**31 - 1))
    else:
        # in units of 2^-149, where e <= 157
        e: uint256 = n >> 23
        units: uint256 = n if e == 0 else (n & (2**23 - 1)) + 2**23 << (e - 1)
        size: uint256 = convert(-v if v < 0 else v, uint256)
        expect.holds(size << 149 <= units and units < size + 1 << 149)
        expect.holds(v == 0 or (v < 0) == (a >= 2**31))


@external
def check_division(x: uint256):
    self._divisions(U32, x, [1, 2, 4, 8, 64, 2**10, 2**16, 2**24, 2**30, 2**31])


@external
def check_division_signed(x: uint256):
    self._divisions(I32, x, [1, 2, 2**7, 2**16, 2**30, -1, -2, -(2**7), -(2**16), -(2**31)])


@external
def check_division_by_0(signed: bool, x: uint256):
    type_: uint256 = I32 if signed else U32
    expect.holds(self._step(26, type_, type_, self._cut(type_, x), 0) == 0)
    expect.holds(self._step(27, type_, type_, self._cut(type_, x), 0) == 0)


@internal
@pure
def _divisions(type_: uint256, x: uint256, divisors: int256[10]):
    """
    @notice Toward minus infinity, wrapped, of all dividends by powers of two: what is left has the divisor's sign, is
            less, and makes the dividend with quotient times divisor. Of other divisors a lemma says it.
    """
    a: uint256 = self._cut(type_, x)
    v: int256 = self._value(type_, a)
    for w: int256 in divisors:
        b: uint256 = convert(w & (2**32 - 1), uint256)
        q: uint256 = self._step(26, type_, type_, a, b)
        r: uint256 = self._step(27, type_, type_, a, b)
        expect.holds(q < 2**32 and r < 2**32)
        rest: int256 = self._value(type_, r)
        expect.holds((rest >= 0 and rest < w) if w > 0 else (rest <= 0 and rest > w))
        if v == -(2**31) and w == -1:  # wraps
            expect.holds(q == 2**31)
        else:
            expect.holds(unsafe_mul(self._value(type_, q), w) == v - rest)
