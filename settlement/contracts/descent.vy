# pragma version 0.4.3
"""
@title Descent
@notice The two moves that a dispute mostly consists of: the defender shows what lies below a node of a tree, the
        challenger points at one of it.
@dev They change four words of a state, so the rest is not taken apart. Linked into the Court, which plays them
     without a call, and into Referee, whose rules they are part of.
"""

from . import merkle
from . import shown
from . import states

REVEAL: constant(uint256) = 3
PICK: constant(uint256) = 4
MASK8: constant(uint256) = 255
MASK64: constant(uint256) = 2**64 - 1
# of a state's first word: all but phase and player, and without the level too
SAME_LEVEL: constant(uint256) = max_value(uint256) - (255 << 240) - (255 << 160)
SAME: constant(uint256) = SAME_LEVEL - (255 << 200)
NODE: constant(uint256) = 9


@internal
@view
def due() -> bool:
    """
    @notice Whether one of these two moves is.
    """
    phase: uint256 = (shown.state_word(0) >> 240) & MASK8
    return phase == REVEAL or phase == PICK


@internal
@view
def play() -> Bytes[384]:
    """
    @notice The state after it.
    """
    head: uint256 = shown.state_word(0)
    place: uint256 = shown.state_word(2)  # count, index
    count: uint256 = place >> 192
    index: uint256 = (place >> 128) & MASK64
    level: uint256 = (head >> 200) & MASK8
    assert head >> 248 == states.VERSION, "state: version"
    if (head >> 240) & MASK8 == REVEAL:
        return self._reveal(head, count, level, index)
    return self._pick(head, place, count, level, index)


@internal
@view
def _reveal(head: uint256, count: uint256, level: uint256, index: uint256) -> Bytes[384]:
    """
    @notice Digests of those descendants four levels below (or at the leaves) that have leaves.
    """
    node: bytes32 = merkle.reveal(count, level, index, shown.MOVE, shown.size())
    assert convert(node, uint256) == shown.state_word(NODE), "referee: reveal"
    after: uint256 = (head & SAME_LEVEL) | (PICK << 240) | (states.CHALLENGER << 160)
    return concat(convert(after, bytes32), slice(msg.data, shown.STATE + 32, 352))


@internal
@view
def _pick(head: uint256, place: uint256, count: uint256, level: uint256, index: uint256) -> Bytes[384]:
    """
    @notice Descendant u8, its digest, and the siblings on its way up to the node: all of them shown before.
    """
    down: uint256 = min(level, 4)
    shown.end(unsafe_add(33, down << 5))
    i: uint256 = shown.number(0, 1)
    assert i >> down == 0, "referee: pick"
    below: uint256 = unsafe_sub(level, down)
    at: uint256 = (index << down) | i
    digest: bytes32 = shown.digest(1)
    node: bytes32 = merkle.climb(count, below, at, digest, shown.MOVE + 33, down)
    assert convert(node, uint256) == shown.state_word(NODE), "referee: pick"
    phase: uint256 = states.REVEAL
    if below == 0:
        phase = states.at_leaf((head >> 208) & MASK8)
    after: uint256 = (head & SAME) | (phase << 240) | (states.DEFENDER << 160) | (below << 200)
    there: uint256 = (place & (MASK64 << 192 | (2**128 - 1))) | (at << 128)
    return concat(
        convert(after, bytes32),
        slice(msg.data, shown.STATE + 32, 32),
        convert(there, bytes32),
        slice(msg.data, shown.STATE + 96, 192),
        digest,
        slice(msg.data, shown.STATE + 320, 64),
    )
