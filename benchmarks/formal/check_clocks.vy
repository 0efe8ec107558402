# pragma version 0.4.3
"""
@title Properties of the clocks
@notice For all clocks, all times and both players. What Disputes makes holds: a clock fits 48 bits, the grace 32 and
        no more than either clock, a turn is 1 or 2, and time does not run back.
"""

from . import expect
from ..court import clocks
from ..generated import protocol

MASK32: constant(uint256) = 2**32 - 1
MASK48: constant(uint256) = 2**48 - 1


struct Given:
    word: uint256
    turn: uint256
    round: uint256
    since: uint256
    own: uint256  # of the player whose turn it is
    other: uint256
    grace: uint256


@internal
def _given(turn: uint256, round: uint256, since: uint256, own: uint256, other: uint256, grace: uint256) -> Given:
    """
    @notice Clocks as the Court has them.
    """
    g: Given = Given(
        word=0,
        turn=protocol.DEFENDER + (turn & 1),
        round=round & (MASK32 >> 1),
        since=since & (MASK48 >> 1),
        own=own & (MASK48 >> 1),
        other=other & (MASK48 >> 1),
        grace=grace & MASK32,
    )
    assert g.grace <= min(g.own, g.other)
    defender: uint256 = g.own if g.turn == protocol.DEFENDER else g.other
    challenger: uint256 = g.other if g.turn == protocol.DEFENDER else g.own
    expect.warp(g.since)
    g.word = clocks.packed(g.turn, g.round, defender, challenger, g.grace)
    return g


@external
def late(word: uint256) -> bool:
    return clocks.late(word)


@external
def moved(word: uint256, turn: uint256) -> uint256:
    return clocks.moved(word, turn)


@internal
def _after(g: Given, next: uint256, used: uint256) -> (uint256, uint256, uint256):
    """
    @notice The word after a move in time, and in it the clocks of who moved and of the other. It must not revert.
    """
    assert used <= g.own
    expect.warp(g.since + used)
    ok: bool = False
    data: Bytes[32] = b""
    ok, data = raw_call(
        self,
        abi_encode(g.word, next, method_id=method_id("moved(uint256,uint256)")),
        max_outsize=32,
        revert_on_failure=False,
    )
    expect.holds(ok)
    word: uint256 = convert(data, uint256)
    defender: uint256 = (word // 2**88) % 2**48
    challenger: uint256 = (word // 2**136) % 2**48
    if g.turn == protocol.DEFENDER:
        return word, defender, challenger
    return word, challenger, defender


@external
def check_expiry(turn: uint256, round: uint256, since: uint256, own: uint256, other: uint256, grace: uint256, now: uint256):
    """
    @notice Late is who moves in a second after the last one, and nobody else; the comparison does not overflow.
    """
    g: Given = self._given(turn, round, since, own, other, grace)
    at: uint256 = now & MASK48
    assert at >= g.since
    expect.warp(at)
    ok: bool = False
    data: Bytes[32] = b""
    ok, data = raw_call(
        self,
        abi_encode(g.word, method_id=method_id("late(uint256)")),
        max_outsize=32,
        revert_on_failure=False,
    )
    expect.holds(ok)
    expect.holds(convert(data, uint256) == convert(at > g.since + g.own, uint256))


@external
def check_a_move_buys_no_time(
    turn: uint256, round: uint256, since: uint256, own: uint256, other: uint256, grace: uint256, used: uint256, next: uint256
):
    """
    @notice After a move in time there is what was left, or the grace where less was left: never more than both.
    """
    g: Given = self._given(turn, round, since, own, other, grace)
    seconds: uint256 = used & MASK48
    word: uint256 = 0
    after: uint256 = 0
    waits: uint256 = 0
    word, after, waits = self._after(g, protocol.DEFENDER + (next & 1), seconds)
    expect.holds(after >= g.grace)
    expect.holds(after + seconds == g.own or after == g.grace)
    expect.holds(after + seconds <= g.own + g.grace)  # so m moves of a player last clock + m x grace at most
    expect.holds(after <= g.own)


@external
def check_nothing_else_changes(
    turn: uint256, round: uint256, since: uint256, own: uint256, other: uint256, grace: uint256, used: uint256, next: uint256
):
    """
    @notice The other's clock, the grace, and no bits above; the next round, whose turn it is, and since now.
    """
    g: Given = self._given(turn, round, since, own, other, grace)
    seconds: uint256 = used & MASK48
    word: uint256 = 0
    after: uint256 = 0
    waits: uint256 = 0
    to: uint256 = protocol.DEFENDER + (next & 1)
    word, after, waits = self._after(g, to, seconds)
    expect.holds(waits == g.other)
    expect.holds(word % 2**8 == to and clocks.turn(word) == to)
    expect.holds((word // 2**8) % 2**32 == g.round + 1 and clocks.round(word) == g.round + 1)
    expect.holds((word // 2**40) % 2**48 == g.since + seconds)
    expect.holds(word // 2**184 == g.grace)
