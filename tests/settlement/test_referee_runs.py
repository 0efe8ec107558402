"""Training runs on the referee: from the history to one operation of one step."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

import torch
from torch import nn
from torch.nn import functional

from ree import optim
from ree.errors import ChainError
from ree.kernels.types import DType
from ree.settlement import gate
from ree.settlement.decidable import obstacles
from ree.settlement.evidence import Evidence
from ree.settlement.testing.referee import play, referee
from ree.training.step import compile_step
from ree.verde.fault import Fault
from ree.verde.moves import State
from ree.verde.protocol import Reason
from ree.verde.run_party import RunParty
from ree.verde.trained import Trained

STEPS = 21


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.first, self.norm, self.last = nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 3)

    def forward(self, x):
        h = self.embed(x).mean(1)
        return self.last(functional.dropout(functional.gelu(self.norm(self.first(h))), 0.1))


def loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def batch(step):
    g = torch.Generator().manual_seed(step)
    return torch.randint(0, 11, (5, 4), generator=g), torch.randint(0, 3, (5,), generator=g)


@pytest.fixture(scope="module")
def step():
    torch.manual_seed(0)
    return compile_step(Model(), loss, optim.AdamW(lr=1e-2, clip_norm=1.0), batch(1), seed=7)


@pytest.fixture(scope="module")
def trained(step):
    return Trained(step, batch, STEPS, threads=1)


@pytest.fixture(scope="module")
def honest(trained):
    return trained.party()


def test_a_training_step_is_decidable(step):
    assert obstacles(step.instance.graph) == []


def test_first_states_are_those_of_the_rules(step, honest):
    evidence = Evidence(honest.game, step.instance)
    s = honest.game.begin(honest.statement)
    got = referee().call("begin_run", evidence.statement(s.statement), evidence.run(s.run))
    assert got == evidence.state(s)
    single = honest.party(1).statement
    assert referee().call("begin", evidence.statement(single)) == evidence.state(State(single))


@pytest.mark.parametrize(
    ("name", "at"), [("linear", 1), ("sum", 7), ("uniform", 2), ("mul", STEPS), ("embedding", 3)]
)
def test_a_false_step_is_found_on_chain(step, trained, honest, name, at):
    nodes = step.instance.graph.nodes
    found = [n for n in nodes if n.op == name and n.results[0].dtype is DType.F32]
    assert found, f"the step has no {name}"
    scope = honest.party(at).run.scope
    for node in reversed(found):  # until a lie reaches the states or the loss
        element = node.results[0].numel - 1
        last = scope.derivation("values", node.first, element).count - 1
        # of a random number, a bit that turns a kept element into a dropped one
        fault = Fault(node.first, element, last, 1 << (29 if name == "uniform" else 20))
        liar = Trained(step, batch, STEPS, (at, fault), trained, threads=1).party()
        if liar.statement.history != honest.statement.history:
            break
    assert liar.statement.history != honest.statement.history
    evidence = Evidence(honest.game, step.instance)
    end = play(evidence, honest.game.begin(liar.statement), liar, honest)
    assert (end.winner, end.step) == ("challenger", at), end.reason
    assert end.cause is Reason.EXECUTED
    end = play(evidence, honest.game.begin(honest.statement), honest, liar)
    assert end.winner == "defender", end.reason


def test_a_party_to_a_run_is_rehearsed_by_the_contracts(step, honest, trained):
    """Pointers from the history down, at the first step and the last, and at every value of a step."""
    terms = SimpleNamespace(grace=4 * 600)
    rows = gate.rehearsed(honest, step.instance, terms)
    gate.require(rows)
    assert next(r for r in rows if r.what == "dearest move").needed > 100_000
    records = [*trained.records[:-1], replace(trained.records[-1], batch=bytes(32))]
    wrong = RunParty(step, step.state_root(trained.initial), records, trained.party_to)
    with pytest.raises(ChainError, match=f"in rehearsal step {STEPS}, run again"):
        gate.rehearsed(wrong, step.instance, terms)
