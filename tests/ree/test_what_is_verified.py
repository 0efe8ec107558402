"""What verification covers: checkpoints, batches, carried tensors, values behind equal outputs."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import ree
from ree.cli import main
from ree.compiler.ir import Graph
from ree.errors import PlatformError
from ree.verde.fault import Fault
from ree.verde.party import Run, run_of
from ree.verde.referee import NothingToDispute, Referee, check_terms
from ree.verde.scope import INPUTS, OUTPUTS, VALUES
from ree.verde.service import Local, make_service, service_of
from ree.verde.transcript import Header, Transcript
from ree.verde.verdict import Rules, check_verdict

TRAIN = """
import torch
from ree import optim
model = lambda: torch.nn.Linear(2, 1)
loss = lambda m, b: m(b[0]).mean()
optimizer = lambda: optim.SGD(0.1)
batch = lambda s: (torch.ones(4, 2),)
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "t.py").write_text(TRAIN)
    args = ["train", str(tmp_path / "t.py"), "-o", str(tmp_path / "r.run")]
    assert main([*args, "--steps", "4", "--checkpoint-every", "2"]) == 0
    return tmp_path / "r.run"


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x40
    path.write_bytes(raw)


@pytest.mark.parametrize("steps", ["all", "4", "1:4"])
@pytest.mark.parametrize("name", ["checkpoints/00000004", "checkpoints/00000000", "checkpoints/00000002",
                                  "batches/00000004"])  # fmt: skip
def test_an_altered_file_of_a_replayed_step_is_not_the_same(run, steps, name):
    chosen = [] if steps == "all" else ["--steps", steps]
    assert main(["verify", str(run), *chosen]) == 0
    flip(run / f"{name}.safetensors", -5)
    begins = 2 if steps == "4" else 0  # the replay of step 4 alone begins at checkpoint 2
    covered = not (name == "checkpoints/00000000" and begins)
    if covered:
        assert main(["verify", str(run), *chosen]) in (1, 2)


def test_a_report_is_as_true_as_its_finding():
    x = torch.ones(1, 2)
    p = ree.compile(nn.Linear(2, 2), (x,))
    trace = p.run(x, trace="ops").trace
    assert ree.verify(p, trace, (x,))
    assert not ree.verify(p, trace, (x + 1,))


def test_bfloat16_is_verified():
    x = torch.ones(1, 2).bfloat16()
    p = ree.compile(nn.Linear(2, 2).bfloat16(), (x,))
    assert ree.verify(p, p.run(x, trace="ops").trace, (x,)).same


def test_a_carried_tensor_that_is_not_committed_is_said_and_never_shown(tmp_path, capsys):
    from ree.files.traces import read_trace_file

    x = torch.ones(1, 2)
    p = ree.compile(nn.Linear(2, 2), (x,))
    p.save(str(tmp_path / "m.ree"))
    good, bad = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["run", str(tmp_path / "m.ree"), "--trace", good, "--trace-level", "ops"]) == 0
    file = read_trace_file(good)
    tensors = {k: np.array(v) for k, v in file.tensors.items()}
    tensors["output", 0][0, 0] = 1234.5
    file.trace.save(bad, tensors)
    assert main(["diff", good, good]) == 0
    capsys.readouterr()
    assert main(["diff", good, bad]) == 1
    said = capsys.readouterr().out
    assert "right output 0: the tensor carried is not the one" in said and "1234" not in said  # noqa: PT018
    assert main(["inspect", bad]) == 0
    assert "output 0" in capsys.readouterr().out


def negative():
    """A program whose outputs hide every small change of its first value."""
    m = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    with torch.no_grad():
        m[0].bias.fill_(-9.0)
    return ree.compile(m, (torch.ones(1, 4),))


def in_dispute(p, defender, challenger):
    check_terms(defender.terms, challenger.terms)
    transcript = Transcript(Header(defender.terms, challenger.terms, 60_000_000, 60_000_000))
    ways = {"defender": Local(defender), "challenger": Local(challenger)}
    verdict = Referee(Rules(p, defender.terms), transcript, ways).run()
    assert check_verdict(verdict, p).follows
    return verdict.winner, verdict.reason[:8]


def test_a_false_value_behind_equal_outputs_loses():
    p = negative()
    honest = make_service(p, p.examples)
    last = honest.party.run.scope.derivation(VALUES, 0, 1).count - 1
    liar = make_service(p, p.examples, Fault(0, 1, last, 1 << 12))
    assert liar.terms.statement == honest.terms.statement  # its outputs are the true ones
    assert in_dispute(p, liar, honest) == ("challenger", "executed")
    assert in_dispute(p, honest, liar) == ("defender", "executed")
    with pytest.raises(NothingToDispute):
        check_terms(honest.terms, honest.terms)


def test_a_false_value_that_contradicts_true_ones_loses():
    """The defender commits to one false value among true ones, whatever would follow from it."""
    p = negative()
    run, instance = run_of(p, list(p.examples.values()))
    honest = service_of(p, run, instance, {})
    for v, x in run.values.items():
        false = np.array(x)
        false.reshape(-1).view(np.uint32)[1] ^= 1
        lie = Run(run.graph, run.arrays[INPUTS], p.weights, {**run.values, v: false},
                  outputs=run.arrays[OUTPUTS])  # fmt: skip
        liar = service_of(p, lie, instance, {})
        assert liar.terms.statement == honest.terms.statement
        assert in_dispute(p, liar, honest)[0] == "challenger"
        assert in_dispute(p, honest, liar)[0] == "defender"


def test_exit_1_is_a_finding_alone(monkeypatch, capsys):
    from ree.cli import doctor

    def broken(args):
        raise AssertionError("a fault\nof ours")

    monkeypatch.setattr(doctor, "run", broken)
    assert main(["doctor"]) == 70
    assert "internal error: AssertionError: a fault of ours" in capsys.readouterr().err


def test_a_verdict_without_stdout_keeps_its_exit_code(tmp_path):
    x = torch.ones(1, 2)
    p = ree.compile(nn.Linear(2, 2), (x,))
    p.save(str(tmp_path / "m.ree"))
    assert main(["run", str(tmp_path / "m.ree"), "--trace", str(tmp_path / "t")]) == 0
    cli = f"'{sys.executable}' -P -m ree.cli verify m.ree --trace t"
    done = subprocess.run(f"{cli} >&-", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_binding_lists_the_types_a_fixed_number_of_times(monkeypatch):
    calls, inner = [0], Graph.value_types

    def counted(self):
        calls[0] += 1
        return inner(self)

    p = ree.compile(nn.LSTM(4, 4, batch_first=True), (torch.ones(1, 16, 4),))
    monkeypatch.setattr(Graph, "value_types", counted)
    p.instance({})
    assert calls[0] < 10 < len(p.graph.nodes)


class Moves(nn.Module):
    def forward(self, x):
        for _ in range(400):
            x = x.flip(0).t()
        return x + 1


def test_a_long_chain_of_moves_does_not_recurse():
    x = torch.arange(9.0).reshape(3, 3)
    p = ree.compile(Moves(), (x,))
    assert torch.equal(p(x), Moves()(x))
    assert ree.verify(p, p.run(x, trace="ops").trace, (x,))


def test_threads_that_cannot_start_are_an_error(monkeypatch):
    from ree import _core
    from ree.runtime import settings

    def refuse(n):
        raise RuntimeError("Resource temporarily unavailable")

    monkeypatch.setattr(_core, "Pool", refuse)
    with pytest.raises(PlatformError, match="cannot start 777 threads"):
        settings.pool(777)
