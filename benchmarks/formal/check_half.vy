# pragma version 0.4.3
"""
@title Properties of the half types
@notice For all 2^16 halves and all 2^32 float32. A finite number is counted in units of the least subnormal of its
        type; to round is to find the nearest of these, the even one of two, which is not how Half does it.
"""

from . import expect
from ..lib import half

NAN16: constant(uint256) = 2**15 - 2**9  # 0x7e00
NAN32: constant(uint256) = 2**31 - 2**22  # 0x7fc00000


@internal
@pure
def _units(x: uint256, fraction: uint256) -> uint256:
    """
    @notice A magnitude, in units of the least subnormal of a type with so many bits of fraction.
    """
    e: uint256 = x >> fraction
    if e == 0:
        return x
    return ((x % 2**fraction if fraction == 10 else x % 2**23) + (1 << fraction)) << (e - 1)


@external
def check_from_f16(a: uint256):
    """
    @notice Widening changes no value, and NaN is one pattern.
    """
    x: uint256 = a & (2**16 - 1)
    y: uint256 = half.from_f16(x)
    n: uint256 = x & (2**15 - 1)
    if n > 31 * 2**10:
        expect.holds(y == NAN32)
        return
    expect.holds(y >> 31 == x >> 15)
    m: uint256 = y & (2**31 - 1)
    if n == 31 * 2**10:
        expect.holds(m == 255 * 2**23)
        return
    # 2^-24 are 2^125 units of 2^-149
    expect.holds(m < 255 * 2**23 and self._units(m, 23) == self._units(n, 10) << 125)


@external
def check_to_f16(a: uint256):
    """
    @notice The nearest half, the even one of two; from 65,520 on infinity; NaN is one pattern.
    """
    x: uint256 = a & (2**32 - 1)
    y: uint256 = half.to_f16(x)
    n: uint256 = x & (2**31 - 1)
    if n > 255 * 2**23:
        expect.holds(y == NAN16)
        return
    expect.holds(y >> 15 == x >> 31)
    m: uint256 = y & (2**15 - 1)
    if n >= 142 * 2**23 + 2047 * 2**12:  # 65,520
        expect.holds(m == 31 * 2**10)
        return
    expect.holds(m < 31 * 2**10)
    twice: uint256 = self._units(n, 23) << 1
    here: uint256 = self._units(m, 10) << 125
    above: uint256 = here + (self._units(m + 1, 10) << 125)  # twice the middle
    expect.holds(twice < above or (twice == above and m & 1 == 0))
    if m > 0:
        below: uint256 = here + (self._units(m - 1, 10) << 125)
        expect.holds(twice > below or (twice == below and m & 1 == 0))


@external
def check_from_bf16(a: uint256):
    x: uint256 = a & (2**16 - 1)
    expect.holds(half.from_bf16(x) == (NAN32 if x & (2**15 - 1) > 255 * 2**7 else x * 2**16))


@external
def check_to_bf16(a: uint256):
    """
    @notice The nearest of those that end with sixteen zeros, the even one of two; NaN is one pattern.
    """
    x: uint256 = a & (2**32 - 1)
    y: uint256 = half.to_bf16(x)
    if x & (2**31 - 1) > 255 * 2**23:
        expect.holds(y == NAN32 >> 16)
        return
    rest: uint256 = x % 2**16
    up: uint256 = 1 if rest > 2**15 or (rest == 2**15 and (x >> 16) % 2 == 1) else 0
    expect.holds(y == x // 2**16 + up)
