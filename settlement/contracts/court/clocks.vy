# pragma version 0.4.3
"""
@title Clocks
@notice Whose turn a dispute is, in which round, since when, and the seconds that are left, in one word: from the
        low end turn 8 bits, round 32, since when 48, left of defender and challenger 48 each, grace 32.
@dev Only the clock of the player whose turn it is runs.
"""

from ..generated import protocol



@internal
@view
def packed(
    turn: uint256, round: uint256, defender: uint256, challenger: uint256, grace: uint256
) -> uint256:
    return (
        turn
        | (round << protocol.CLOCKS_ROUND)
        | (block.timestamp << protocol.CLOCKS_SINCE)
        | (defender << protocol.CLOCKS_DEFENDER)
        | (challenger << protocol.CLOCKS_CHALLENGER)
        | (grace << protocol.CLOCKS_GRACE)
    )


@internal
@pure
def turn(word: uint256) -> uint256:
    return word & protocol.MASK8


@internal
@pure
def round(word: uint256) -> uint256:
    return (word >> protocol.CLOCKS_ROUND) & protocol.MASK32


@internal
@view
def late(word: uint256) -> bool:
    """
    @notice The only comparison of a clock: more seconds have passed than were left.
    """
    left: uint256 = (word >> protocol.CLOCKS_DEFENDER) & protocol.MASK48
    if word & protocol.MASK8 == protocol.CHALLENGER:
        left = (word >> protocol.CLOCKS_CHALLENGER) & protocol.MASK48
    return block.timestamp - ((word >> protocol.CLOCKS_SINCE) & protocol.MASK48) > left


@internal
@view
def moved(word: uint256, turn: uint256) -> uint256:
    """
    @notice The next round, after a move: the clock of the one who moved stands at what is left, and at no less than the grace.
    """
    used: uint256 = block.timestamp - ((word >> protocol.CLOCKS_SINCE) & protocol.MASK48)
    grace: uint256 = word >> protocol.CLOCKS_GRACE
    defender: uint256 = (word >> protocol.CLOCKS_DEFENDER) & protocol.MASK48
    challenger: uint256 = (word >> protocol.CLOCKS_CHALLENGER) & protocol.MASK48
    if word & protocol.MASK8 == protocol.DEFENDER:
        defender = max(defender - used, grace)
    else:
        challenger = max(challenger - used, grace)
    return self.packed(turn, unsafe_add(self.round(word), 1), defender, challenger, grace)
