"""Sessions misused: states given as inputs, wrong arguments, two threads, states that are not there."""

import copy
import hashlib
import json
import pickle
import threading

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import ree
from ree.cli import main
from ree.errors import ArtifactError, CaptureError, InputError
from ree.program import Program
from ree.runtime.session import Session


class Pair(torch.nn.Module):
    """Two states of one type, of which the first is read again after its input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.arange(4.0))
        self.register_buffer("b", torch.ones(4))

    def forward(self, x):
        self.a.add_(x)
        self.b.copy_(self.b.flip(0) + x)
        return self.a * 2 + self.b + x


@pytest.mark.parametrize("i", range(2))
def test_a_state_given_as_an_input_is_read_before_it_changes(i):
    session = ree.Session(ree.compile(Pair(), (torch.ones(4),), states=True))
    assert session.in_place == {0}
    for _ in range(3):  # the buffers of b change places
        module = Pair()
        session.load([module.a.numpy(), module.b.numpy()])
        given = session.state[i][:]
        want = module(torch.from_numpy(given.copy()))
        assert session.run(given).outputs[0].tobytes() == want.numpy().tobytes()
        assert session.state[0].tobytes() == module.a.numpy().tobytes()
        want = module(torch.from_numpy(given.copy()))  # of b, what is its other buffer now
        assert session.run(torch.from_numpy(given)).outputs[0].equal(want)


def test_states_are_loaded_from_each_other():
    session = ree.Session(ree.compile(Pair(), (torch.ones(4),), states=True))
    a, b = (x.tobytes() for x in session.state)
    session.load([*reversed(session.state)])
    assert [x.tobytes() for x in session.state] == [b, a]
    session.load({"a": session.states["b"][::-1], "b": session.states["a"]})
    assert session.state[0].tolist() == [3, 2, 1, 0]
    assert session.state[1].tobytes() == b


def test_what_is_no_state_yet_is_neither_shown_nor_traced():
    program = ree.compile(Pair(), (torch.ones(4),), states=True)
    session = Session(Program(program.graph, program.names, program.weights))
    for ask in (
        lambda: session.state,
        lambda: session.states,
        lambda: session.trace(torch.ones(4)),
    ):
        with pytest.raises(InputError, match="there is no state yet"):
            ask()
    for nothing in ({}, [], ()):
        with pytest.raises(InputError, match="state"):
            Session(program, nothing)


def test_one_thread_at_a_time():
    session = ree.Session(ree.compile(Pair(), (torch.ones(4),), states=True))
    kept = [x.copy() for x in session.state]
    tries = (
        lambda: session(torch.ones(4)),
        lambda: session.load(kept),
        lambda: session.trace(torch.ones(4)),
    )
    found = []

    def meanwhile(_):
        for ask in tries:
            with pytest.raises(InputError, match="another thread"):
                ask()
            found.append(ask)

    def look(outputs):
        t = threading.Thread(target=meanwhile, args=(outputs,))
        t.start()
        t.join(20)

    session.advance([np.ones(4, np.float32)], look)
    assert len(found) == 3
    for ask in tries:
        ask()


BAD = ["abc", 5, np.zeros(3), torch.zeros(3), iter(()), {1, 2}, [None, None], {"a": [[1], [1, 2]], "b": 1},
       [torch.zeros(4, device="meta"), torch.ones(4)], [torch.zeros(4).to_sparse(), torch.ones(4)]]  # fmt: skip


def test_arguments_that_do_not_fit_are_refused_with_what_is_expected():
    program = ree.compile(Pair(), (torch.ones(4),), states=True)
    for make in (
        *(lambda bad=bad: ree.Session(program, bad) for bad in BAD),
        *(lambda bad=bad: ree.Session(program).load(bad) for bad in (*BAD, None)),
        *(lambda bad=bad: ree.Session(bad) for bad in (None, 5, "m.ree", Pair())),
        *(
            lambda bad=bad: ree.Session(program, capacity=bad)
            for bad in (5, "s0", ["s0"], {"s0": 3})
        ),
        *(lambda bad=bad: ree.Session(program, commit_after=bad) for bad in ("x", 3, -1, True)),
    ):
        with pytest.raises(InputError, match=r"expected|unknown|missing|no file"):
            make()
    session = ree.Session(program)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(InputError, match="cannot be copied or pickled"):
            copied(session)


def test_with_states_the_input_that_changes_is_named():
    class Writes(Pair):
        def forward(self, x):
            x.add_(1)
            self.a.add_(x)
            return self.a * 2

    with pytest.raises(CaptureError, match="changes input 'x'") as caught:
        ree.compile(Writes(), (torch.ones(4),), states=True)
    assert caught.value.hint == "return the new value instead of assigning it"


@pytest.fixture
def artifact(tmp_path):
    ree.compile(Pair(), (torch.ones(4),), states=True).save(tmp_path / "m.ree")
    return tmp_path / "m.ree"


def listed(d, **members):
    """The manifest with members replaced and the states' file listed as it is now."""
    manifest = json.loads((d / "manifest.json").read_text())
    data = (d / "states.safetensors").read_bytes()
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["files"]["states.safetensors"] = entry
    (d / "manifest.json").write_text(json.dumps(manifest | members))


