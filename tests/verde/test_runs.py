"""Disputes over training runs: from the history down to one operation of one step."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ree import optim
from ree.kernels import opdef
from ree.kernels.opdef import Form
from ree.kernels.types import DType
from ree.training.step import compile_step
from ree.verde.fault import Fault
from ree.verde.game import Phase
from ree.verde.protocol import Reason
from ree.verde.scope import ProgramScope
from ree.verde.trained import Trained

STEPS = 37


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 3)

    def forward(self, x):
        return self.last(functional.dropout(functional.gelu(self.norm(self.first(x))), 0.1))


def loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def batch(step):
    g = torch.Generator().manual_seed(step)
    return torch.randn(5, 6, generator=g), torch.randint(0, 3, (5,), generator=g)


@pytest.fixture(scope="module")
def step():
    torch.manual_seed(0)
    return compile_step(Model(), loss, optim.AdamW(lr=1e-2, clip_norm=1.0), batch(1), seed=7)


@pytest.fixture(scope="module")
def scope(step):
    return ProgramScope(step.instance.graph)


@pytest.fixture(scope="module")
def trained(step):
    return Trained(step, batch, STEPS, threads=1)


@pytest.fixture(scope="module")
def honest(trained):
    return trained.party()


def play(defender, challenger):
    game = defender.game
    s = game.begin(defender.statement)
    while s.phase is not Phase.OVER:
        s = game.apply(s, (defender if s.player == "defender" else challenger).move(s))
    return s


@pytest.mark.parametrize("name", ["linear", "matmul", "div", "sum", "sub", "uniform", "mul"])
@pytest.mark.parametrize("at", [1, 20, STEPS])
def test_a_false_step_is_found(step, trained, honest, scope, name, at):
    nodes = step.instance.graph.nodes
    found = [n for n in nodes if n.op == name and n.results[0].dtype is DType.F32]
    node = found[0 if name == "sum" else -1]  # the last sum is a norm below the clip
    element = node.results[0].numel - 1
    last = scope.derivation("values", node.first, element).count - 1
    for bit in (20, 22, 29):  # some lies vanish in what follows them
        fault = Fault(node.first, element, last, 1 << bit)
        liar = Trained(step, batch, STEPS, (at, fault), trained, threads=1).party()
        if liar.statement.history != honest.statement.history:
            break
    else:
        pytest.fail("no lie is seen in the history")
    end = play(liar, honest)
    assert (end.winner, end.step) == ("challenger", at), end.reason
    assert end.cause is Reason.EXECUTED
    assert f"step {at}" in end.trail
    end = play(honest, liar)
    assert end.winner == "defender", end.reason


def test_a_step_that_starts_elsewhere_proves_nothing(trained, honest):
    """A history whose first step does not start from the initial state has no opening."""
    other = trained.party()
    other._initial = bytes(32)
    s = honest.game.begin(honest.statement)
    while s.phase is not Phase.STEP:
        s = honest.game.apply(
            s, honest.move(s) if s.player == "defender" else type(honest.move(s))(0)
        )
    assert s.node.index == 0
    end = honest.game.apply(s, other.move(s))
    assert (end.winner, end.phase) == ("challenger", Phase.OVER)
    assert "initial state" in end.reason


def test_every_value_of_a_step_is_decidable(scope):
    for v, n in enumerate(scope.producers):
        if opdef.get(n.op).form is Form.MOVEMENT or n.results[0].numel == 0:
            continue
        if scope.row_program("values", v) is None:
            assert scope.derivation("values", v, 0).count >= 1
