# pragma version 0.4.3
"""
@title Arithmetic
@notice Executes the one operation that decides a dispute.
"""

from . import operations
from ..lib import fp32
from ..lib import microcode
from ..generated import protocol


@external
@pure
def execute(what: uint256, step: uint256, x: uint256[5], out: uint256, source: uint256) -> uint256:
    """
    @notice The result of an operation; 2^256 - 1 if it has none.
    @param what Code of the operation, in Derivations
    @param step Record of a step of microcode
    @param x The operands' bits
    @param out Element type of the result
    @param source Element type of the source that was read last
    @return Bits of the result
    """
    if what == operations.COPY:
        return x[0]
    if what == operations.CODE:
        return microcode.step(step, x[0], x[1], x[2])
    if what == operations.FMA:
        return fp32.fma(x[0], x[1], x[2])
    if what == operations.ADD:
        return fp32.add(x[0], x[1])
    if what == operations.MULTIPLY_ADD:
        return unsafe_add(unsafe_mul(x[0], x[1]), x[2]) & protocol.MASK32
    if what == operations.ADD64:
        return unsafe_add(x[0], x[1]) & protocol.MASK64
    if what == operations.EXTREME:
        return fp32.maximum(x[0], x[1]) if x[2] == 0 else fp32.minimum(x[0], x[1])
    if what == operations.BETTER:
        beats: bool = fp32.less(x[3], x[2]) if x[4] == 0 else fp32.less(x[2], x[3])
        if beats or (fp32.is_nan(x[2]) and not fp32.is_nan(x[3])):
            return x[0]
        return x[1]
    if what == operations.EQUAL:
        return x[0] if x[0] == x[1] else microcode.INVALID
    if what == operations.PRECEDES:
        return self._precedes(x, source)
    # an update: value, index, place, update, what it does
    index: uint256 = x[1]
    if index >= protocol.SIGN64:
        index = unsafe_add(index, x[4] >> 1) & protocol.MASK64
    if index != x[2]:
        return x[0]
    if x[4] & 1 == 0:
        return x[3]
    if out == 0:
        return fp32.add(x[0], x[3])
    return unsafe_add(x[0], x[3]) & protocol.MASK64


@internal
@pure
def _precedes(x: uint256[5], source: uint256) -> uint256:
    """
    @notice The count in x[0], and one more if element x[3] at x[1] comes before x[4] at x[2].
    """
    less: bool = (x[3] ^ protocol.SIGN64) < (x[4] ^ protocol.SIGN64)
    more: bool = (x[4] ^ protocol.SIGN64) < (x[3] ^ protocol.SIGN64)
    if source == 0:
        nan: bool = fp32.is_nan(x[3])
        other: bool = fp32.is_nan(x[4])
        less = fp32.less(x[3], x[4]) or (other and not nan)
        more = fp32.less(x[4], x[3]) or (nan and not other)
    j: uint256 = x[1] & protocol.MASK64
    if x[1] != j:  # descending
        before: bool = more
        more = less
        less = before
    if less or (not more and j < x[2]):
        return unsafe_add(x[0], 1) & protocol.MASK64
    return x[0]
