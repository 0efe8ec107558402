"""A dispute over a training run on the embedded chain: one bit of one operation of one step is false, and the
run goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np

from ree.errors import PlatformError
from ree.kernels import opdef
from ree.settlement.client import Agreed, agree
from ree.settlement.demo import RoleSide, Stage, Told, finish
from ree.settlement.gate import admit
from ree.settlement.player import VerdePlayer
from ree.settlement.work import run_facts
from ree.training.step import Step
from ree.verde.fault import Fault, MaskedFault
from ree.verde.scope import VALUES
from ree.verde.trained import Batches, Trained

STEPS, LIE_AT = 64, 29


def small_step() -> tuple[Step, Batches]:
    """A classifier of three layers with dropout, trained by AdamW on random data; needs PyTorch."""
    try:
        import torch
        from torch.nn import functional
    except ImportError as e:
        raise PlatformError("a training run needs PyTorch", "pip install 'ree-ml[torch]'") from e
    from ree import optim
    from ree.training.step import compile_step

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.LayerNorm(9), torch.nn.GELU(),
                                 torch.nn.Dropout(0.1), torch.nn.Linear(9, 3))  # fmt: skip

    def batch(step: int) -> Sequence[Any]:
        g = torch.Generator().manual_seed(step)
        return torch.randn(5, 6, generator=g), torch.randint(0, 3, (5,), generator=g)

    def loss(model: Any, given: Sequence[Any]) -> Any:
        return functional.cross_entropy(model(given[0]), given[1])

    return compile_step(layers, loss, optim.AdamW(lr=1e-2), batch(1), seed=7), batch


@lru_cache(maxsize=1)
def true_runs() -> tuple[Trained, Trained]:
    """The same run twice, computed differently."""
    step, batch = small_step()
    return Trained(step, batch, STEPS), Trained(
        step, batch, STEPS, isa="portable", threads=1, fuse=False
    )


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
            fault = Fault(value, element, at, 1 << bit)
            try:
                lie = Trained(true.step, true.batch, STEPS, (LIE_AT, fault), true)
            except MaskedFault:
                continue
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
    instance, honest = admit(true.step.instance), true.party()
    agreed = agree(lambda: honest.statement.history, lambda: other.party().statement.history)
    lie, about = false(true), {}
    if lie.lie is not None:
        at, fault = lie.lie
        node = true.party_to(at).run.scope.producers[fault.value]
        about = {"fault": asdict(fault), "operator": node.op}
        say(f"the cheat flips a bit of operation {fault.operation} of element {fault.element} of "
            f"%{fault.value} ({node.op}) in step {at} and trains on from there")  # fmt: skip
    stage = Stage(say, chain)
    player = Told(VerdePlayer(honest, instance), stage)
    false_party = lie.party()
    story = stage.play(run_facts(instance, honest.statement), {
        "honest": RoleSide(agreed, player),
        "cheat": RoleSide(
            Agreed(false_party.statement.history), Told(VerdePlayer(false_party, instance), stage)
        ),
        "challenger": RoleSide(agreed, player),
    })  # fmt: skip
    return finish(story, say, begin, steps=STEPS, **about, true_root=agreed.root.hex(),
                  false_root=false_party.statement.history.hex())  # fmt: skip
