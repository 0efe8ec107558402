"""Gradients of torch functions, as a compiled step finds them, against torch.autograd in float64."""

import copy
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ree.compiler.training.optimizers import Optimizer
from ree.training.step import compile_step

_spec = importlib.util.spec_from_file_location(
    "cases", Path(__file__).with_name("gradient_cases.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
FAMILIES, ATTENTION, randn, ints = cases.FAMILIES, cases.ATTENTION, cases.randn, cases.ints


class Gradients(Optimizer):
    """Puts every parameter's gradient in its place, so that a step's new state shows it."""

    def slots(self, shapes):
        return {}

    def _one(self, op, name, p, g, slots, new_slots, lr, common):
        return g


class Holder(nn.Module):
    def __init__(self, tensors):
        super().__init__()
        self.p = nn.ParameterDict({k: nn.Parameter(v.clone()) for k, v in tensors.items()})


def weights(y, seed):
    """Numbers in [-1, 1] of y's shape."""
    n = torch.arange(math.prod(y.shape))
    return (((n * 7919 + 31 * seed) % 101 - 50) / 50).to(y.dtype).view(y.shape)


def weighted(y, seed):
    """A number in which every element of y counts differently."""
    ys = y if isinstance(y, tuple | list) else (y,)
    return sum((weights(v, seed + i) * v).sum() for i, v in enumerate(ys) if v.is_floating_point())


def check(cases, rtol=2e-5):
    """cases: name -> (function, its tensors). All are compiled as one step; the gradient of each float
    tensor is compared, relative to the largest element of that gradient."""
    tensors, spots = {}, {}
    for c, (name, (_, args)) in enumerate(cases.items()):
        spots[name] = [f"c{c}a{i}" if torch.is_tensor(a) and a.is_floating_point() else a
                       for i, a in enumerate(args)]  # fmt: skip
        tensors.update({k: a for k, a in zip(spots[name], args, strict=True) if isinstance(k, str)})

    def loss(model, batch):
        total = batch[0].sum() * 0
        for i, (name, (f, _)) in enumerate(cases.items()):
            args = [model.p[k] if isinstance(k, str) else k for k in spots[name]]
            total = total + weighted(f(*args), 10 * i)
        return total

    step = compile_step(Holder(tensors), loss, Gradients(), (torch.zeros(1),))
    runner = step.runner(threads=1)
    value = runner.run((torch.zeros(1),))
    got = dict(zip(step.names.states, runner.state, strict=True))

    exact = Holder({k: v.double() for k, v in tensors.items()})
    want_value = loss(exact, (torch.zeros(1, dtype=torch.float64),))
    want_value.backward()
    assert value == pytest.approx(want_value.item(), rel=1e-4, abs=1e-3)
    for name, keys in spots.items():
        for k in keys:
            if not isinstance(k, str):
                continue
            have, want = got[f"parameter.p.{k}"], exact.p[k].grad.numpy()
            scale = max(abs(want).max(), 1e-30) if want.size else 1
            worst = abs(have - want).max() / scale if want.size else 0
            assert worst <= rtol, (name, k, worst)
    return step


@pytest.mark.parametrize("family", FAMILIES)
def test_functions(family):
    check(FAMILIES[family])


def test_attention():
    check({n: c for n, c in ATTENTION.items() if n != "-inf mask"}, rtol=4e-5)


def test_attention_with_a_constant_mask():
    check({"-inf mask": ATTENTION["-inf mask"]})


# modules


def gradients(model, loss, batch):
    """(ours, torch's in float64) by parameter."""
    step = compile_step(model, loss, Gradients(), batch)
    runner = step.runner(threads=2)
    runner.run(batch)
    state = dict(zip(step.names.states, runner.state, strict=True))
    exact = copy.deepcopy(model).double()
    loss(exact, [x.double() if x.is_floating_point() else x for x in batch]).backward()
    want = {n: p.grad.numpy() for n, p in exact.named_parameters() if p.grad is not None}
    return step, state, want


def assert_near(state, want, rtol=3e-5):
    ours = {n.removeprefix("parameter."): x for n, x in state.items() if n.startswith("parameter.")}
    assert set(ours) == set(want)
    for name, w in want.items():
        assert abs(ours[name] - w).max() <= rtol * max(abs(w).max(), 0.1), name


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.frozen(torch.tanh(self.body(self.table(ids)))))


def test_tied_weights_are_one_and_frozen_ones_are_weights():
    torch.manual_seed(0)
    ids, target = ints(11, 3, 5), ints(11, 15)
    step, state, want = gradients(
        Tied(), lambda m, b: F.cross_entropy(m(b[0]).flatten(0, 1), b[1]), (ids, target)
    )
    assert_near(state, want)
    assert set(step.names.weights) == {"frozen.weight", "frozen.bias"}


class BatchNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm1d(4)
        self.c = nn.BatchNorm2d(3).eval()
        self.f = nn.Linear(3, 4)

    def forward(self, x):
        return self.b(self.f(torch.relu(self.c(self.a(x))).mean((2, 3))))


def test_batch_norm_in_training_changes_its_buffers():
    torch.manual_seed(1)
    model = BatchNorms()
    model.c.running_mean.normal_()
    x = 2 * randn(6, 3, 4, 5) + 1
    _, state, want = gradients(model, lambda m, b: weighted(m(b[0]), 3), (x,))
    assert_near(state, want, 1e-4)
    model.train()
    model.c.eval()
    model(x)
    for name, buffer in model.named_buffers():
        if "num_batches" in name and f"buffer.{name}" not in state:
            assert "c." in name
            continue
        if name.startswith("c."):
            assert f"buffer.{name}" not in state
            continue
        np.testing.assert_allclose(state[f"buffer.{name}"], buffer.numpy(), rtol=1e-5, atol=1e-6)


def test_gru_like_loop_and_reuse():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 5)

        def forward(self, x):
            h = torch.zeros(x.shape[0], 5, dtype=x.dtype)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
            return h

    torch.manual_seed(2)
    _, state, want = gradients(Loop(), lambda m, b: weighted(m(b[0]), 3), (randn(4, 6, 3),))
    assert_near(state, want)


def test_gradient_of_the_loss_as_a_bare_mean():
    """The seed is 1: no scale is lost where the loss is the last operator."""
    model = Holder({"a": randn(4, 5)})
    _, state, want = gradients(model, lambda m, b: (m.p["a"] * b[0]).mean(), (randn(4, 5, seed=3),))
    np.testing.assert_allclose(state["parameter.p.a"], want["p.a"], rtol=1e-6)
