# pragma version 0.4.3
"""
@title Descent
@notice The two moves that a dispute mostly consists of: the defender shows what lies below a node of a tree, the
        challenger points at one of it.
@dev They change three words of a state: its first (head), its third (place: count and index of the node) and
     the node. Linked into the Court, which plays them without a call and with no more of the state than that,
     and into Referee, whose rules they are.
"""

from ..lib import merkle
from ..generated import protocol
from . import states

# phase and player in the head; the level too
TURN: constant(uint256) = (protocol.MASK8 << protocol.STATE_PHASE) | (protocol.MASK8 << protocol.STATE_PLAYER)
TURN_AND_LEVEL: constant(uint256) = TURN | (protocol.MASK8 << protocol.STATE_LEVEL)


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
    assert head >> protocol.STATE_VERSION_AT == protocol.STATE_VERSION, "state: version"
    phase: uint256 = (head >> protocol.STATE_PHASE) & protocol.MASK8
    level: uint256 = (head >> protocol.STATE_LEVEL) & protocol.MASK8
    count: uint256 = place >> protocol.STATE_COUNT
    index: uint256 = (place >> protocol.STATE_INDEX) & protocol.MASK64
    if phase == protocol.PHASE_REVEAL:
        assert merkle.reveal(count, level, index, move, size) == node, "referee: reveal"
        return (head & ~TURN) | (protocol.PHASE_PICK << protocol.STATE_PHASE) | (protocol.CHALLENGER << protocol.STATE_PLAYER), place, node
    assert phase == protocol.PHASE_PICK, "referee: no descent"
    down: uint256 = min(level, protocol.FAN)
    assert size == unsafe_add(33, down << 5), "calldata: length"
    i: uint256 = convert(slice(msg.data, move, 1), uint256)
    assert i >> down == 0, "referee: pick"
    digest: bytes32 = convert(slice(msg.data, unsafe_add(move, 1), 32), bytes32)
    level = unsafe_sub(level, down)
    index = (index << down) | i
    assert merkle.climb(
        count, level, index, digest, unsafe_add(move, 33), down
    ) == node, "referee: pick"
    phase = protocol.PHASE_REVEAL
    if level == 0:
        phase = states.at_leaf((head >> protocol.STATE_KIND) & protocol.MASK8)
    return (
        (head & ~TURN_AND_LEVEL) | (phase << protocol.STATE_PHASE) | (protocol.DEFENDER << protocol.STATE_PLAYER) | (level << protocol.STATE_LEVEL),
        (count << protocol.STATE_COUNT) | (index << protocol.STATE_INDEX) | (place & protocol.MASK128),
        digest,
    )
