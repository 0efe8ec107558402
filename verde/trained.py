"""A training run in memory, and a provider that lies in one step of it and trains on from there.

For tests, figures and demonstrations; a run on disk is served by service.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ree.kernels.opdef import Array
from ree.runtime.hashing import hash_array
from ree.traces.history import History, RunHeader, StepRecord, batch_digest
from ree.training.step import Step
from ree.verde.fault import Fault, FaultyParty
from ree.verde.messages import Terms
from ree.verde.party import Party
from ree.verde.run_party import Replay, RunParty, step_run
from ree.verde.service import Service

Batches = Callable[[int], Sequence[Any]]


class Trained:
    """The records of a run of `steps` steps and the state before each.

    lie: a step and the fault in it. true: the run without the lie, whose steps before it are taken over.
    initial: where it begins, if not where the step does. how: of the runner.
    """

    def __init__(
        self,
        step: Step,
        batch: Batches,
        steps: int,
        lie: tuple[int, Fault] | None = None,
        true: Trained | None = None,
        *,
        initial: Sequence[Array] | None = None,
        **how: Any,
    ) -> None:
        self.step, self.batch, self.lie = step, batch, lie
        self.initial = list(step.initial if initial is None else initial)
        known = 0 if true is None or lie is None else lie[0] - 1
        self.records: list[StepRecord] = true.records[:known] if true else []
        self.states: list[list[Array]] = true.states[:known] if true else []
        state = true.states[known] if true and known else self.initial
        runner = step.runner(**how)
        for s in range(known + 1, steps + 1):
            self.states.append([np.array(x) for x in state])
            if lie is not None and s == lie[0]:
                outputs = self.party_to(s).run.arrays["outputs"]
                *state, value = (x for x in outputs if x is not None)
            else:
                runner.load(state)
                value = np.asarray(runner.run(batch(s)))
                state = [np.array(x) for x in runner.state]
            bits = int(np.asarray(value, np.float32).reshape(1).view(np.uint32)[0])
            digest = batch_digest([hash_array(x) for x in step.batch(batch(s))])
            self.records.append(StepRecord(step.state_root(state), bits, digest))

    def party_to(self, s: int) -> Party:
        """The party to one step."""
        run = step_run(self.step, self.states[s - 1], self.step.batch(self.batch(s)))
        digest = self.step.instance.digest
        if self.lie is not None and s == self.lie[0]:
            return FaultyParty(run, self.lie[1], digest)
        return Party(run, digest)

    def party(self) -> RunParty:
        """The party to the whole run."""
        initial = self.step.state_root(self.initial)
        return RunParty(self.step, initial, self.records, self.party_to)

    def service(self, seed: int, replay: Replay | None = None) -> Service:
        """The party as a service. seed: of the step. replay: how it makes a step again."""
        step, initial = self.step, self.step.state_root(self.initial)
        instance = step.instance
        header = RunHeader(instance.numeric_id, instance.digest, step.weights_root, initial, seed)
        party = RunParty(step, initial, self.records, replay or self.party_to)
        commitment = History(header, self.records).commitment
        terms = Terms(party.statement, step.program_hash, (), commitment, seed % 2**64)
        return Service(step.program, party, terms)
