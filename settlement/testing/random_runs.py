"""Training runs at random, for tests: compiled code, interpreter and contracts agree, false steps are found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ree import _core, optim
from ree.compiler.interp import outputs
from ree.errors import InputError
from ree.kernels.canonical import canonical
from ree.kernels.opdef import Array
from ree.settlement.evidence import Evidence
from ree.settlement.proof_size import refusals
from ree.settlement.testing.random_programs import Maker
from ree.settlement.testing.referee import play
from ree.settlement.testing.referee import step as on_chain
from ree.training.step import NonFiniteLoss, Step, compile_step
from ree.verde.game import Game
from ree.verde.rehearsal import borders, picked, prove
from ree.verde.run_party import RunParty
from ree.verde.scope import VALUES, ProgramScope, computed
from ree.verde.testing import last_fault
from ree.verde.trained import Trained

ROWS = (1, 2, 3, 4, 63, 64, 65, 127, 128, 129)
WIDTHS = (1, 2, 3, 5, 8, 63, 64, 65)
TRIES = 12  # lies tried until one shows in the history
POINTED = 6  # values that a pointer is tried at


def check_run(seed: int) -> str:
    """What a seed's training run came to: diverged, refused, or played with a lie."""
    rng = np.random.default_rng(seed)
    text: list[str] = []
    try:
        made, batch = _made(seed, rng, text)
        return _played(made, batch, rng)
    except NonFiniteLoss:
        return "diverged"
    except Exception as e:
        e.add_note(f"seed {seed}: {'; '.join(text)}")
        raise


def _made(
    seed: int, rng: np.random.Generator, text: list[str]
) -> tuple[Step, Callable[[int], Any]]:
    """A step, and its batches: NaN payloads, zeros of both signs, whole numbers, bools of any byte."""
    import torch
    from torch import nn
    from torch.nn import functional

    def pick(x: Any) -> Any:
        return x[int(rng.integers(len(x)))]

    torch.manual_seed(seed)
    rows, width, classes = pick(ROWS), pick(WIDTHS), pick((1, 2, 3, 65))
    layers: list[nn.Module] = []
    at = width
    for _ in range(int(rng.integers(1, 4))):
        to = pick(WIDTHS)
        layers.append(nn.Linear(at, to, bias=bool(rng.integers(2))))
        at = to
        others = [nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.Sigmoid, partial(nn.LayerNorm, at),
                  partial(nn.Dropout, 0.3), partial(nn.Softmax, 1),
                  partial(nn.BatchNorm1d, at) if rows > 3 else nn.Identity]  # fmt: skip
        layers.append(pick(others)())
    layers.append(nn.Linear(at, classes))

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rest = nn.Embedding(7, width), nn.Sequential(*layers)

        def forward(self, x: Any, i: Any, b: Any) -> Any:
            x = torch.where(x == x, x, 0.25).clamp(-3, 3)  # NaN ends a run
            return self.rest(torch.where(b[:, None], x, x + self.embed(i)))

    def cross_entropy(m: Any, b: Any) -> Any:
        return functional.cross_entropy(m(*b[:3]), b[3])

    def squares(m: Any, b: Any) -> Any:
        return (m(*b[:3]) - b[3][:, None].float()).square().mean()

    common = {
        "lr": pick([0.0, 1e-3, 0.1]), "weight_decay": pick([0.0, 0.1]), "clip_norm": pick([None, 0.5]),
        "schedule": pick([optim.Constant(), optim.Linear(warmup=2, steps=9), optim.Cosine(warmup=1, steps=5)]),
    }  # fmt: skip
    momentum = pick([{}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "dampening": 0.5}])
    optimizer = pick([partial(optim.SGD, **momentum), optim.Adam, optim.AdamW])(**common)
    maker = Maker(seed)

    def batch(s: int) -> Any:
        of = np.random.default_rng((seed, s))
        x = of.standard_normal((rows, width), np.float32)
        maker.rng = of
        maker.payloads(x)
        b = of.integers(0, 2, rows).astype(np.bool_)
        maker.payloads(b)
        made = (x, of.integers(0, 7, rows), b, of.integers(0, classes, rows))
        return tuple(torch.from_numpy(y) for y in made)

    loss = pick([cross_entropy, squares])
    parts = 2 if rows % 2 == 0 and rng.integers(3) == 0 else 1
    text += [
        f"{rows} rows of {width}",
        *map(repr, layers),
        repr(optimizer),
        loss.__name__,
        f"in {parts} parts",
    ]
    return compile_step(Model(), loss, optimizer, batch(1), seed=seed, accumulate=parts), batch


