"""Parties to a dispute over a training run: they keep the history and make a step again when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ree.kernels.opdef import Array
from ree.traces.history import StepRecord, batches_leaf, history_leaf
from ree.traces.merkle import MerkleTree
from ree.training.step import Step
from ree.verde.commitments import descendants
from ree.verde.game import Game
from ree.verde.moves import Move, OpenStep, Phase, Point, Reveal, RunStatement, State
from ree.verde.party import Party, Run, hashes_of
from ree.verde.scope import INPUTS, STATES, ProgramScope

Replay = Callable[[int], Party]  # a party to step 1, 2, ... alone, made by running it again


class RunParty:
    """Plays both roles for a run of which it has the records and can replay any step."""

    def __init__(
        self, step: Step, initial: bytes, records: Sequence[StepRecord], replay: Replay
    ) -> None:
        self.game = Game(ProgramScope(step.instance.graph))
        self._records, self._replay = list(records), replay
        self._initial = initial
        self._history = MerkleTree(history_leaf(i, r) for i, r in enumerate(records, start=1))
        self._batches = MerkleTree(batches_leaf(i, r) for i, r in enumerate(records, start=1))
        self.statement = RunStatement(
            step.instance.digest, step.weights_root, initial, len(self._records), self._batches.root(),
            self._history.root(),
        )  # fmt: skip
        self._party: tuple[int, Party] | None = None

    def party(self, step: int) -> Party:
        """The party to one step."""
        if self._party is None or self._party[0] != step:
            self._party = step, self._replay(step)
        return self._party[1]

    def move(self, s: State) -> Move:
        """The move that is due, whoever's it is."""
        if s.step:
            return self.party(s.step).move(s)
        assert s.node is not None
        if s.phase is Phase.REVEAL:
            return Reveal(descendants(self._history, s.node))
        if s.phase is Phase.PICK:
            mine = descendants(self._history, s.node)
            pairs = enumerate(zip(s.revealed, mine, strict=True))
            return Point(next((i for i, (a, b) in pairs if a != b), 0))
        i = s.node.index
        after, proof = self._records[i], ()
        before = (self._initial, b"")
        if i:
            leaf = history_leaf(i, self._records[i - 1])
            before, proof = (leaf[8:40], leaf[40:]), self._history.prove(i - 1)  # type: ignore[assignment]
        leaf = history_leaf(i + 1, after)
        return OpenStep((leaf[8:40], leaf[40:]), after.batch, self._batches.prove(i), before, proof)


def step_run(step: Step, state: Sequence[Array], batch: Sequence[Array]) -> Run:
    """One step in memory, every value kept."""
    function, n = step.as_function(), len(state)
    result = function.run(*state, *batch, trace="ops", keep_values=True)
    hashes = hashes_of(step.program, result)
    hashes |= {STATES: hashes[INPUTS][:n], INPUTS: hashes[INPUTS][n:]}
    return Run(step.instance.graph, batch, step.weights, result.values, state, list(result.outputs), hashes,
               step.program.weight_bodies)  # fmt: skip
