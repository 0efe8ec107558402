"""Definitions of the PTX ISA in whole numbers and fractions, written without LLVM and NumPy."""

from fractions import Fraction
from math import isqrt

NAN = 0x7FFFFFFF  # what float32 arithmetic gives


def signed(x, bits):
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def unsigned(x, bits):
    return x & ((1 << bits) - 1)


def is_nan(x):
    return x & 0x7FFFFFFF > 0x7F800000


def is_infinite(x):
    return x & 0x7FFFFFFF == 0x7F800000


def is_zero(x):
    return x & 0x7FFFFFFF == 0


def sign(x):
    return x >> 31


def value(x):
    """A finite float32 as a fraction."""
    exponent, fraction = x >> 23 & 0xFF, x & 0x7FFFFF
    size = Fraction(fraction | (0x800000 if exponent else 0)) * Fraction(2) ** (
        max(exponent, 1) - 150
    )
    return -size if sign(x) else size


def nearest(x, negative_zero=False):
    """The float32 nearest to a fraction, ties to even; the sign of an exact zero is given."""
    if x == 0:
        return 1 << 31 if negative_zero else 0
    bit = 1 << 31 if x < 0 else 0
    x = abs(x)
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    if Fraction(2) ** exponent > x:
        exponent -= 1
    last = max(exponent, -126) - 23
    scaled = x / Fraction(2) ** last
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest
    if twice > scaled.denominator or (twice == scaled.denominator and whole & 1):
        whole += 1
    if whole >> 24:
        whole, last = whole >> 1, last + 1
    if whole >> 23 == 0:
        return bit | whole  # subnormal
    exponent = last + 23 + 127
    return bit | (0x7F800000 if exponent >= 255 else exponent << 23 | (whole & 0x7FFFFF))


def add(a, b):
    if is_nan(a) or is_nan(b):
        return NAN
    if is_infinite(a) or is_infinite(b):
        if is_infinite(a) and is_infinite(b) and sign(a) != sign(b):
            return NAN
        return a if is_infinite(a) else b
    return nearest(value(a) + value(b), bool(sign(a) and sign(b)))


def sub(a, b):
    return add(a, b ^ 1 << 31)


def mul(a, b):
    bit = (sign(a) ^ sign(b)) << 31
    if is_nan(a) or is_nan(b):
        return NAN
    if is_infinite(a) or is_infinite(b):
        return NAN if is_zero(a) or is_zero(b) else bit | 0x7F800000
    return nearest(value(a) * value(b), bool(bit))


def fma(a, b, c):
    if is_nan(a) or is_nan(b) or is_nan(c):
        return NAN
    bit = sign(a) ^ sign(b)
    if is_infinite(a) or is_infinite(b):
        if is_zero(a) or is_zero(b) or (is_infinite(c) and sign(c) != bit):
            return NAN
        return bit << 31 | 0x7F800000
    if is_infinite(c):
        return c
    return nearest(value(a) * value(b) + value(c), bool(bit and sign(c)))


def div(a, b):
    bit = (sign(a) ^ sign(b)) << 31
    if is_nan(a) or is_nan(b) or (is_infinite(a) and is_infinite(b)) or (is_zero(a) and is_zero(b)):
        return NAN
    if is_infinite(a) or is_zero(b):
        return bit | 0x7F800000
    if is_infinite(b) or is_zero(a):
        return bit
    return nearest(value(a) / value(b), bool(bit))


def sqrt(a):
    if is_nan(a) or (sign(a) and not is_zero(a)):
        return NAN
    if is_zero(a) or is_infinite(a):
        return a
    # 80 more bits than a float32 has: a root is never half way between two, and one is exact or far from it
    x = value(a)
    shift = 200
    scaled = x * (1 << 2 * shift)
    root = isqrt(scaled.numerator // scaled.denominator)
    exact = scaled.denominator == 1 and root * root == scaled
    return nearest(Fraction(2 * root + (not exact), 2 << shift))


def order(x):
    """Floats that are no NaN in order, -0 below +0."""
    return -(x & 0x7FFFFFFF) - 1 if sign(x) else x


def least(a, b, most=False, keep_nan=False):
    if is_nan(a) or is_nan(b):
        if keep_nan or (is_nan(a) and is_nan(b)):
            return NAN
        return b if is_nan(a) else a
    return (max if most else min)(a, b, key=order)


def compare(how, a, b):
    """setp on float32: names that end with u hold for NaN too, but for num and nan."""
    unordered = is_nan(a) or is_nan(b)
    if how in ("num", "nan"):
        return unordered == (how == "nan")
    if unordered:
        return how.endswith("u") and how != "u"
    x, y = ((0 if is_infinite(v) else value(v), v) for v in (a, b))

    def key(p):
        return (-1 if sign(p[1]) else 1, 0) if is_infinite(p[1]) else (0, p[0])

    x, y = key(x), key(y)
    return {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[
        how[:2]
    ]


def to_integer(a, bits, is_signed):
    """cvt.rzi: toward zero, saturating; a NaN is 0, in 64 bits 2^63."""
    if is_nan(a):
        return 0 if bits == 32 else 1 << 63
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed else (0, (1 << bits) - 1)
    if is_infinite(a):
        return unsigned(low if sign(a) else high, bits)
    x = value(a)
    whole = abs(x.numerator) // x.denominator * (-1 if x < 0 else 1)
    return unsigned(min(max(whole, low), high), bits)


def bit_field(a, b, c, bits, is_signed):
    """bfe, bit by bit as the manual's loop has it."""
    at, n, top = b & 255, c & 255, bits - 1
    fill = 0 if not is_signed or n == 0 else a >> min(at + n - 1, top) & 1
    out = 0
    for i in range(bits):
        out |= (a >> (at + i) & 1 if i < n and at + i <= top else fill) << i
    return out


def bit_insert(a, b, c, d, bits):
    """bfi, bit by bit."""
    at, n, out = c & 255, d & 255, b
    for i in range(n):
        if at + i < bits:
            out = out & ~(1 << (at + i)) | (a >> i & 1) << (at + i)
    return out


def permute(a, b, c):
    both, out = b << 32 | a, 0
    for n in range(4):
        s = c >> 4 * n & 15
        byte = both >> 8 * (s & 7) & 255
        if s & 8:
            byte = 255 if byte >> 7 else 0
        out |= byte << 8 * n
    return out


def quotient(a, b):
    """Toward zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
