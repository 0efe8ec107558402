# pragma version 0.4.3
"""
@title Rules
@notice The index rule: which element of a source an element reads, from the rule's bytes in a move.
@dev kernels/index.py has the meaning, compiler/instance.py the encoding: 64-bit words, counts before lists.
     Whoever calls has compared the bytes with the digest in the instance.
"""

from ..generated import protocol
from . import calldata

MAX_DIGITS: constant(uint256) = 24
MAX_ACCESSES: constant(uint256) = 16
MAX_COORDS: constant(uint256) = 16


struct Rule:
    at: uint256
    outs: uint256
    reds: uint256
    accesses: uint256  # position of the first access
    count: uint256  # number of accesses


struct Term:
    operand: uint256
    bound: uint256
    stride: uint256
    wrap: bool


@internal
@view
def parse(at: uint256) -> Rule:
    outs: uint256 = calldata.u64(at)
    assert outs <= MAX_DIGITS, "rule: digits"
    p: uint256 = unsafe_add(at, unsafe_mul(8, unsafe_add(1, outs)))
    reds: uint256 = calldata.u64(p)
    assert unsafe_add(outs, reds) <= MAX_DIGITS, "rule: digits"
    p = unsafe_add(p, unsafe_mul(8, unsafe_add(1, reds)))
    count: uint256 = calldata.u64(p)
    return Rule(at=at, outs=outs, reds=reds, accesses=unsafe_add(p, 8), count=count)


@internal
@view
def size(r: Rule, i: uint256) -> uint256:
    """
    @notice Size of digit i, output digits first.
    """
    at: uint256 = unsafe_add(i, 1)
    if i >= r.outs:
        at = unsafe_add(i, 2)
    return calldata.u64(unsafe_add(r.at, unsafe_mul(8, at)))


@internal
@view
def reduction(r: Rule) -> uint256:
    """
    @notice Number of reduction indices.
    """
    n: uint256 = 1
    for i: uint256 in range(r.reds, bound=MAX_DIGITS):
        n = n * self.size(r, unsafe_add(r.outs, i))
    return n


@internal
@view
def digits(r: Rule, element: uint256, k: uint256) -> uint256[MAX_DIGITS]:
    """
    @notice Digits of an output index and a reduction index.
    """
    out: uint256[MAX_DIGITS] = empty(uint256[MAX_DIGITS])
    i: uint256 = unsafe_add(r.outs, r.reds)
    x: uint256 = k
    # a word that ends with the size of the digit before
    p: uint256 = unsafe_add(unsafe_add(calldata.MOVE - 16, r.at), unsafe_mul(8, i))
    for _: uint256 in range(i, bound=MAX_DIGITS):
        if i == r.outs:
            x = element
            p = unsafe_sub(p, 8)  # the number of reduction digits
        i = unsafe_sub(i, 1)
        n: uint256 = max(convert(slice(msg.data, p, 32), uint256) & protocol.MASK64, 1)
        p = unsafe_sub(p, 8)
        out[i] = x % n
        x = unsafe_div(x, n)
    return out


@internal
@view
def digit(r: Rule, element: uint256, i: uint256) -> uint256:
    """
    @notice Digit i of an output index.
    """
    d: uint256[MAX_DIGITS] = self.digits(r, element, 0)
    return d[i]


@internal
@view
def access(r: Rule, i: uint256) -> uint256:
    """
    @notice Position of access i.
    """
    assert i < r.count, "rule: access"
    p: uint256 = r.accesses
    width: uint256 = unsafe_mul(8, unsafe_add(unsafe_add(r.outs, r.reds), 3))
    for _: uint256 in range(i, bound=MAX_ACCESSES):
        p = unsafe_add(p, unsafe_add(8, unsafe_mul(width, calldata.u64(p))))
        p = unsafe_add(p, unsafe_add(8, unsafe_mul(32, calldata.u64(p))))
    return p


@internal
@view
def flat(r: Rule, source: uint256, element: uint256, k: uint256) -> (bool, uint256):
    """
    @notice Whether source's access lies inside its bounds, and its flat index without indirect terms.
    """
    n: uint256 = unsafe_add(r.outs, r.reds)
    d: uint256[MAX_DIGITS] = self.digits(r, element, k)
    p: uint256 = self.access(r, source)
    coords: uint256 = calldata.u64(p)
    p = unsafe_add(p, calldata.MOVE + 8)
    total: uint256 = 0
    for _: uint256 in range(coords, bound=MAX_COORDS):
        # sum of the n coefficients times the digits, in two's complement of 256 bits
        x: uint256 = 0
        i: uint256 = 0
        for _w: uint256 in range(unsafe_add(n, 3) >> 2, bound=6):
            word: uint256 = convert(slice(msg.data, p, 32), uint256)  # four coefficients
            left: uint256 = unsafe_sub(n, i)
            if left < 4:  # the others are no coefficients
                word = (word >> unsafe_sub(256, left << 6)) << unsafe_sub(256, left << 6)
                p = unsafe_add(p, left << 3)
            else:
                p = unsafe_add(p, 32)
            if word >> 192 != 0:
                x = unsafe_add(x, unsafe_mul(unsafe_sub((word >> 192) ^ 2**63, 2**63), d[i]))
            if word << 64 != 0:
                y: uint256 = (word >> 128) & protocol.MASK64
                if y != 0:
                    x = unsafe_add(x, unsafe_mul(unsafe_sub(y ^ 2**63, 2**63), d[unsafe_add(i, 1)]))
                y = (word >> 64) & protocol.MASK64
                if y != 0:
                    x = unsafe_add(x, unsafe_mul(unsafe_sub(y ^ 2**63, 2**63), d[unsafe_add(i, 2)]))
                y = word & protocol.MASK64
                if y != 0:
                    x = unsafe_add(x, unsafe_mul(unsafe_sub(y ^ 2**63, 2**63), d[unsafe_add(i, 3)]))
            i = unsafe_add(i, 4)
        # bound, stride, offset
        word: uint256 = convert(slice(msg.data, unsafe_sub(p, 8), 32), uint256)
        p = unsafe_add(p, 24)
        x = unsafe_add(x, self._signed(word & protocol.MASK64))
        if x >= (word >> 128) & protocol.MASK64:  # negative ones are above 2^255
            return False, 0
        total = total + x * ((word >> 64) & protocol.MASK64)
    return True, total


@internal
@pure
def _signed(x: uint256) -> uint256:
    """
    @notice 64 bits in two's complement, extended.
    """
    return unsafe_sub(x ^ 2**63, 2**63)


@internal
@view
def _terms(r: Rule, source: uint256) -> uint256:
    p: uint256 = self.access(r, source)
    width: uint256 = unsafe_mul(8, unsafe_add(unsafe_add(r.outs, r.reds), 3))
    return unsafe_add(p, unsafe_add(8, unsafe_mul(width, calldata.u64(p))))


@internal
@view
def terms(r: Rule, source: uint256) -> uint256:
    """
    @notice Number of indirect terms of a source.
    """
    return calldata.u64(self._terms(r, source))


@internal
@view
def term(r: Rule, source: uint256, i: uint256) -> Term:
    """
    @notice Indirect term i of a source.
    """
    p: uint256 = unsafe_add(self._terms(r, source), unsafe_add(8, unsafe_mul(32, i)))
    return Term(
        operand=calldata.u64(p),
        bound=calldata.u64(unsafe_add(p, 8)),
        stride=calldata.u64(unsafe_add(p, 16)),
        wrap=calldata.u64(unsafe_add(p, 24)) == 1,
    )
