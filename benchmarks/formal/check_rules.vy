# pragma version 0.4.3
"""
@title Properties of the index rule
@notice For all elements, reduction indices, bounds and offsets: two output digits and one reduction digit of some sizes, a
        coordinate with some coefficients, one of them negative, and a stride. The rule stands in a call where a move has it.
"""

from . import expect
from ..referee import rules

SIZES: constant(uint64[3][4]) = [[5, 7, 3], [1, 1, 1], [65536, 32768, 2**31 - 1], [2**31 - 1, 1, 64]]


@external
def digits(before: uint256[19], rule: uint256[5], element: uint256, k: uint256) -> uint256[24]:
    return rules.digits(rules.parse(0), element, k)


@external
def flat(before: uint256[19], rule: uint256[5], element: uint256, k: uint256) -> (bool, uint256):
    return rules.flat(rules.parse(0), 0, element, k)


@internal
@pure
def _call(name: bytes4, n: uint64[3], x: uint64[6], y: uint64[6], element: uint256, k: uint256) -> Bytes[836]:
    """
    @notice A call with this rule: sizes n, and of each coordinate three coefficients, bound, stride and offset.
    """
    zeros: Bytes[608] = slice(abi_encode(empty(uint256[19])), 0, 608)
    one: uint64 = 1
    two: uint64 = 2
    zero: uint64 = 0
    return concat(
        name,
        zeros,
        convert(two, bytes8),
        convert(n[0], bytes8),
        convert(n[1], bytes8),
        convert(one, bytes8),
        convert(n[2], bytes8),
        convert(one, bytes8),
        convert(two, bytes8),
        convert(x[0], bytes8),
        convert(x[1], bytes8),
        convert(x[2], bytes8),
        convert(x[3], bytes8),
        convert(x[4], bytes8),
        convert(x[5], bytes8),
        convert(y[0], bytes8),
        convert(y[1], bytes8),
        convert(y[2], bytes8),
        convert(y[3], bytes8),
        convert(y[4], bytes8),
        convert(y[5], bytes8),
        convert(zero, bytes8),
        convert(element, bytes32),
        convert(k, bytes32),
    )


@internal
@pure
def _number(x: uint64) -> int256:
    """
    @notice What 64 bits stand for.
    """
    if x >= 2**63:
        return convert(x, int256) - 2**64
    return convert(x, int256)


@external
def check_digits(element_: uint256, k_: uint256):
    """
    @notice Digits are remainders, the last output digit the fastest.
    """
    element: uint256 = element_ & (2**31 - 1)
    k: uint256 = k_ & (2**31 - 1)
    nothing: uint64[6] = empty(uint64[6])
    for n: uint64[3] in SIZES:
        d: uint256[24] = abi_decode(
            raw_call(
                self,
                self._call(
                    method_id("digits(uint256[19],uint256[5],uint256,uint256)", output_type=bytes4),
                    n, nothing, nothing, element, k,
                ),
                max_outsize=768,
            ),
            uint256[24],
        )
        expect.holds(d[1] == element % convert(n[1], uint256))
        expect.holds(d[0] == element // convert(n[1], uint256) % convert(n[0], uint256))
        expect.holds(d[2] == k % convert(n[2], uint256))
        for i: uint256 in range(3, 24):
            expect.holds(d[i] == 0)


@external
def check_flat(bound: uint64, offset: uint64, element_: uint256, k_: uint256):
    """
    @notice The flat index is the sum of strides times coordinates, a coordinate the sum of coefficients times digits
            and an offset; there is none where a coordinate is negative, at its bound or beyond it.
    """
    element: uint256 = element_ & (2**31 - 1)
    k: uint256 = k_ & (2**31 - 1)
    n: uint64[3] = SIZES[0]
    y: uint64[6] = [0, 0, 0, 1, 0, 0]  # always 0, inside its bound
    x: uint64[6] = [21, 18446744073709551613, 8589934592, bound, 5, offset]  # the second is -3
    d: int256[3] = [
        convert(element // convert(n[1], uint256) % convert(n[0], uint256), int256),
        convert(element % convert(n[1], uint256), int256),
        convert(k % convert(n[2], uint256), int256),
    ]
    at: int256 = self._number(x[5])
    for i: uint256 in range(3):
        at = unsafe_add(at, unsafe_mul(self._number(x[i]), d[i]))
    inside: bool = at >= 0 and at < convert(x[3], int256)
    total: uint256 = unsafe_mul(convert(at, uint256), convert(x[4], uint256)) if inside else 0
    ok: bool = False
    data: Bytes[64] = b""
    ok, data = raw_call(
        self,
        self._call(
            method_id("flat(uint256[19],uint256[5],uint256,uint256)", output_type=bytes4), n, x, y, element, k
        ),
        max_outsize=64,
        revert_on_failure=False,
    )
    if not ok:  # that it cannot be, is a lemma: no product overflows
        return
    there: bool = False
    flat: uint256 = 0
    there, flat = abi_decode(data, (bool, uint256))
    expect.holds(there == inside)
    expect.holds(flat == (total if inside else 0))
