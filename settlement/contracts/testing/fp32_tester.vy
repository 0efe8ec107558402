# pragma version 0.4.3
"""
@title Fp32Tester
@notice Tests only: many steps in a call.
"""

from ..lib import microcode

CASES: constant(uint256) = 4096
MASK: constant(uint256) = 2**64 - 1


@external
@pure
def steps(cases: DynArray[uint256, CASES]) -> DynArray[uint256, CASES]:
    """
    @notice One microcode step a case: record, a, b, c in 64 bits each.
    """
    out: DynArray[uint256, CASES] = []
    for x: uint256 in cases:
        out.append(microcode.step(x >> 192, (x >> 128) & MASK, (x >> 64) & MASK, x & MASK))
    return out


@external
@pure
def lookup(index: uint256, low: uint256, high: uint256) -> uint256:
    return microcode.step(25 << 56, index, low, high)


@external
@pure
def fits(type_: uint256, x: uint256) -> bool:
    return microcode.fits(type_, x)
