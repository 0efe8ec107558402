# pragma version 0.4.3
"""
@title Fp32Gas
@notice Tests only: the gas of each function of Fp32, many cases in a call.
"""

from ..lib import fp32
from ..lib import half
from ..lib import microcode

CASES: constant(uint256) = 4096
MASK: constant(uint256) = 2**64 - 1


@external
@view
def measure(what: uint256, cases: DynArray[uint256, CASES]) -> DynArray[uint256, CASES]:
    """
    @notice Gas * 2^64 + result of one function a case, by its number below; a, b, c are in the low 192 bits.
            The gas is that of the call with its operands in variables.
    """
    out: DynArray[uint256, CASES] = []
    for x: uint256 in cases:
        a: uint256 = (x >> 128) & MASK
        b: uint256 = (x >> 64) & MASK
        c: uint256 = x & MASK
        y: uint256 = 0
        gas: uint256 = 0
        if what == 0:  # fma
            gas = msg.gas
            y = fp32.fma(a, b, c)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 1:  # add
            gas = msg.gas
            y = fp32.add(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 2:  # sub
            gas = msg.gas
            y = fp32.sub(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 3:  # mul
            gas = msg.gas
            y = fp32.mul(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 4:  # div
            gas = msg.gas
            y = fp32.div(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 5:  # sqrt
            gas = msg.gas
            y = fp32.sqrt(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 6:  # neg
            gas = msg.gas
            y = fp32.neg(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 7:  # absolute
            gas = msg.gas
            y = fp32.absolute(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 8:  # rint
            gas = msg.gas
            y = fp32.rint(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 9:  # less
            gas = msg.gas
            y = convert(fp32.less(a, b), uint256)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 10:  # less_equal
            gas = msg.gas
            y = convert(fp32.less_equal(a, b), uint256)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 11:  # equal
            gas = msg.gas
            y = convert(fp32.equal(a, b), uint256)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 12:  # minimum
            gas = msg.gas
            y = fp32.minimum(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 13:  # maximum
            gas = msg.gas
            y = fp32.maximum(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 14:  # total_order
            gas = msg.gas
            y = convert(fp32.total_order(a, b), uint256)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 15:  # from_integer
            gas = msg.gas
            y = fp32.from_integer(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 16:  # to_integer
            gas = msg.gas
            y = fp32.to_integer(a, b)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 17:  # from_f16
            gas = msg.gas
            y = half.from_f16(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 18:  # to_f16
            gas = msg.gas
            y = half.to_f16(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 19:  # from_bf16
            gas = msg.gas
            y = half.from_bf16(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 20:  # to_bf16
            gas = msg.gas
            y = half.to_bf16(a)
            gas = unsafe_sub(gas, msg.gas)
        elif what == 21:  # step
            gas = msg.gas
            y = microcode.step(x >> 192, a, b, c)
            gas = unsafe_sub(gas, msg.gas)
        out.append((gas << 64) | (y & MASK))
    return out
