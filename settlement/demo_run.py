"""A dispute over a training run on the embedded chain: one bit of one operation of one step is false, and the
run goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from ree.errors import EnvironmentError_
from ree.kernels import opdef
from ree.kernels.opdef import Array
from ree.program import hash_array
from ree.settlement.client import Agreed, agree
from ree.settlement.demo import Side, Stage, Told, finish
from ree.settlement.player import VerdePlayer
from ree.settlement.work import decidable, run_facts
from ree.step import Step
from ree.traces.history import StepRecord, batch_digest
from ree.verde.fault import Fault, Liar
from ree.verde.party import Party
from ree.verde.run_party import RunParty, step_run
from ree.verde.scope import VALUES

STEPS, LIE_AT = 64, 29
Batches = Callable[[int], Sequence[Any]]


def small_step() -> tuple[Step, Batches]:
    """A classifier of three layers with dropout, trained by AdamW on random data; needs PyTorch."""
    try:
        import torch
        from torch.nn import functional
    except ImportError as e:
        raise EnvironmentError_(
            "a training run needs PyTorch", "pip install 'ree-ml[torch]'"
        ) from e
    from ree import optim
    from ree.step import compile_step

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.LayerNorm(9), torch.nn.GELU(),
                                 torch.nn.Dropout(0.1), torch.nn.Linear(9, 3))  # fmt: skip

    def batch(step: int) -> Sequence[Any]:
        g = torch.Generator().manual_seed(step)
        return torch.randn(5, 6, generator=g), torch.randint(0, 3, (5,), generator=g)

    def loss(model: Any, given: Sequence[Any]) -> Any:
        return functional.cross_entropy(model(given[0]), given[1])

    return compile_step(layers, loss, optim.AdamW(lr=1e-2), batch(1), seed=7), batch


class Trained:
    """A run in memory; with a fault, the provider lies at step LIE_AT and goes on from there."""

    def __init__(
        self,
        step: Step,
        batch: Batches,
        fault: Fault | None = None,
        *,
        initial: Sequence[Array] | None = None,
        **how: Any,
    ) -> None:
        """initial: where it begins, if not where the step does."""
        self.step, self.batch, self.fault = step, batch, fault
        self.initial = list(step.initial if initial is None else initial)
        self.records: list[StepRecord] = []
        self.states: list[list[Array]] = []
        state, runner = self.initial, step.runner(**how)
        for s in range(1, STEPS + 1):
            self.states.append([np.array(x) for x in state])
            if fault is not None and s == LIE_AT:
                party = self.party_to(s)
                *state, value = (x for x in party.run.arrays["outputs"] if x is not None)
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
        if self.fault is not None and s == LIE_AT:
            return Liar(run, self.fault, digest)
        return Party(run, digest)

    def party(self) -> RunParty:
        """The party to the whole run."""
        initial = self.step.state_root(self.initial)
        return RunParty(self.step, initial, self.records, self.party_to)


@lru_cache(maxsize=1)
def true_runs() -> tuple[Trained, Trained]:
    """The same run twice, computed differently."""
    step, batch = small_step()
    return Trained(step, batch), Trained(step, batch, isa="portable", threads=1, fuse=False)


def false_run(true: Trained) -> Trained:
    """A run with a lie that changes its history: one bit of the mantissa, the lowest that does."""
    scope, rng = true.party_to(LIE_AT).run.scope, np.random.default_rng(1)
    found = [
        v for v, n in enumerate(scope.producers) if opdef.get(n.op).form is opdef.Form.CONTRACTION
    ]
    for bit in range(0, 23, 4):
        for value in found:
            element = int(rng.integers(scope.type(VALUES, value).numel))
            at = int(rng.integers(scope.derivation(VALUES, value, element).count))
            lie = Trained(true.step, true.batch, Fault(value, element, at, 1 << bit))
            if lie.records != true.records:
                return lie
    raise ValueError("no lie reaches a state or a loss")


def run_dispute(
    say: Callable[[str], None] = print,
    chain: Any = None,
    false: Callable[[Trained], Trained] = false_run,
) -> dict[str, Any]:
    """Dispute over a training run, told by `say`; what came of it. false: the cheat's run, made from the true
    one."""
    begin = time.perf_counter()
    say(f"train {STEPS} steps twice, independently")
    true, other = true_runs()
    instance, honest = decidable(true.step.instance), true.party()
    agreed = agree(lambda: honest.statement.history, lambda: other.party().statement.history)
    lie, about = false(true), {}
    if lie.fault is not None:
        node = lie.party_to(LIE_AT).run.scope.producers[lie.fault.value]
        about = {"fault": asdict(lie.fault), "operator": node.op}
        say(f"the cheat flips a bit of operation {lie.fault.operation} of element {lie.fault.element} of "
            f"%{lie.fault.value} ({node.op}) in step {LIE_AT} and trains on from there")  # fmt: skip
    stage = Stage(say, chain)
    player = Told(VerdePlayer(honest, instance), stage)
    false_party = lie.party()
    story = stage.play(run_facts(instance, honest.statement), {
        "honest": Side(agreed, player),
        "cheat": Side(Agreed(false_party.statement.history), Told(VerdePlayer(false_party, instance), stage)),
        "challenger": Side(agreed, player),
    })  # fmt: skip
    return finish(story, say, begin, steps=STEPS, **about, true_root=agreed.root.hex(),
                  false_root=false_party.statement.history.hex())  # fmt: skip
