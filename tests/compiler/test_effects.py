"""Calls of a forward pass that have no result, or read a tensor's number: refused with their line."""

import pytest
import torch

import ree
from ree.errors import CaptureError
from ree.optim import SGD

X = torch.ones(2, 3)


class Apply(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f, self.w = f, torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.f(x * self.w)


def asserts(x):
    torch._assert_async(x.sum() > 1e9)
    return x + 1


def numbers(x):
    return x * sum(x[0].tolist())


def whole(x):
    return x * x.sum().long().item()


def derived(x):
    return torch.func.grad(lambda y: (y**2).sum())(x)


def functional(x):
    return torch.func.functionalize(lambda y: y.clone().add_(1))(x)


def as_array(x):
    return x + torch.from_numpy(x.numpy())


@pytest.mark.parametrize("f", [asserts, numbers, whole, derived, functional, as_array])
@pytest.mark.parametrize("training", [False, True])
def test_refused_with_the_line(f, training):
    line = f.__code__.co_firstlineno + 1
    with pytest.raises(CaptureError, match=rf"test_effects\.py:{line}\b"):
        if training:
            ree.train(
                Apply(f), lambda m, b: m(b[0]).sum(), SGD(0.1), lambda s: (X,), 1, history=False
            )
        else:
            ree.compile(Apply(f).eval(), (X,))


def test_a_copy_is_changed_under_vmap():
    def first_is_five(r):
        r = r.clone()
        r[0] = 5
        return r

    def f(x):
        return torch.vmap(first_is_five)(x)

    got = ree.compile(Apply(f), (X,))(2 * X)
    assert torch.equal(got, f(2 * X))
