"""What people expect of the command line and of Python: files of inputs, options, errors, names, printing."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

import ree
from ree import errors
from ree.cli import demo, diff, job, main, run, verify
from ree.errors import InputError, ReeError, UnsupportedError
from ree.printable import printable

X = torch.arange(3.0).view(1, 3)
EVIL = "y\x1b[2J\x9b\u202e\u2028\nsame: root 00"


class Two(torch.nn.Module):
    def forward(self, trace, threads):
        return trace * 2 + threads


@pytest.fixture(scope="module")
def program():
    return ree.compile(Two(), (X, X + 1))


@pytest.fixture
def here(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program.save("m.ree")
    return tmp_path


def npy(x, **options):
    f = io.BytesIO()
    np.save(f, x, **options)
    return f.getvalue()


def fails(capsys, *args):
    capsys.readouterr()
    assert main([*args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len([x for x in err.splitlines() if not x.startswith("hint: ")]) == 1, err
    return err


def test_inputs_come_in_every_usual_file(here, program, capsys, monkeypatch):
    from safetensors.numpy import save_file

    arrays = {"trace": X.numpy() + 5, "threads": X.numpy()}
    want = np.asarray(arrays["trace"] * 2 + arrays["threads"])
    save_file(arrays, "a.safetensors")
    np.savez("b.npz", **arrays)
    np.savez_compressed(
        "c.npz", trace=np.asfortranarray(arrays["trace"]), threads=arrays["threads"]
    )
    (here / "d.json").write_text(json.dumps({k: v.tolist() for k, v in arrays.items()}))
    for name in ("a.safetensors", "b.npz", "c.npz", "d.json"):
        assert main(["run", "m.ree", "--inputs", name, "-o", "o"]) == 0
        np.testing.assert_array_equal(load("o")["output0"], want)

        class Piped:
            buffer = io.BytesIO((here / name).read_bytes())

        monkeypatch.setattr(sys, "stdin", Piped)
        assert main(["run", "m.ree", "--inputs", "-", "-o", "p"]) == 0
        assert (here / "p").read_bytes() == (here / "o").read_bytes()
        assert ree.verify(program, program.run_named(arrays, trace="io"), here / name)


def load(path):
    from safetensors.numpy import load_file

    return load_file(path)


def test_one_array_is_the_only_input(here, capsys):
    ree.compile(torch.nn.Tanh(), (X,)).save("one.ree")
    (here / "x.npy").write_bytes(npy(X.numpy()))
    assert main(["run", "one.ree", "--inputs", "x.npy"]) == 0
    assert "the program has the inputs trace, threads" in fails(
        capsys, "run", "m.ree", "--inputs", "x.npy"
    )


def test_hostile_inputs_are_refused(here, capsys):
    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    x = npy(X.numpy())
    head = x.index(b"(1, 3)")
    huge = x[:head] + b"(9,9999999999,999)"[:6] + x[head + 6 :]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w") as z:
        z.writestr("trace.npy", x.replace(b"(1, 3), }", b"(1<<40,)}"))
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as z:
        z.writestr("trace.npy", x)
        z.writestr("trace", x)
    files = {
        "object": npy(np.array([Evil()], object), allow_pickle=True), "cut": x[:-1], "more": x + b"\0",
        "huge": huge, "bomb": bomb.getvalue(), "twice": twice.getvalue(), "zip": b"PK\x03\x04" + b"x" * 99,
        "magic": b"\x93NUMPY\x09\x09", "text": b"hello", "json": b'{"trace": ', "list": b"[1]", "empty": b"",
        "nan": b'{"trace": NaN}', "keys": b'{"trace": 1, "trace": 2}', "deep": b'{"a":' * 99,
        "text in json": b'{"trace": "x", "threads": [[1,2,3]]}', "ragged": b'{"trace": [[1],2], "threads": 1}',
        "uint16": npy(X.numpy().astype(np.uint16)), "f64": npy(X.numpy().astype("U3")),
    }  # fmt: skip
    for name, data in files.items():
        (here / name).write_bytes(data)
        assert "executed" not in fails(capsys, "run", "m.ree", "--inputs", name), name
    fails(capsys, "run", "m.ree", "--inputs", ".")
    fails(capsys, "run", "m.ree", "--inputs", "absent")


@pytest.mark.parametrize(
    "args",
    [
        "run m.ree --trace-level ops", "run m.ree --max-values 3", "run m.ree -o x --trace x",
        "verify m.ree --trace t --seed 3", "diff t t --threads 2", "demo dispute m.ree --training",
        "demo dispute --inputs x", "job post name --rpc u --court c --artifact m.ree --terms t",
        "job status name --rpc u --court c --artifact m.ree", "job claim name --rpc u --court c --watch",
        "job accept name --rpc u --court c --artifact m.ree --terms t",
        "job status name --rpc u --court c --prices 1:1",
    ],
)  # fmt: skip
def test_options_without_effect_are_refused(here, capsys, args):
    err = fails(capsys, *args.split())
    rules = [text for command in (run, verify, diff, demo, job) for *_, text in command.RULES]
    assert any(text in err for text in [*rules, *job.MISPLACED.values(), "expected two files"])


@pytest.mark.parametrize("prices", ["1", "0:1", "1:x", "9" * 5000 + ":1"])
def test_prices_are_two_whole_numbers(capsys, prices):
    err = fails(capsys, "job", "accept", "name", "--rpc", "u", "--court", "c", "--prices", prices)
    assert "expected GAS:RUN" in err
    assert len(err) < 200


@pytest.mark.parametrize("args", [["run", ""], ["run", "m.ree", "-o", ""], ["frob"], [], ["run"],
                                  ["help", "frob"], ["run", "m.ree", "--threads", "x\x1b[2J"],
                                  ["completion", "tcsh"]])  # fmt: skip
def test_a_wrong_command_is_one_line(here, capsys, args):
    assert "\x1b" not in fails(capsys, *args)


def test_help_version_and_completion(capsys):
    for args in (["help"], ["help", "run"], ["-V"], ["--version"], ["run", "--help"]):
        assert main(args) == 0
        assert "ree" in capsys.readouterr().out
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        text = capsys.readouterr().out
        assert "trace-level" in text
        assert "conformance" in text
        if shell == "bash":
            ask = "\nCOMP_WORDS=(ree run --trace-l) COMP_CWORD=2; _ree; echo ${COMPREPLY[@]}"
            done = subprocess.run(
                ["bash", "-c", text + ask], capture_output=True, text=True, check=True
            )
            assert done.stdout.split() == ["--trace-level"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ree", "-V"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ree {ree.__version__}\n"


def test_what_a_run_says(here, capsys):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x.log(), x.bfloat16() + 0.5

    ree.compile(Odd(), (X,)).save("odd.ree")
    assert main(["run", "odd.ree"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert (
        first
        == "output0: f32[1,3]  min 0  max 0.693147  mean 0.346574  1 not finite  [-inf, 0, 0.693147]"
    )
    assert second == "output1: bf16[1,3]  min 0.5  max 2.5  mean 1.5  [0.5, 1.5, 2.5]"
    assert main(["run", "odd.ree", "--json"]) == 0
    data = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert data["outputs"]["output1"] == "bf16[1,3]"
    assert data["values"]["output0"]["first"][0] == "-inf"


# printing


def test_nothing_unprintable_is_printed(here, program, capsys):
    from dataclasses import replace

    nodes = tuple(replace(n, origin=replace(n.origin, location=EVIL, code=EVIL, module=EVIL))
                  for n in program.graph.nodes)  # fmt: skip
    bad = pickle.loads(pickle.dumps(program))
    bad.graph = replace(bad.graph, nodes=nodes)
    bad.names.outputs, bad.names.structure = (EVIL,), None
    bad.save("evil.ree")
    assert printable(repr(bad)) == repr(bad)
    assert EVIL not in str(bad)
    main(["run", "evil.ree", "--trace", "a", "--trace-level", "ops"])
    bad.run_named({"trace": X + 1, "threads": X}, trace="ops").trace.save("b")
    main(["diff", "a", "b"])
    main(["inspect", "evil.ree"])
    main(["inspect", EVIL])
    main(["verify", "evil.ree", "--trace", "b"])
    main(["run", EVIL])
    main(["run", "m.ree", f"--{EVIL}"])
    out, err = capsys.readouterr()
    for line in (out + err).splitlines():
        assert line.isprintable(), line
        assert not line.startswith("same: root 00")
    assert "y\\x1b[2J\\x9b\\u202e\\u2028\\nsame" in out
    error = InputError(f"no '{EVIL}'", EVIL)
    assert all(x.isprintable() for x in str(error).splitlines())


def test_what_an_encoding_lacks_is_escaped(here, program):
    named = pickle.loads(pickle.dumps(program))
    named.names.outputs, named.names.structure = ("größe",), None
    named.save("u.ree")
    done = subprocess.run([sys.executable, "-P", "-m", "ree", "run", "u.ree"], capture_output=True, text=True,
                          env={"PYTHONIOENCODING": "ascii", "PATH": ""}, check=False)  # fmt: skip
    assert done.stdout.startswith("gr\\xf6\\xdfe: f32[1,3]"), done.stderr


# Python


def test_an_error_has_everything_in_its_text():
    e = UnsupportedError("2 operators", ("det at m.py:3", "eig at m.py:4"), "see docs")
    assert str(e) == "2 operators\n  det at m.py:3\n  eig at m.py:4\nhint: see docs"
    assert (e.message, e.hint, e.items) == (
        "2 operators",
        "see docs",
        ("det at m.py:3", "eig at m.py:4"),
    )
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ReeError):
            made = kind("a", ("b",), "c") if kind is UnsupportedError else kind("a", "c")
            again = pickle.loads(pickle.dumps(made))
            assert (type(again), str(again)) == (kind, str(made))


WRONG = {
    "compile a function": lambda p: ree.compile(torch.sin, (X,)),
    "compile nothing": lambda p: ree.compile(None, (X,)),
    "examples that are a number": lambda p: ree.compile(torch.nn.Tanh(), 3),
    "too few examples": lambda p: ree.compile(Two(), (X,)),
    "wrong dynamic shapes": lambda p: ree.compile(Two(), (X, X), dynamic_shapes=3),
    "a device that is none": lambda p: p.run(X, X, device=3),
    "a device of torch": lambda p: p.run(X, X, device=torch.device("meta")),
    "a device without a name": lambda p: p.run(X, X, device=""),
    "values of no trace": lambda p: p.run(X, X, keep_values=True),
    "values of an io trace": lambda p: p.run(X, X, trace="io", keep_values=True),
    "an instruction set": lambda p: p.run(X, X, isa=3),
    "threads": lambda p: p.run(X, X, threads=2.5),
    "too many threads": lambda p: p.run(X, X, threads=True),
    "a trace level": lambda p: p.run(X, X, trace=X),
    "an unknown option": lambda p: p.run_named({"trace": X, "threads": X}, colour=3),
    "a ragged list": lambda p: p([[1, 2], [3]], X),
    "an object": lambda p: p(object(), X),
    "text": lambda p: p(np.array([["a", "b", "c"]]), X),
    "no data": lambda p: p(X.to("meta"), X),
    "sparse": lambda p: p(X.to_sparse(), X),
    "save to a number": lambda p: p.save(3),
    "save to a NUL": lambda p: p.save("a\0b"),
    "load a number": lambda p: ree.load(3),
    "load a NUL": lambda p: ree.load("a\0b"),
    "load nothing": lambda p: ree.load(None),
    "a trace that is none": lambda p: ree.load_trace("absent"),
    "a trace that is a number": lambda p: ree.load_trace(3),
    "verify a number": lambda p: ree.verify(3, 3, 3),
    "verify without a trace": lambda p: ree.verify(p, p.run(X, X), (X, X)),
    "verify other inputs": lambda p: ree.verify(p, p.run(X, X, trace="io"), X),
    "save a trace nowhere": lambda p: p.run(X, X, trace="io").trace.save("absent/x"),
    "carry what the trace has not": lambda p: p.run(X, X, trace="io").trace.save("t", {("value", 9): X}),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_leaves_the_api_is_a_ree_error(program, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReeError):
        WRONG[what](program)


def test_names_of_inputs_never_meet_options(program, here):
    want = X * 2 + X + 1
    assert torch.equal(program(trace=X, threads=X + 1), want)
    assert torch.equal(program.run(X, X + 1, trace="ops", threads=1).value, want)
    assert torch.equal(program.run_named({"trace": X, "threads": X + 1}, trace="ops").value, want)
    assert main(["run", "m.ree", "--trace", "t", "--threads", "1"]) == 0
    scope = {"torch": torch}
    exec(
        "class S(torch.nn.Module):\n def forward(self, args, kwargs, inputs): return args + inputs",
        scope,
    )
    odd = ree.compile(scope["S"](), (X, X, X))
    assert torch.equal(odd(args=X, kwargs=X, inputs=X), X + X)


def test_verify_takes_what_there_is(program, here):
    given = (X, X + 1)
    result = program.run(*given, trace="ops", keep_values=True)
    result.trace.save("t.trace", {("output", 0): result.outputs[0].numpy()})
    for p in (program, "m.ree", here / "m.ree"):
        for t in (result, result.trace, "t.trace", here / "t.trace"):
            assert ree.verify(p, t, given).same
            assert ree.verify(p, t).same  # the examples are the same
    assert ree.load_trace("t.trace") == result.trace
    one = ree.compile(torch.nn.Tanh(), (X,))
    assert ree.verify(one, one.run(X, trace="io"), X).same
    assert not ree.verify(one, one.run(X + 1, trace="io"), X).same


def test_names_and_texts(program):
    assert {"compile", "load", "load_trace", "optim", "train", "verify", "ReeError"} <= set(
        dir(ree)
    )
    assert ree.optim.AdamW
    assert program.inputs == dict(zip(("trace", "threads"), program.graph.inputs, strict=True))
    assert str(program.outputs) == "{'output0': f32[1,3]}"
    assert repr(program).startswith(
        f"<Program {program.program_hash.hex()[:16]} (trace: f32[1,3], "
    )
    assert "input    trace: f32[1,3]" in str(program)
    result = program.run(X, X, trace="ops")
    report = ree.verify(program, result, (X, X))
    for x in (program, result, result.trace, report, program.names):
        assert len(repr(x)) < 300, repr(x)
