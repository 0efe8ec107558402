"""Python state that changes in a forward pass is noticed, and what stays as it is is let alone."""

import array
import itertools
import os

import pytest
import torch

import ree
from ree import ReeError

X = torch.ones(2, 3)


def rename_home(_):
    os.environ["REE_TEST_HOME"] = str(len(os.environ.get("REE_TEST_HOME", "")))


STATES = {
    "a list's iterator": (lambda: iter([1, 2, 3, 4]), next),
    "a range's iterator": (lambda: iter(range(9)), next),
    "count": (itertools.count, next),
    "cycle": (lambda: itertools.cycle("ab"), next),
    "zip": (lambda: zip([1, 2, 3], [4, 5, 6], strict=True), next),
    "a generator": (lambda: (i for i in range(9)), next),
    "bytes": (lambda: bytearray(b"a"), lambda held: held.append(1)),
    "an array": (lambda: array.array("d", [1.0]), lambda held: held.append(2.0)),
    "the environment": (lambda: None, rename_home),
}


class Holder(torch.nn.Module):
    def __init__(self, held, do):
        super().__init__()
        self.held, self.do = held, do

    def forward(self, x):
        self.do(self.held)
        return x + 1


@pytest.mark.parametrize("name", STATES)
def test_what_changes_is_refused(name, monkeypatch):
    monkeypatch.setenv("REE_TEST_HOME", "here")
    make, change = STATES[name]
    with pytest.raises(ReeError, match="changes in the forward pass"):
        ree.compile(Holder(make(), change), (X,))
    assert torch.equal(ree.compile(Holder(make(), lambda _: None), (X,))(X), X + 1)
