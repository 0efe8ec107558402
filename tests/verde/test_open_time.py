"""Disputes about a recurrent layer over an open time: about the steps that it is written out to."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import ree
from ree.cli import main
from ree.kernels import opdef
from ree.kernels.opdef import Form
from ree.runtime.hashing import hash_array
from ree.verde.fault import recompute
from ree.verde.game import Game
from ree.verde.party import play, run_of
from ree.verde.testing import dispute, open_time_program

TIME = 4


@pytest.fixture(scope="module")
def called():
    program = open_time_program()
    x = np.random.default_rng(1).standard_normal((TIME, 2, 12)).astype(np.float32)
    return program, x, *run_of(program, [x])


def test_a_lie_in_any_step_loses(called):
    _, _, run, instance = called
    rng, steps = np.random.default_rng(0), {}
    for v, n in enumerate(run.scope.producers):
        if opdef.get(n.op).form is not Form.MOVEMENT and "step" in n.origin.module:
            steps.setdefault((n.origin.module, n.op), v)
    assert len(steps) == 2 * TIME * 5  # linear, add, sigmoid, tanh, mul
    for v in steps.values():
        assert dispute(run, instance, v, rng, partial(play, Game(run.scope)))


def test_a_planted_bit_is_found_with_its_step(called, tmp_path, capsys):
    program, x, run, _ = called
    program.save(tmp_path / "m.ree")
    np.save(tmp_path / "x.npy", x)
    given = ["--inputs", str(tmp_path / "x.npy")]
    honest = str(tmp_path / "honest.trace")
    assert (
        main(["run", str(tmp_path / "m.ree"), *given, "--trace", honest, "--trace-level", "ops"])
        == 0
    )
    verify = ["verify", str(tmp_path / "m.ree"), *given, "--trace"]
    assert main([*verify, honest]) == 0
    value = next(v for v, n in enumerate(run.scope.producers)
                 if n.origin.module == "lstm backward, step 2" and n.op == "tanh")  # fmt: skip
    wrong = run.values[value].copy()
    wrong.reshape(-1).view(np.uint32)[3] ^= 1
    values = recompute(run, value, wrong).values
    trace = program.run(x, trace="ops").trace
    hashes = [h if h == bytes(32) else hash_array(values[v]) for v, h in enumerate(trace.values)]
    false = replace(trace, values=tuple(hashes))
    false.save(str(tmp_path / "false.trace"), {("value", v): a for v, a in values.items()})
    capsys.readouterr()
    assert main([*verify, str(tmp_path / "false.trace")]) == 1
    said = capsys.readouterr().out
    assert "lstm backward, step 2" in said
    assert "operator tanh" in said
    assert "1 ulp" in said
    assert main(["diff", honest, str(tmp_path / "false.trace")]) == 1
    assert "lstm backward, step 2" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "m.ree"), "--json"]) == 0
    said = capsys.readouterr().out
    assert '"lstm": 2' in said
    assert ree.load(tmp_path / "m.ree").program_hash.hex() in said
