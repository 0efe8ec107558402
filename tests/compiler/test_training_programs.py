"""Random training programs, trained here as by torch or refused for what they hold."""

from collections import Counter

import pytest
import torch

from . import random_training as programs
from . import training_faults as faults

SEEDS, EACH = 200, 10


@pytest.fixture(autouse=True)
def _one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.mark.parametrize("first", range(0, SEEDS, EACH))
def test_as_torch(first):
    """The first is run by ree.train, the others by the interpreter, which compiles nothing."""
    found = [programs.compare(first + i, compiled=i == 0) for i in range(EACH)]
    wrong = [str(x) for x in found if x.wrong]
    assert not wrong, "\n\n".join(wrong)
    assert sum(bool(x.refused) for x in found) <= EACH * 0.6


def test_every_construct_occurs():
    counts = Counter(c for seed in range(SEEDS) for c in programs.write(seed, 0).constructs)
    assert counts.keys() == programs.CONSTRUCTS.keys()
    assert min(counts.values()) >= 2, counts


FAULTS = {"no_grad": faults.no_grad_ignored, "detached": faults.detach_ignored,
          "hooked_module": faults.hooks_ignored, "running_mean": faults.buffers_dropped}  # fmt: skip


@pytest.mark.parametrize("construct", FAULTS)
def test_a_fault_is_seen(construct, monkeypatch):
    """One of the first programs with the construct goes wrong when it is not honoured."""
    FAULTS[construct](monkeypatch)
    seeds = [s for s in range(SEEDS) if construct in programs.write(s, 0).constructs][:8]
    assert any(programs.compare(s, compiled=False).wrong for s in seeds)
