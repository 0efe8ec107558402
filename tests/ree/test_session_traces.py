"""Traces of sessions: made and verified from files, on any instruction set, from the state before the run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import ree
from ree import _core
from ree.cli import main
from ree.errors import InputError, ReeError
from ree.runtime.hashing import hash_array
from ree.traces.trace import is_moved
from ree.training.loop import run_steps


class Cache(torch.nn.Module):
    """Rows written at places, a counter of another type, and a query of all rows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(6, 4))
        self.register_buffer("coarse", torch.zeros(4, dtype=torch.bfloat16))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.project = torch.nn.Linear(4, 4)

    def forward(self, x, places):
        self.rows.index_copy_(0, places, self.project(x))
        self.coarse.copy_(self.rows.mean(0).to(torch.bfloat16))
        self.count.add_(places.shape[0])
        return torch.softmax(x @ self.rows.T, -1) @ self.rows + self.coarse.float()


def inputs(k):
    g = torch.Generator().manual_seed(k)
    return torch.randn(2, 4, generator=g), torch.randperm(6, generator=g)[:2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An artifact; files of the third run of a session of it: the state before, the inputs, the trace."""
    d = tmp_path_factory.mktemp("session")
    torch.manual_seed(0)
    program = ree.compile(Cache().eval(), inputs(0), states=True)
    program.save(d / "m.ree")
    session = ree.Session(program, threads=1)
    session.trace(*inputs(0)).save(d / "first.trace")
    for k in (0, 1):
        session(*inputs(k))
    session.save(d / "before.safetensors")
    trace = session.trace(*inputs(2))
    trace.save(d / "third.trace")
    x, places = inputs(2)
    save_file({"x": x.numpy(), "places": places.numpy()}, d / "in.safetensors")
    session(*inputs(2))
    session.save(d / "after.safetensors")
    return d


def third(d):
    return ("--state", d / "before.safetensors", "--inputs", d / "in.safetensors")


def says(capsys, *args, code=0):
    capsys.readouterr()
    assert main([str(a) for a in args]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if code == 2:
        assert out == ""
        assert err.startswith("error: ")
        assert len([x for x in err.splitlines() if not x.startswith("hint:")]) == 1, err
    return out + err


def verify(capsys, d, trace, *args, code=0):
    return says(capsys, "verify", d / "m.ree", "--trace", trace, *args, code=code)


def test_a_session_is_verified_from_files(made, capsys, monkeypatch):
    root = ree.load_trace(made / "third.trace").root.hex()
    for isa in _core.isa_names():
        monkeypatch.setenv("REE_FORCE_ISA", isa)
        for threads in (1, 2):
            said = verify(capsys, made, made / "third.trace", *third(made), "--threads", threads)
            assert said == f"same: root {root} (ops)\n"


def test_the_first_run_begins_with_the_states_of_the_program(made, capsys):
    verify(capsys, made, made / "first.trace")
    assert ree.verify(str(made / "m.ree"), made / "first.trace").same


def test_in_python_states_are_given_as_a_session_takes_them(made):
    program = ree.load(made / "m.ree")
    session = ree.Session(program, made / "before.safetensors")
    for state in (made / "before.safetensors", session.states, session.state):
        assert ree.verify(program, made / "third.trace", inputs(2), state=state).same
    assert ree.verify(program, session.trace(*inputs(2)), inputs(2), state=session.states)
    x, places = inputs(2)
    named = {"x": x, "places": places}
    assert ree.verify(program, made / "third.trace", named, state=session.states, isa="portable")


def test_states_are_kept_in_a_file(made, tmp_path):
    program = ree.load(made / "m.ree")
    session = ree.Session(program, str(made / "before.safetensors"))
    session(*inputs(2))
    session.save(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == (made / "after.safetensors").read_bytes()
    again = ree.Session(program)
    again.load(tmp_path / "s")
    assert [x.tobytes() for x in again.state] == [x.tobytes() for x in session.state]
    with pytest.raises(ReeError, match="cannot write"):
        session.save(tmp_path / "none" / "s")


def test_a_trace_is_made_from_files(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REE_FORCE_ISA", "portable")
    said = says(capsys, "trace", made / "m.ree", *third(made), "-o", tmp_path / "t", "--json")
    root = ree.load_trace(made / "third.trace").root.hex()
    assert json.loads(said)["root"] == root
    says(capsys, "diff", made / "third.trace", tmp_path / "t")
    assert verify(capsys, made, tmp_path / "t", *third(made)) == f"same: root {root} (ops)\n"
    says(capsys, "trace", made / "m.ree", *third(made), "-o", tmp_path / "u", "--max-values", 0)
    assert (tmp_path / "u").stat().st_size < (tmp_path / "t").stat().st_size
    says(capsys, "trace", made / "m.ree", "-o", tmp_path / "first")
    says(capsys, "diff", made / "first.trace", tmp_path / "first")


def test_level_io(made, tmp_path, capsys):
    trace = ree.load_trace(made / "third.trace").at_io_level()
    trace.save(tmp_path / "io")
    assert "(io)" in verify(capsys, made, tmp_path / "io", *third(made))
    outputs = (*trace.outputs[:-1], bytes(32))
    replace(trace, outputs=outputs).save(tmp_path / "io")
    assert "output 3 differs" in verify(capsys, made, tmp_path / "io", *third(made), code=1)


@pytest.mark.parametrize("kind", ["outputs", "values"])
def test_a_false_claim_differs(made, tmp_path, capsys, kind):
    trace = ree.load_trace(made / "third.trace")
    for i, h in enumerate(getattr(trace, kind)):
        if is_moved(h):
            continue
        hashes = list(getattr(trace, kind))
        hashes[i] = bytes([h[0] ^ 1]) + h[1:]
        replace(trace, **{kind: tuple(hashes)}).save(tmp_path / "false")
        said = verify(capsys, made, tmp_path / "false", *third(made), code=1)
        assert (f"output {i}" if kind == "outputs" else f"value: %{i}\n") in said


def test_the_element_is_named(made, tmp_path, capsys):
    says(capsys, "trace", made / "m.ree", *third(made), "-o", tmp_path / "t")
    from ree.files.traces import read_trace_file

    file = read_trace_file(tmp_path / "t")
    tensors = {key: file.tensors[key].copy() for key in file.tensors}
    v = next(i for kind, i in tensors if kind == "value" and tensors[kind, i].dtype == np.float32)
    tensors["value", v].view(np.uint32).reshape(-1)[1] ^= 1
    values = list(file.trace.values)
    values[v] = hash_array(tensors["value", v])
    replace(file.trace, values=tuple(values)).save(tmp_path / "lie", tensors)
    said = verify(capsys, made, tmp_path / "lie", *third(made), code=1)
    assert "test_session_traces.py:" in said
    assert "1 ulp; 1 of" in said


def test_a_state_that_is_not_the_one_before_the_run(made, tmp_path, capsys):
    """It says nothing of the claim, so it is an error and not a difference."""
    given = ("--inputs", made / "in.safetensors")
    assert "state 'coarse': expected" in verify(capsys, made, made / "third.trace", *given, code=2)
    after = (*given, "--state", made / "after.safetensors")
    assert "with which the run began" in verify(capsys, made, made / "third.trace", *after, code=2)
    program = ree.load(made / "m.ree")
    with pytest.raises(InputError, match="state 'coarse': expected"):
        ree.verify(program, made / "third.trace", inputs(2))
    # inputs that are not the run's are a difference, as for programs without states
    state = ("--state", made / "before.safetensors")
    assert "input 3 differs" in verify(capsys, made, made / "third.trace", *state, code=1)


def test_of_another_program(made, tmp_path, capsys):
    torch.manual_seed(1)
    other = ree.compile(torch.nn.Linear(4, 4), (torch.ones(2, 4),))
    other.run(torch.ones(2, 4), trace="ops").trace.save(tmp_path / "t")
    assert "program: trace" in verify(capsys, made, tmp_path / "t", code=1)
    other.save(tmp_path / "other.ree")
    state = ("--state", made / "before.safetensors")
    said = says(capsys, "verify", tmp_path / "other.ree", "--trace", tmp_path / "t", *state, code=2)
    assert "state: the program has none" in said
    said = says(capsys, "trace", tmp_path / "other.ree", "-o", tmp_path / "u", code=2)
    assert "has no states" in said


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (None, "no file"),
        (b"", "holds no readable states: the file is empty"),
        (b"\x80\x04K\x01.", "holds no readable states"),
        ({"rows": np.zeros((6, 4), np.float32)}, "state 'coarse': missing"),
        ({"rows": np.zeros((6, 5), np.float32)}, "state 'rows': expected f32[6,4], got float32[6, 5]"),
        ({"rows": np.zeros((6, 4), np.int32)}, "state 'rows': expected f32[6,4], got int32[6, 4]"),
        ({"more": np.zeros(1, np.float32)}, "state 'more': unknown"),
    ],
)  # fmt: skip
def test_files_that_hold_no_state_of_the_program(made, tmp_path, capsys, tensors, message):
    path = tmp_path / "state"
    if isinstance(tensors, bytes):
        path.write_bytes(tensors)
    elif tensors is not None:
        whole = ree.Session(ree.load(made / "m.ree")).states
        if "missing" not in message:
            tensors = whole | tensors
        from ree.files.safetensors import write_tensors

        write_tensors(path, tensors)
    said = verify(capsys, made, made / "third.trace", "--state", path, code=2)
    assert message in said
    said = says(capsys, "trace", made / "m.ree", "--state", path, "-o", tmp_path / "t", code=2)
    assert message in said
    assert not (tmp_path / "t").exists()


def test_options_that_are_of_something_else(made, tmp_path, capsys):
    out = ("-o", tmp_path / "t")
    for option in (("--step", 1), ("--script", "x.py")):
        said = says(capsys, "trace", made / "m.ree", *option, *out, code=2)
        assert f"{option[0]} is for a training run" in said
    said = verify(capsys, made, made / "third.trace", *third(made), "--device", "interpret", code=2)
    assert "runs on the CPU" in said
    assert not (tmp_path / "t").exists()


def test_a_step_of_training_from_its_checkpoint(tmp_path, capsys):
    from ree import optim
    from ree.training.step import compile_step

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    batch = (torch.ones(2, 3), torch.zeros(2, 2))
    loss = lambda m, b: torch.nn.functional.mse_loss(m(b[0]), b[1])  # noqa: E731
    step = compile_step(model, loss, optim.SGD(0.1), batch)
    step.save(tmp_path / "step.ree")
    run_steps(step, lambda _: batch, 3, run=tmp_path / "run", checkpoint_every=2)
    says(capsys, "trace", tmp_path / "run", "--step", 3, "-o", tmp_path / "t")
    args = ["verify", tmp_path / "step.ree", "--trace", tmp_path / "t"]
    save_file(dict(zip(step.names.inputs, (b.numpy() for b in batch), strict=True)), tmp_path / "b")
    said = says(capsys, *args, "--inputs", tmp_path / "b", code=2)
    assert "does not say what its states are at first" in said
    state = next((tmp_path / "run" / "checkpoints").glob("*2.safetensors"))
    says(capsys, *args, "--inputs", tmp_path / "b", "--state", state)
    for option in (("--state", state), ("--inputs", tmp_path / "b"), ("--max-values", 1)):
        said = says(capsys, "trace", tmp_path / "run", *option, "-o", tmp_path / "u", code=2)
        assert f"{option[0]} is for an artifact" in said
    assert "--step S" in says(capsys, "trace", tmp_path / "run", "-o", tmp_path / "u", code=2)
    said = says(capsys, "verify", tmp_path / "run", "--state", state, code=2)
    assert "without --trace, --inputs and --state" in said
