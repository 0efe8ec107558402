"""Disputes played on a chain in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ree.compiler.instance import Instance
from ree.settlement.evidence import Evidence
from ree.settlement.local_referee import Mismatch, deploy, referee, step
from ree.verde.game import Game
from ree.verde.moves import Phase, State
from ree.verde.party import Party, Run
from ree.verde.testing import Play

__all__ = ["Mismatch", "Note", "deploy", "play", "play_for", "referee", "step"]

# a move, and the gas of a transaction that asks the referee about it
Note = Callable[[Phase, int], None]


def play(
    evidence: Evidence, s: State, defender: Party, challenger: Party, *, note: Note | None = None
) -> State:
    """A dispute to its end, each move also on chain; Mismatch if states or winners differ."""
    while s.phase is not Phase.OVER:
        move = (defender if s.player == "defender" else challenger).move(s)
        after = step(evidence, s, move)
        if note:
            note(s.phase, referee().gas)
        s = after
    return s


def play_for(run: Run, instance: Instance, note: Note | None = None) -> Play:
    """How disputes about a run are played on chain."""
    return partial(play, Evidence(Game(run.scope), instance), note=note)
