# pragma version 0.4.3
"""
@title Entries
@notice The entries of a derivation: little-endian, 4 or 8 bytes each, in leaves of 512 bytes.
"""

from ..generated import numbers
from . import calldata
from . import states


@internal
@view
def opened(s: states.State, i: uint256, at: uint256) -> uint256:
    """
    @notice Entry i from its leaf and proof.
    """
    per: uint256 = unsafe_div(numbers.LEAF_BYTES, s.width)
    leaves: uint256 = (s.limit * s.width + (numbers.LEAF_BYTES - 1)) // numbers.LEAF_BYTES
    root: bytes32 = calldata.root(leaves, unsafe_div(i, per), calldata.leaf_hash(at), at + numbers.LEAF_BYTES)
    assert root == s.entries, "entries: entry"
    return self.at(s, at, i % per)


@internal
@view
def at(s: states.State, leaf: uint256, position: uint256) -> uint256:
    """
    @notice Entry at a position of the leaf that stands here.
    """
    start: uint256 = unsafe_add(leaf, unsafe_mul(position, s.width))
    x: uint256 = 0
    y: uint256 = calldata.number(start, s.width)
    for _: uint256 in range(s.width, bound=8):
        x = (x << 8) | (y & 255)
        y = y >> 8
    return x
