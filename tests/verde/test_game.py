"""The dispute game over every operator: a consistent liar loses by execution, the honest win."""

from functools import partial

import numpy as np
import pytest

from ree.verde.fault import FaultyParty, MaskedFault
from ree.verde.game import Game
from ree.verde.party import play, run_of
from ree.verde.testing import (
    dispute_samples,
    inner_faults,
    last_fault,
    operators,
    program_of,
    samples,
)

RARE = {"cast", "eq", "ne"}  # in few samples of these a lie before the last operation shows
SINGLE = {"cat", "full", "iota", "pad"}  # an element of these is one operation


@pytest.mark.parametrize("op", operators())
def test_a_liar_loses_by_execution(op):
    many = 3 if op in RARE else 2
    found = dispute_samples(op, many, lambda run, instance: partial(play, Game(run.scope)))
    assert found
    for sample, lies in found:
        assert lies, f"no lie about {sample.name}"
        assert not lies[0].inner
    assert any(x.inner for _, lies in found for x in lies) == (op not in SINGLE)


def test_a_fault_that_changes_nothing_is_no_lie():
    sample = next(s for s in samples("maximum", 1000) if s.inputs[0].size > 4)
    program, _ = program_of("maximum", sample)
    run, instance = run_of(program, sample.inputs)
    honest = run.values[0].tobytes()
    rng, vanished = np.random.default_rng(1), 0
    for fault in inner_faults(run.scope, 0, rng):
        try:
            assert FaultyParty(run, fault, instance.digest).run.values[0].tobytes() != honest
        except MaskedFault:
            vanished += 1
    assert vanished
    seen = FaultyParty(run, last_fault(run.scope, 0, 3), instance.digest).run.values[0]
    assert seen.tobytes() != honest
