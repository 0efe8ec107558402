"""Python state that changes in a forward pass is noticed, and what stays as it is is let alone."""

import array
import contextvars
import itertools
import os
import random
import threading
import time
import weakref

import numpy as np
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


COUNT, CONTEXT = [0], contextvars.ContextVar("count", default=0)
LOCAL, BESIDE = threading.local(), weakref.WeakKeyDictionary()


class Kept:
    __slots__ = ("n",)

    def __init__(self):
        self.n = 0


def in_slots(m):
    m.kept.n += 1
    return m.kept.n


def in_context(m):
    CONTEXT.set(CONTEXT.get() + 1)
    return CONTEXT.get()


def in_thread(m):
    LOCAL.n = getattr(LOCAL, "n", 0) + 1
    return LOCAL.n


def beside(m):
    BESIDE[m] = BESIDE.get(m, 0) + 1
    return BESIDE[m]


def in_a_module_of_python(m):
    array.calls = getattr(array, "calls", 0) + 1
    return array.calls


def in_a_class(m):
    Kept.calls = getattr(Kept, "calls", 0) + 1
    return Kept.calls


def by_the_clock(m):
    return time.perf_counter_ns() % 1000


def in_a_file(m):
    m.path.write_text(m.path.read_text() + "x")
    return len(m.path.read_text())


HIDDEN = (in_slots, in_context, in_thread, beside, in_a_module_of_python, in_a_class, by_the_clock,
          in_a_file)  # fmt: skip


class Counted(torch.nn.Module):
    def __init__(self, number, path):
        super().__init__()
        self.number, self.path, self.kept = number, path, Kept()

    def forward(self, x):
        return x * self.number(self)


@pytest.mark.parametrize("number", HIDDEN)
def test_a_second_pass_finds_what_is_hidden(number, tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(ReeError, match=r"test_python_state\.py:\d+"):
        ree.compile(Counted(number, tmp_path / "f"), (X,))


def test_a_number_that_is_returned_and_a_path_that_is_taken():
    class Returned(torch.nn.Module):
        def forward(self, x):
            return x, in_thread(self)

    class Taken(torch.nn.Module):
        def forward(self, x):
            return x.sin() if in_thread(self) % 2 else x.cos()

    for module in (Returned(), Taken()):
        with pytest.raises(ReeError, match="second forward pass"):
            ree.compile(module, (X,))


def linear(register, hook):
    module = torch.nn.Linear(3, 3)
    getattr(module, register)(hook)
    return module


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
def test_hooks_count_as_the_forward_pass(root, register):
    calls = [0]

    def counts(module, x, y=None):
        calls[0] += 1
        return (x[0] if y is None else y) * calls[0]

    module = linear(register, counts)
    with pytest.raises(ReeError, match=r"test_python_state\.py:\d+"):
        ree.compile(module if root else torch.nn.Sequential(module), (X,))
    module = linear(register, lambda m, x, y=None: (x[0] if y is None else y) + 1)
    want = module(X)
    got = ree.compile(module if root else torch.nn.Sequential(module), (X,))(X)
    torch.testing.assert_close(got, want)
    assert module._forward_hooks or module._forward_pre_hooks


def globally(x):
    COUNT.append(1)
    return x * len(COUNT)


def randomly(x):
    return x * random.random()


def numpys(x):
    return x * np.random.rand()


@pytest.mark.parametrize("change", [globally, randomly, numpys, rename_home])
def test_the_line_is_told(change, monkeypatch):
    monkeypatch.setenv("REE_TEST_HOME", "here")
    line = change.__code__.co_firstlineno + 1
    with pytest.raises(ReeError, match=rf"test_python_state\.py:{line}\b"):
        ree.compile(Holder(X, change), (X,))
