# pragma version 0.4.3
"""
@title Clocks
@notice Whose turn a dispute is, in which round, since when, and the seconds that are left, in one word: from the
        low end turn 8 bits, round 32, since when 48, left of defender and challenger 48 each, grace 32.
@dev Only the clock of the player whose turn it is runs.
"""

MASK48: constant(uint256) = 2**48 - 1
MASK32: constant(uint256) = 2**32 - 1
DEFENDER: constant(uint256) = 1
CHALLENGER: constant(uint256) = 2


@internal
@view
def packed(
    turn: uint256, round: uint256, defender: uint256, challenger: uint256, grace: uint256
) -> uint256:
    return (
        turn
        | (round << 8)
        | (block.timestamp << 40)
        | (defender << 88)
        | (challenger << 136)
        | (grace << 184)
    )


@internal
@pure
def turn(word: uint256) -> uint256:
    return word & 255


@internal
@pure
def round(word: uint256) -> uint256:
    return (word >> 8) & MASK32


@internal
@view
def late(word: uint256) -> bool:
    """
    @notice The only comparison of a clock: more seconds have passed than were left.
    """
    left: uint256 = (word >> 88) & MASK48
    if word & 255 == CHALLENGER:
        left = (word >> 136) & MASK48
    return block.timestamp - ((word >> 40) & MASK48) > left


@internal
@view
def moved(word: uint256, turn: uint256) -> uint256:
    """
    @notice The next round, after a move: the clock of the one who moved stands at what is left, and at no less than the grace.
    """
    used: uint256 = block.timestamp - ((word >> 40) & MASK48)
    grace: uint256 = word >> 184
    defender: uint256 = (word >> 88) & MASK48
    challenger: uint256 = (word >> 136) & MASK48
    if word & 255 == DEFENDER:
        defender = max(defender - used, grace)
    else:
        challenger = max(challenger - used, grace)
    return self.packed(turn, unsafe_add(self.round(word), 1), defender, challenger, grace)
