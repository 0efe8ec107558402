"""Two training runs on disk, each served by a process, and the referee between them."""

import json
import signal

import pytest

pytest.importorskip("torch")
from ree.cli import main
from ree.training.directory import RunReader
from ree.verde.testing import TRAIN

STEPS, LIE = 9, 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "t.py").write_text(TRAIN)
    assert main(["train", str(folder / "t.py"), "-o", str(folder / "run"), "--steps", str(STEPS),
                 "--checkpoint-every", "4", "--threads", "1"]) == 0  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def fault(run):
    """A value of the forward pass, one of its operations, and the step."""
    graph = RunReader(run).step.instance.graph
    value = next(n.first for n in graph.nodes if n.op == "linear")
    return ("--fault", f"{value},0,5,0x100000", "--fault-step", str(LIE))


def dispute(capsys, run, defender, challenger, out):
    capsys.readouterr()
    code = main(["dispute", "--defender", defender, "--challenger", challenger, "--artifact", str(run),
                 "-o", str(out), "--json"])  # fmt: skip
    text, err = capsys.readouterr()
    return code, json.loads(text) if text else None, err


def test_a_false_step_is_found_between_processes(capsys, Served, run, fault, tmp_path):
    """Both ways, and the verdict holds for anyone who has the program."""
    before = {f: f.read_bytes() for f in run.rglob("*") if f.is_file()}
    honest, liar = Served(run), Served(run, *fault)
    try:
        for defender, challenger, code, winner in (
            (liar, honest, 1, "challenger"), (honest, liar, 0, "defender")
        ):  # fmt: skip
            out = tmp_path / winner
            got, data, err = dispute(capsys, run, defender.url, challenger.url, out)
            assert (got, data["winner"], data["reason"][:8]) == (code, winner, "executed"), err
            text = json.dumps(data["timeline"])
            assert f"step {LIE}" in text
            assert f"step {LIE - 1}:" not in text
            assert max(line["bytes"] for line in data["timeline"]) <= 64 << 10
            assert main(["verdict", str(out), "--artifact", str(run / "program")]) == 0
            assert main(["verdict", str(out), "--artifact", str(run)]) == 0
        code, data, err = dispute(capsys, run, honest.url, honest.url, tmp_path / "none")
        assert (code, data) == (2, None)
        assert "nothing to dispute" in err
    finally:
        honest.stop(signal.SIGKILL)
        liar.stop(signal.SIGKILL)
    assert {f: f.read_bytes() for f in run.rglob("*") if f.is_file()} == before


def test_faults_that_do_not_fit_a_run(capsys, run, fault):
    serve = ("party", "serve", str(run), "--port", "0")
    for more, want in (
        (fault[:2], "--fault-step"), (fault[2:], "--fault-step"),
        ((*fault[:3], "0"), f"a step of 1 to {STEPS}"), ((*fault[:3], "10"), f"a step of 1 to {STEPS}"),
        (("--fault", "9999,0,0", *fault[2:]), "value 9999"), (("--threads", "1"), "--threads"),
    ):  # fmt: skip
        assert main([*serve, *more]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert want in err
