# pragma version 0.4.3
"""
@title Microcode
@notice One step of a scalar function: an 8-byte record and the registers it reads give a register.
@dev kernels/scalar/microcode.py has the encoding and kernels/scalar/language.py the operations. That a program is well
     typed is known to whoever fixed the root of its steps; what the registers hold is a party's claim.
     Nothing reverts: a step without a result gives INVALID, which no register can hold, so that a claim
     about it is false.
"""

from . import fp32
from ..generated import numbers
from ..generated import protocol

INVALID: constant(uint256) = max_value(uint256)


@internal
@pure
def width(type_: uint256) -> uint256:
    """
    @notice Bits of a register of this type.
    """
    if type_ == numbers.TYPE_I64:
        return 64
    if type_ == numbers.TYPE_BOOL:
        return 1
    return 32


@internal
@pure
def fits(type_: uint256, x: uint256) -> bool:
    """
    @notice Whether a register of this type can hold x.
    """
    return x >> self.width(type_) == 0


@internal
@pure
def step(record: uint256, a: uint256, b: uint256, c: uint256) -> uint256:
    """
    @notice The result of one step; INVALID if it has none.
    @param record The 8 bytes of the step.
    @param a First operand's register, 0 if there is none; so are b and c. A lookup takes the two words of
           its table in b and c.
    """
    op: uint256 = record >> 56
    result: uint256 = (record >> 52) & 15
    operand: uint256 = (record >> 48) & 15
    if op == numbers.OP_CONST:
        low: uint256 = record & protocol.MASK32
        if operand == numbers.TYPE_I64 and low >= fp32.SIGN:
            return low | (protocol.MASK32 << 32)
        return low
    if op == numbers.OP_TABLE:
        return self.lookup(a, b, c)
    if op == numbers.OP_SELECT:
        if a > 1 or (b | c) >> self.width(operand) != 0:
            return INVALID
        if a == 1:
            return b
        return c
    if (a | b | c) >> self.width(operand) != 0:
        return INVALID
    if op == numbers.OP_CONVERT:
        return self._convert(operand, result, a)
    if op == numbers.OP_BITCAST:
        if operand == numbers.TYPE_F32 or result == numbers.TYPE_F32:
            return fp32.canonical(a)
        return a
    if operand == numbers.TYPE_F32:
        return self._float(op, a, b, c)
    return self._integer(op, operand, a, b)


@internal
@pure
def lookup(index: uint256, low: uint256, high: uint256) -> uint256:
    """
    @notice Entry of a table of sixteen u32, given as its two words.
    """
    if index > 15:
        return INVALID
    word: uint256 = low
    if index > 7:
        word = high
    return (word >> unsafe_mul(unsafe_sub(7, index & 7), 32)) & protocol.MASK32


@internal
@pure
def _float(op: uint256, a: uint256, b: uint256, c: uint256) -> uint256:
    if op < numbers.OP_SQRT:
        if op == numbers.OP_FMA:
            return fp32.fma(a, b, c)
        if op == numbers.OP_MUL:
            return fp32.mul(a, b)
        if op == numbers.OP_ADD:
            return fp32.add(a, b)
        if op == numbers.OP_SUB:
            return fp32.sub(a, b)
        if op == numbers.OP_DIV:
            return fp32.div(a, b)
        return INVALID
    if op < numbers.OP_LT:
        if op == numbers.OP_NEG:
            return fp32.neg(a)
        if op == numbers.OP_ABS:
            return fp32.absolute(a)
        if op == numbers.OP_RINT:
            return fp32.rint(a)
        return fp32.sqrt(a)
    if op == numbers.OP_LT:
        return convert(fp32.less(a, b), uint256)
    if op == numbers.OP_LE:
        return convert(fp32.less_equal(a, b), uint256)
    if op == numbers.OP_EQ:
        return convert(fp32.equal(a, b), uint256)
    if op == numbers.OP_NE:
        return convert(not fp32.equal(a, b), uint256)
    return INVALID


