# pragma version 0.4.3
"""
@title Half
@notice float16 and bfloat16, which are storage: widened exactly, rounded once. An element is its 16 bits.
@dev The same as the microcode of the casts, in one step; kernels/ops/casts.py.
"""

from . import fp32


@internal
@pure
def from_f16(a: uint256) -> uint256:
    n: uint256 = a & (2**15 - 1)
    sign: uint256 = (a & 2**15) << 16
    if n < 2**10:
        if n == 0:
            return sign
        return fp32.rounded(sign, n, 276)
    if n >= 31 * 2**10:
        if n > 31 * 2**10:
            return fp32.NAN
        return sign | fp32.INF
    return sign | unsafe_add(n << 13, 112 * fp32.HIDDEN)


@internal
@pure
def to_f16(a: uint256) -> uint256:
    n: uint256 = a & fp32.MAGNITUDE
    sign: uint256 = (a >> 16) & 2**15
    if n > fp32.INF:
        return 63 * 2**9
    cut: uint256 = 13
    base: uint256 = 112 * 2**10
    if n < 113 * fp32.HIDDEN:  # below 2^-14 a unit is 2^-24
        cut = unsafe_sub(126, max(n >> 23, 1))
        n = unsafe_sub(n, unsafe_sub(max(n >> 23, 1), 1) << 23)
        base = 0
    n = unsafe_add(n, unsafe_add(unsafe_sub((fp32.BIT << cut) >> 1, 1), (n >> cut) & 1))
    return sign | min(unsafe_sub(n >> cut, base), 31 * 2**10)


@internal
@pure
def from_bf16(a: uint256) -> uint256:
    return fp32.canonical(a << 16)


@internal
@pure
def to_bf16(a: uint256) -> uint256:
    if a & fp32.MAGNITUDE > fp32.INF:
        return 511 * 2**6
    return unsafe_add(a, unsafe_add(2**15 - 1, (a >> 16) & 1)) >> 16
