"""Gradients at zeros, corners, ends of a domain, ties and infinities against torch.autograd in float32."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ree.compiler import interp
from ree.compiler.training.optimizers import Optimizer
from ree.training.step import compile_step

_spec = importlib.util.spec_from_file_location(
    "subgradient_cases", Path(__file__).with_name("subgradient_cases.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

# where torch's float32 formula gives NaN and the gradient exists: ours may be finite there
FINITE_HERE = {"log_softmax"}  # of a row with +inf


class Gradients(Optimizer):
    """Puts every parameter's gradient in its place."""

    def slots(self, shapes):
        return {}

    def _one(self, op, name, p, g, slots, new_slots, lr, common):
        return g


class Holder(nn.Module):
    def __init__(self, tensors):
        super().__init__()
        self.p = nn.ParameterDict({k: nn.Parameter(v.clone()) for k, v in tensors.items()})


def weighted(y):
    """A number in which every element of y counts differently."""
    n = torch.arange(y.numel()).view(y.shape)
    return (((n * 7919) % 101 - 50.5) / 50 * y).sum()


def gradients(functions):
    """name -> pairs (ours, torch's) of each argument; all functions in one step."""
    tensors = {f"c{c}a{i}": a for c, (_, args) in enumerate(functions.values())
               for i, a in enumerate(args)}  # fmt: skip

    def loss(model, batch):
        total = batch[0].sum() * 0
        for c, (f, args) in enumerate(functions.values()):
            total = total + weighted(f(*(model.p[f"c{c}a{i}"] for i in range(len(args)))))
        return total

    batch = (torch.zeros(1),)
    step = compile_step(Holder(tensors), loss, Gradients(), batch)
    # not by a runner, which stops at a loss that is infinite
    found = interp.outputs(
        step.instance.graph, [x.numpy() for x in batch], step.weights, step.initial
    )
    got = dict(zip(step.names.outputs, found, strict=True))
    out = {}
    for c, (name, (f, args)) in enumerate(functions.items()):
        leaves = [a.clone().requires_grad_(True) for a in args]
        weighted(f(*leaves)).backward()
        out[name] = [
            (got[f"new.parameter.p.c{c}a{i}"], x.grad.numpy()) for i, x in enumerate(leaves)
        ]
    return out


def wrong(name, pairs):
    """Lines on the elements that are not torch's."""
    lines = []
    for i, (have, want) in enumerate(pairs):
        with np.errstate(invalid="ignore"):
            near = np.isclose(have, want, rtol=2e-4, atol=1e-5, equal_nan=True)
        if name in FINITE_HERE:
            near |= np.isnan(want) & np.isfinite(have)
        lines += [f"{name}[{i}] at {tuple(map(int, e))}: {have[tuple(e)]}, torch {want[tuple(e)]}"
                  for e in np.argwhere(~near)]  # fmt: skip
    return lines


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_as_torch(family):
    found = gradients(cases.FAMILIES[family])
    assert not [line for name, pairs in found.items() for line in wrong(name, pairs)]