def _played(made: Step, batch: Callable[[int], Any], rng: np.random.Generator) -> str:
    steps = int(rng.integers(1, 20))
    honest = Trained(made, batch, steps, threads=1)
    _same_records(made, batch, honest, rng)
    instance = made.instance
    party = honest.party()
    evidence = Evidence(party.game, instance)
    if refusals(Evidence(Game(ProgramScope(instance.graph)), instance)):
        return "refused"
    at = int(rng.integers(1, steps + 1))
    _pointers(party, Evidence(party.party(at).game, instance), at, rng)
    scope = ProgramScope(instance.graph)
    values = computed(scope, VALUES)
    for _ in range(TRIES):
        value = int(rng.choice(values))
        fault = last_fault(scope, value, int(rng.integers(scope.type(VALUES, value).numel)))
        try:
            liar = Trained(made, batch, steps, (at, fault), honest, threads=1).party()
        except (NonFiniteLoss, InputError):  # no run goes on from it, or an index is none
            continue
        if liar.statement.history == party.statement.history:
            continue
        end = play(evidence, party.game.begin(liar.statement), liar, party)  # type: ignore[arg-type]
        assert (end.winner, end.step) == ("challenger", at), (
            f"{fault} in step {at}: {end.winner}, {end.reason}"
        )
        end = play(evidence, party.game.begin(party.statement), party, liar)  # type: ignore[arg-type]
        assert end.winner == "defender", f"{fault} in step {at}, as challenger: {end.reason}"
        return "played"
    return "no lie shows"


def _same_records(
    made: Step, batch: Callable[[int], Any], honest: Trained, rng: np.random.Generator
) -> None:
    """Every instruction set gives the same records, the interpreter the same first step, and other bits of the
    same batches the same run."""
    steps = len(honest.records)
    for isa in _core.isa_names():
        threads, fuse = int(rng.integers(1, 3)), bool(rng.integers(2))
        again = Trained(made, batch, steps, isa=isa, threads=threads, fuse=fuse)
        assert again.records == honest.records, (
            f"{isa}, {threads} threads, fuse={fuse}: other records"
        )

    def other(s: int) -> list[Array]:
        return [canonical(np.asarray(x)) for x in batch(s)]

    assert Trained(made, other, steps, threads=1).records == honest.records, "other bits, other run"
    function = made.as_function()
    given = [*honest.initial, *made.batch(batch(1))]
    *state, loss = outputs(function.graph, given, function.weights)
    assert made.state_root(state) == honest.records[0].state_root, (
        "the interpreter's state is another"
    )
    assert int(np.asarray(loss).reshape(1).view(np.uint32)[0]) == honest.records[0].loss


def _pointers(run: RunParty, evidence: Evidence, at: int, rng: np.random.Generator) -> None:
    """The honest party of a step answers pointers at operations of some values."""
    party = run.party(at)
    scope, chain = party.run.scope, partial(on_chain, evidence)
    for v in rng.permutation(computed(scope, VALUES))[:POINTED]:
        element = int(rng.integers(scope.type(VALUES, int(v)).numel))
        there = picked(party, chain, int(v), element, rng)
        d = party.game.derivation(there)
        for i, end in prove(
            party, chain, there, map(int, rng.permutation(borders(d.count, d.width))[:3])
        ):
            assert end.winner == "defender", (
                f"operation {i} of element {element} of %{v}: {end.reason}"
            )