A, B = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
NAN = np.array([0x7FC00001, 0, 0, 0], np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"a": A}, "state 'b' is missing"),
        ({"a": A, "b": B, "c": B}, "tensor 'c' is of nothing"),
        ({"a": A.astype(np.int32), "b": B}, "state 'a': expected f32"),
        ({"a": A[:3], "b": B}, "state 'a': expected f32"),
        ({"a": A.astype(np.float64), "b": B}, "tensor 'a': dtype"),
        ({"a": NAN, "b": B}, "state 'a': its bits are not canonical"),
    ],
)
def test_states_of_an_artifact_that_do_not_fit(artifact, tensors, says, capsys):
    save_file(tensors, artifact / "states.safetensors")
    listed(artifact)
    with pytest.raises(ArtifactError, match=says):
        ree.load(artifact)
    capsys.readouterr()
    assert main(["inspect", str(artifact)]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("names", [[], ["a"], ["b", "a"], ["a", "a"], ["a", "b", "c"], {"a": 1}])
def test_names_of_states_that_do_not_fit(artifact, names):
    listed(artifact, states=names)
    with pytest.raises(ArtifactError, match=r"state|files"):
        ree.load(artifact)


def test_a_size_that_a_manifest_makes_up_takes_no_memory(artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["files"]["states.safetensors"]["bytes"] = 1 << 40
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=f"expected {1 << 40} bytes, got"):
        ree.load(artifact)


def test_states_are_shown_and_what_is_not_listed_is_not_read(artifact, capsys):
    assert main(["inspect", str(artifact), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["states"] == {"a": "f32[4]", "b": "f32[4]"}
    manifest = json.loads((artifact / "manifest.json").read_text())
    del manifest["files"]["states.safetensors"]
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    session = ree.Session(ree.load(artifact))
    with pytest.raises(InputError, match="there is no state yet"):
        session(torch.ones(4))


class Copies(torch.nn.Module):
    def __init__(self, write, dtype):
        super().__init__()
        self.register_buffer("c", torch.zeros(4, dtype=dtype))
        self.write = write

    def forward(self, x):
        self.write(self.c, x)
        return x + self.c.float(), self.c[:2].sum()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.float32])
@pytest.mark.parametrize(
    "write",
    [
        lambda c, x: c.copy_(x),
        lambda c, x: c.copy_(x.sum()),
        lambda c, x: c.copy_(x[:1]),
        lambda c, x: c.__setitem__(slice(None), x),
        lambda c, x: c.add_(1).copy_(x * 3),
        lambda c, x: c.copy_(x).add_(c),
        lambda c, x: c[1:3].copy_(x[:2]),
    ],
)
def test_what_is_copied_into_a_state_has_its_type(write, dtype):
    """torch's export takes what is copied last for the new value, unconverted."""
    model = Copies(write, dtype)
    x = torch.tensor([1.001, 2.003, 3.7, 4.9])
    session = ree.Session(ree.compile(Copies(write, dtype), (x,), states=True), threads=1)
    for k in range(3):
        for ours, theirs in zip(session(x + k), model(x + k), strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
