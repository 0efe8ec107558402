"""Disputes over training runs through messages, referee and verdict files."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ree import optim
from ree.cli import main
from ree.errors import DisputeError
from ree.kernels.types import DType
from ree.training.directory import RunReader
from ree.training.step import compile_step
from ree.verde.fault import Fault
from ree.verde.messages import Terms, decode_terms, encode_terms
from ree.verde.moves import OpenStep
from ree.verde.referee import NothingToDispute, check_terms
from ree.verde.scope import ProgramScope
from ree.verde.service import run_service
from ree.verde.testing import TRAIN
from ree.verde.trained import Trained
from ree.verde.transcript import timeline
from ree.verde.verdict import Rules, check_verdict, decode_verdict, encode_verdict

STEPS, LIE = 20, 7


def batch(step):
    g = torch.Generator().manual_seed(step)
    return torch.randn(5, 6, generator=g), torch.randint(0, 3, (5,), generator=g)


@pytest.fixture(scope="module")
def step():
    torch.manual_seed(0)
    return compile_step(nn.Linear(6, 3), lambda model, b: functional.cross_entropy(model(b[0]), b[1]),
                        optim.AdamW(lr=1e-2), batch(1), seed=-7)  # fmt: skip


def service(step, fault=None):
    """A provider that lies in step LIE and goes on from there, or an honest one."""
    lie = None if fault is None else (LIE, fault)
    return Trained(step, batch, STEPS, lie, threads=1).service(-7)


@pytest.fixture(scope="module")
def parties(step):
    scope = ProgramScope(step.instance.graph)
    value = next(n.first for n in step.instance.graph.nodes
                 if n.op == "linear" and n.results[0].dtype is DType.F32)  # fmt: skip
    last = scope.derivation("values", value, 0).count - 1
    return service(step), service(step, Fault(value, 0, last, 1 << 20))


def test_a_false_step_through_the_referee(step, parties, referee_of):
    honest, liar = parties
    check_terms(liar.terms, honest.terms)
    with pytest.raises(NothingToDispute):
        check_terms(honest.terms, honest.terms)
    for defender, challenger, winner in ((liar, honest, "challenger"), (honest, liar, "defender")):
        r = referee_of(defender, challenger, rules=Rules(step.program, defender.terms))
        v = r.run()
        assert (v.winner, v.reason[:8]) == (winner, "executed")
        assert any(isinstance(m, OpenStep) for m in v.moves)
        assert decode_verdict(encode_verdict(v)) == (v, True)
        assert check_verdict(v, step.program).follows
        assert decode_terms(encode_terms(defender.terms)) == defender.terms
        text = "\n".join(map(str, timeline(r.transcript, r.rules.start(), r.rules.apply)))
        assert f"step {LIE}" in text


def test_a_statement_that_its_commitment_is_not_made_of(step, parties):
    honest, liar = parties
    t = honest.terms
    for bad in (Terms(t.statement, t.program, (), t.commitment, 5),
                Terms(liar.terms.statement, t.program, (), t.commitment, t.seed)):  # fmt: skip
        with pytest.raises(DisputeError, match="commitment"):
            Rules(step.program, bad)


def test_a_run_is_not_a_call(step, parties, honest, program):
    run = parties[0].terms
    with pytest.raises(DisputeError):
        check_terms(run, honest.terms)
    call = Terms(honest.terms.statement, run.program, (), run.commitment)
    with pytest.raises(DisputeError):
        Rules(step.program, call)


def test_a_run_on_disk(tmp_path):
    (tmp_path / "t.py").write_text(TRAIN)
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "t.py"), "-o", str(run), "--steps", "8", "--checkpoint-every", "3",
                 "--threads", "1"]) == 0  # fmt: skip
    s = run_service(run)
    assert s.terms.commitment == RunReader(run).history.commitment
    start = Rules(RunReader(run).step.program, s.terms).start()
    assert s.party.move(start) is not None
    for n in (1, 3, 4, 8):
        party = s.party.party(n)
        assert party.statement.outputs == RunReader(run).records[n - 1].state_root
