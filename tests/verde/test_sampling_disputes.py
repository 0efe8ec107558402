"""Disputes about a drawn token: about the operators that `sample` is written out to."""

from functools import partial

import numpy as np

from ree.kernels import macro, opdef
from ree.kernels.opdef import Form
from ree.verde.game import Game
from ree.verde.party import play, run_of
from ree.verde.testing import dispute, program_of


def test_a_lie_in_any_value_loses():
    case = next(s for s in macro.get("sample").samples() if s.name == "18x64")
    program, _ = program_of("sample", case)
    run, instance = run_of(program, case.inputs)
    rng, played = np.random.default_rng(0), set()
    for v, n in enumerate(run.scope.producers):
        if opdef.get(n.op).form is not Form.MOVEMENT:
            assert dispute(run, instance, v, rng, partial(play, Game(run.scope))), n
            played.add(n.op)
    assert played >= {
        "div",
        "sort",
        "exp",
        "cast",
        "cumsum",
        "scatter",
        "uniform",
        "argmax",
        "where",
    }
