# pragma version 0.4.3
"""
@title Descent
@notice The two moves that a dispute mostly consists of: the defender shows what lies below a node of a tree, the
        challenger points at one of it.
@dev They change three words of a state: its first (head), its third (place: count and index of the node) and
     the node. Linked into the Court, which plays them without a call and with no more of the state than that,
     and into Referee, whose rules they are.
"""

from . import merkle
from . import states

REVEAL: constant(uint256) = 3
PICK: constant(uint256) = 4
MASK8: constant(uint256) = 255
MASK64: constant(uint256) = 2**64 - 1
MASK128: constant(uint256) = 2**128 - 1
# phase and player in the head; the level too
TURN: constant(uint256) = (255 << 240) | (255 << 160)
TURN_AND_LEVEL: constant(uint256) = TURN | (255 << 200)


@internal
@view
def play(
    head: uint256, place: uint256, node: bytes32, move: uint256, size: uint256
) -> (uint256, uint256, bytes32):
    """
    @notice Head, place and node after the move of this size, which stands at this position of the calldata.
            REVEAL: digests of those descendants four levels below (or at the leaves) that have leaves.
            PICK: descendant u8, its digest, and the siblings on its way up to the node: all of them shown
            before.
    """
    assert head >> 248 == states.VERSION, "state: version"
    phase: uint256 = (head >> 240) & MASK8
    level: uint256 = (head >> 200) & MASK8
    count: uint256 = place >> 192
    index: uint256 = (place >> 128) & MASK64
    if phase == REVEAL:
        assert merkle.reveal(count, level, index, move, size) == node, "referee: reveal"
        return (head & ~TURN) | (PICK << 240) | (states.CHALLENGER << 160), place, node
    assert phase == PICK, "referee: no descent"
    down: uint256 = min(level, 4)
    assert size == unsafe_add(33, down << 5), "shown: length"
    i: uint256 = convert(slice(msg.data, move, 1), uint256)
    assert i >> down == 0, "referee: pick"
    digest: bytes32 = convert(slice(msg.data, unsafe_add(move, 1), 32), bytes32)
    level = unsafe_sub(level, down)
    index = (index << down) | i
    assert merkle.climb(
        count, level, index, digest, unsafe_add(move, 33), down
    ) == node, "referee: pick"
    phase = states.REVEAL
    if level == 0:
        phase = states.at_leaf((head >> 208) & MASK8)
    return (
        (head & ~TURN_AND_LEVEL) | (phase << 240) | (states.DEFENDER << 160) | (level << 200),
        (count << 192) | (index << 128) | (place & MASK128),
        digest,
    )