@internal
@pure
def _integer(op: uint256, type_: uint256, a: uint256, b: uint256) -> uint256:
    """
    @notice Integers and bools; a and b fit the type.
    """
    bits: uint256 = self.width(type_)
    mask: uint256 = unsafe_sub(fp32.BIT << bits, 1)
    # flipping the sign bit makes the unsigned order the signed one
    flip: uint256 = 0
    if type_ == numbers.TYPE_I32 or type_ == numbers.TYPE_I64:
        flip = (fp32.BIT << bits) >> 1
    if op < numbers.OP_LT:
        if op == numbers.OP_ADD:
            return unsafe_add(a, b) & mask
        if op == numbers.OP_SUB:
            return unsafe_sub(a, b) & mask
        if op == numbers.OP_MUL:
            return unsafe_mul(a, b) & mask
        if op == numbers.OP_NEG or (op == numbers.OP_ABS and a & flip != 0):
            return unsafe_sub(fp32.ZERO, a) & mask
        if op == numbers.OP_ABS:
            return a
        return INVALID
    if op < numbers.OP_SELECT:
        if op == numbers.OP_LT:
            return convert(a ^ flip < b ^ flip, uint256)
        if op == numbers.OP_LE:
            return convert(a ^ flip <= b ^ flip, uint256)
        return convert((a == b) == (op == numbers.OP_EQ), uint256)
    if op < numbers.OP_SHL:
        if op == numbers.OP_AND:
            return a & b
        if op == numbers.OP_OR:
            return a | b
        if op == numbers.OP_XOR:
            return a ^ b
        return a ^ mask
    if op < numbers.OP_MUL_HI:
        if b >= bits:
            return INVALID
        if op == numbers.OP_SHL:
            return (a << b) & mask
        return (unsafe_sub(a ^ flip, flip) >> b) & mask  # of the value extended to 256 bits
    if op == numbers.OP_MUL_HI:
        return unsafe_mul(a, b) >> 32
    if op == numbers.OP_FLOORDIV:
        return self._floordiv(flip, mask, a, b)
    if op == numbers.OP_MOD and b != 0:
        return unsafe_sub(a, unsafe_mul(self._floordiv(flip, mask, a, b), b)) & mask
    if op == numbers.OP_MOD:
        return 0
    return INVALID


@internal
@pure
def _floordiv(flip: uint256, mask: uint256, a: uint256, b: uint256) -> uint256:
    """
    @notice Toward minus infinity, wrapped; 0 if b is 0. `flip` is the sign bit.
    """
    if b == 0:
        return 0
    n: uint256 = a
    if a & flip != 0:
        n = unsafe_sub(fp32.ZERO, a) & mask
    m: uint256 = b
    if b & flip != 0:
        m = unsafe_sub(fp32.ZERO, b) & mask
    if (a ^ b) & flip == 0:
        return unsafe_div(n, m)
    return unsafe_sub(fp32.ZERO, unsafe_div(unsafe_sub(unsafe_add(n, m), 1), m)) & mask


@internal
@pure
def _convert(source: uint256, target: uint256, a: uint256) -> uint256:
    if source == numbers.TYPE_F32:
        if target == numbers.TYPE_BOOL:
            return convert(a << 1 & protocol.MASK32 != 0, uint256)
        return fp32.to_integer(a, self.width(target))
    if target == numbers.TYPE_BOOL:
        return convert(a != 0, uint256)
    flip: uint256 = 0
    if source == numbers.TYPE_I32:
        flip = fp32.SIGN
    elif source == numbers.TYPE_I64:
        flip = 2**63
    if target == numbers.TYPE_F32:
        if a & flip != 0:
            return fp32.from_integer(fp32.SIGN, unsafe_sub(flip << 1, a))
        return fp32.from_integer(0, a)
    # extended to 256 bits, then cut
    return unsafe_sub(a ^ flip, flip) & unsafe_sub(fp32.BIT << self.width(target), 1)
