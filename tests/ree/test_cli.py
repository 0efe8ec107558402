"""The command line on good and bad input: exit codes, one line on stderr, nothing half-written."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ree.cli import main
from ree.files.atomic import atomic_directory
from ree.files.safetensors import parse_tensors

MODEL = """
import torch
class M(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)
    def forward(self, x):
        return self.b(torch.nn.functional.gelu(self.a(x))).softmax(-1)
def model():
    return M()
def example_inputs():
    return (torch.arange(24.0).view(3, 8) / 10,)
"""


@pytest.fixture(scope="session")
def art(tmp_path_factory) -> Path:
    d = tmp_path_factory.mktemp("art")
    (d / "model.py").write_text(MODEL)
    assert main(["compile", str(d / "model.py"), "-o", str(d / "m.ree")]) == 0
    assert main(["run", str(d / "m.ree"), "--trace", str(d / "ops.trace"), "--trace-level", "ops",
                 "-o", str(d / "out.safetensors")]) == 0  # fmt: skip
    assert main(["run", str(d / "m.ree"), "--trace", str(d / "io.trace")]) == 0
    return d


@pytest.fixture
def copy(art, tmp_path) -> Path:
    shutil.copytree(art, tmp_path / "w")
    return tmp_path / "w"


def fails(capsys, *args, code=2) -> str:
    """The command exits with `code` and one line, plus listed items and a hint, on stderr."""
    capsys.readouterr()
    assert main([str(a) for a in args]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if code == 2:
        assert out == ""
        lines = [
            x
            for x in err.splitlines()
            if not x.startswith(("  ", "hint:", "load model:", "compile:"))
        ]
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
    return out + err


def test_run_writes_outputs_and_trace(art, capsys):
    out = load_file(art / "out.safetensors")["output0"]
    assert out.shape == (3, 4)
    np.testing.assert_allclose(out.sum(-1), 1, atol=1e-6)
    capsys.readouterr()
    assert main(["verify", str(art / "m.ree"), "--trace", str(art / "ops.trace")]) == 0
    assert main(["verify", str(art / "m.ree"), "--trace", str(art / "io.trace"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert report["same"] is True
    assert main(["inspect", str(art / "ops.trace"), "--json"]) == 0
    trace = json.loads(capsys.readouterr().out)
    assert main(["inspect", str(art / "m.ree"), "--json"]) == 0
    artifact = json.loads(capsys.readouterr().out)
    assert trace["program"] == artifact["program"]
    assert report["root"] == trace["io_root"]


def test_verify_on_every_isa_and_thread_count(art, monkeypatch):
    from ree import _core

    for isa in _core.isa_names():
        monkeypatch.setenv("REE_FORCE_ISA", isa)
        for threads in ("1", "3"):
            args = ["verify", str(art / "m.ree"), "--trace", str(art / "ops.trace")]
            assert main([*args, "--threads", threads]) == 0


def test_settings_are_checked(art, capsys, monkeypatch):
    monkeypatch.setenv("REE_FORCE_ISA", "z80")
    assert "expected one of" in fails(capsys, "run", art / "m.ree")
    monkeypatch.delenv("REE_FORCE_ISA")
    monkeypatch.setenv("REE_NUM_THREADS", "-3")
    assert "REE_NUM_THREADS" in fails(capsys, "run", art / "m.ree")
    monkeypatch.delenv("REE_NUM_THREADS")
    assert "threads" in fails(capsys, "run", art / "m.ree", "--threads", "0")


def test_a_changed_weight_bit_is_found_and_named(copy, capsys):
    """A provider who runs other weights, and seals an artifact around them, is found out."""
    import ree
    from ree.verification import replayed_tensors

    honest = ree.load(copy / "m.ree")
    weights = [w.copy() for w in honest.weights]
    weights[honest.names.weights.index("a.weight")].view(np.uint32)[2, 5] ^= 1
    program = ree.Program(honest.graph, honest.names, weights, honest.examples)
    result = program.run(**program.examples, trace="ops", keep_values=True)
    from ree.traces.files import write_trace

    write_trace(copy / "bad.trace", result.trace, replayed_tensors(result))
    text = fails(capsys, "verify", copy / "m.ree", "--trace", copy / "bad.trace", code=1)
    assert "first differing value: %0" in text
    assert "operator linear" in text
    assert "model.py:9" in text
    assert "0x" in text
    assert "ulp" in text
    text = fails(capsys, "diff", copy / "ops.trace", copy / "bad.trace", code=1)
    assert "weights_root" in text
    assert "operator linear" in text


def test_an_altered_digest_in_a_trace_is_named(copy, capsys):
    from ree.traces.files import read_trace

    t = read_trace(copy / "ops.trace").trace
    raw = bytearray((copy / "ops.trace").read_bytes())
    raw[raw.index(t.values[2])] ^= 0x10
    (copy / "ops.trace").write_bytes(raw)
    text = fails(capsys, "verify", copy / "m.ree", "--trace", copy / "ops.trace", code=1)
    assert "first differing value: %2" in text


def test_altered_tensor_data_in_a_trace_is_named(copy, capsys):
    raw = bytearray((copy / "ops.trace").read_bytes())
    raw[-1] ^= 1
    (copy / "ops.trace").write_bytes(raw)
    text = fails(capsys, "verify", copy / "m.ree", "--trace", copy / "ops.trace", code=1)
    assert "not the one the trace commits to" in text


def test_malformed_traces(copy, capsys):
    trace = copy / "ops.trace"
    raw = trace.read_bytes()
    for data in (b"", b"nonsense", raw[:100], raw[:-1], raw + b"\0", b"\0" + raw[1:]):
        trace.write_bytes(data)
        assert "malformed" in fails(capsys, "verify", copy / "m.ree", "--trace", trace)
        assert "malformed" in fails(capsys, "inspect", trace)
        fails(capsys, "diff", trace, copy / "io.trace")
    fails(capsys, "verify", copy / "m.ree", "--trace", copy / "absent.trace")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no model file"),
        ("def model(:\n", "syntax error"),
        ("x = 1\n", "does not define model()"),
        ("import torch\ndef model(): return torch.nn.Linear(2, 2)\n", "example_inputs"),
        ("def model(): return 3\ndef example_inputs(): return ()\n", "expected torch.nn.Module"),
        ("def model(): raise ValueError('boom')\ndef example_inputs(): return ()\n", "boom"),
        ("import sys\nsys.exit(4)\n", "SystemExit"),
        (MODEL.replace("return (torch.arange", "return (1, torch.arange"), "expected tensors"),
        (MODEL.replace(".softmax(-1)", ".softmax(-1) if x.sum() > 0 else x"), "capture"),
        (MODEL.replace(".softmax(-1)", ".double()"), "f64|float64"),
        (MODEL.replace("M()\ndef", "M().double()\ndef"), "float64|capture"),
        (MODEL.replace("return self.b(", "return self.c("), "capture|attribute"),
    ],
)
def test_bad_models(tmp_path, capsys, source, message):
    import re

    path = tmp_path / "model.py"
    if source is not None:
        path.write_text(source)
    text = fails(capsys, "compile", path, "-o", tmp_path / "o.ree")
    assert re.search(message, text), text
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "__pycache__") == (
        ["model.py"] if source is not None else []
    )


def test_unsupported_operators_are_all_listed_with_their_lines(tmp_path, capsys):
    source = MODEL.replace(".softmax(-1)", ".softmax(-1).i0().polygamma(1).i0()")
    (tmp_path / "model.py").write_text(source)
    text = fails(capsys, "compile", tmp_path / "model.py", "-o", tmp_path / "o.ree")
    assert "2 operator(s) are not supported" in text
    assert "  i0 at model.py:9" in text
    assert "  polygamma at model.py:9" in text


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"y": np.zeros((3, 8), np.float32)}, "unknown input 'y'"),
        ({}, "missing input 'x'"),
        ({"x": np.zeros((3, 9), np.float32)}, "expected shape"),
        ({"x": np.zeros((3, 8, 1), np.float32)}, "rank"),
        ({"x": np.zeros((3, 8), np.float64)}, "dtype"),
        ({"x": np.zeros((3, 8), np.int64)}, "expected dtype f32"),
    ],
)
def test_bad_inputs(art, tmp_path, capsys, tensors, message):
    path = tmp_path / "in.safetensors"
    save_file(tensors, path)
    assert message in fails(capsys, "run", art / "m.ree", "--inputs", path)
    path.write_bytes(b"\xff" * 20)
    fails(capsys, "run", art / "m.ree", "--inputs", path)
    path.write_bytes(b"")
    fails(capsys, "run", art / "m.ree", "--inputs", path)
    fails(capsys, "run", art / "m.ree", "--inputs", tmp_path / "none")


def edit_manifest(art: Path, **changes) -> None:
    manifest = json.loads((art / "manifest.json").read_text())
    manifest.update(changes)
    (art / "manifest.json").write_text(json.dumps(manifest))


def reseal(art: Path, name: str, data: bytes) -> None:
    """Replace a file and mend the manifest, as an adversary would."""
    import hashlib

    (art / name).write_bytes(data)
    manifest = json.loads((art / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (art / "manifest.json").write_text(json.dumps(manifest))


def test_bad_artifacts(copy, capsys, tmp_path):
    good = copy / "m.ree"

    def check(message, change):
        bad = tmp_path / "bad.ree"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        change(bad)
        assert message in fails(capsys, "run", bad), message

    def cut(bad):
        (bad / "weights.safetensors").write_bytes((good / "weights.safetensors").read_bytes()[:-8])

    def flip(bad):
        raw = bytearray((good / "weights.safetensors").read_bytes())
        raw[-3] ^= 4
        (bad / "weights.safetensors").write_bytes(raw)

    graph = (good / "graph.txt").read_text()

    def check_graph(message, old, new):
        text = graph.replace(old, new, 1) if old else new
        assert text != graph
        check(message, lambda b: reseal(b, "graph.txt", text.encode()))

    check("truncated", cut)
    check("altered", flip)
    check("replaced", lambda b: (b / "weights.safetensors").open("ab").write(b"\0" * 9))
    check("not JSON", lambda b: (b / "manifest.json").write_text("{"))
    check("not a REE artifact", lambda b: edit_manifest(b, magic="x"))
    check("version", lambda b: edit_manifest(b, version=99))
    check("program", lambda b: edit_manifest(b, program="zz"))
    check("program hash", lambda b: edit_manifest(b, program="0" * 64))
    check("files", lambda b: edit_manifest(b, files={"../../etc/passwd": {}}))
    check("names", lambda b: edit_manifest(b, inputs=["x" * 10000]))
    check("regular file", lambda b: ((b / "graph.txt").unlink(),
                                     (b / "graph.txt").symlink_to(good / "graph.txt")))  # fmt: skip
    check("regular file", lambda b: (b / "graph.txt").unlink())
    check_graph("numeric contract", "repops/0", "repops/9")
    check_graph("unknown operator", "gelu(", "evil(")
    check_graph("expected results", "f32[3,16]", "f32[3,17]")
    check_graph("before it is defined", "gelu(%1)", "gelu(%9)")
    check_graph("graph", "", "rm -rf")
    check_graph("canonical", "f32[3,8]", "f32[1*3,8]")
    check("origins.json", lambda b: reseal(b, "origins.json", b"[]"))
    check("weights.safetensors", lambda b: reseal(b, "weights.safetensors", b"\xff" * 64))
    fails(capsys, "run", tmp_path / "absent.ree")
    fails(capsys, "inspect", tmp_path / "absent")


def test_huge_sizes_are_refused_before_memory_is_taken(copy, capsys):
    graph = (copy / "m.ree" / "graph.txt").read_text()
    huge = graph.replace("f32[3,8]", "f32[9999999999,8]").replace("f32[3,16]", "f32[9999999999,16]")
    huge = huge.replace("f32[3,4]", "f32[9999999999,4]")
    reseal(copy / "m.ree", "graph.txt", huge.encode())
    assert "expected dimensions of 0 to" in fails(capsys, "run", copy / "m.ree")


def test_a_full_disk_leaves_the_old_file_intact(art, capsys, tmp_path):
    """A file-size limit stands for the full disk: writing fails part of the way."""
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"old")
    trace = tmp_path / "t.trace"
    trace.write_bytes(b"old trace")
    old = tmp_path / "m.ree"
    shutil.copytree(art / "m.ree", old)
    before = {p.name: p.read_bytes() for p in old.iterdir()}
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        code = [main(["run", str(art / "m.ree"), "-o", str(target)])]
        code.append(main(["run", str(art / "m.ree"), "--trace", str(trace)]))
        code.append(main(["compile", str(art / "model.py"), "-o", str(old)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert code == [2, 2, 2], err
    assert "Traceback" not in err
    assert target.read_bytes() == b"old"
    assert trace.read_bytes() == b"old trace"
    assert {p.name: p.read_bytes() for p in old.iterdir()} == before
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["m.ree", "out.safetensors", "t.trace"]


def test_what_is_not_an_artifact_is_not_overwritten(art, tmp_path, capsys):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    fails(capsys, "compile", art / "model.py", "-o", tmp_path / "precious")
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_where_to_write_is_asked_before_the_model_is_loaded(tmp_path, capsys):
    model = tmp_path / "model.py"
    model.write_text("raise SystemError('loaded')")
    (tmp_path / "file").write_text("x")
    for place in ("/dev/full", tmp_path / "file", tmp_path / "file" / "m.ree"):
        assert "loaded" not in fails(capsys, "compile", model, "-o", place)


def test_where_to_write_is_asked_before_the_artifact_is_loaded(art, tmp_path, capsys):
    for option in ("--output", "--trace"):
        for place, text in ((tmp_path, "Is a directory"), (tmp_path / "no" / "t", "No such file"),
                            (art / "model.py" / "t", "Not a directory")):  # fmt: skip
            said = fails(capsys, "run", tmp_path / "absent.ree", option, place)
            assert f"cannot write '{place}': {text}" in said, said


def test_zero_is_given(art, capsys):
    trace = art / "ops.trace"
    assert "--threads is for" in fails(capsys, "diff", trace, trace, "--threads", "0")
    assert "--max-values goes with" in fails(capsys, "run", art / "m.ree", "--max-values", "0")
    assert "at least 0, got -1" in fails(
        capsys, "run", art / "m.ree", "--trace", "t", "--max-values", "-1"
    )


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "a.ree") as d:
        (d / "x").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_control_c_is_quiet(tmp_path):
    (tmp_path / "model.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    p = subprocess.Popen(
        [sys.executable, "-P", "-m", "ree.cli", "compile", "model.py", "-o", "o.ree"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a test run in the background may have been told to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert p.stdout.readline() == "up\n"
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=30)
    assert p.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert not (tmp_path / "o.ree").exists()


def test_help_is_fast_and_usage_errors_are_2():
    command = [sys.executable, "-P", "-X", "importtime", "-m", "ree.cli"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "verify" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {
        "torch",
        "triton",
        "llvmlite",
        "numpy",
        "ree._core",
        "web3",
        "rich",
        "dataclasses",
    }
    assert subprocess.run([*command, "nonsense"], capture_output=True, check=False).returncode == 2


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["isa"] in facts["isa_available"]
    assert facts["float_mode_clean"] is True
    assert facts["cores"] == len(os.sched_getaffinity(0))


def test_files_that_are_something_else_are_named_as_what_they_are(tmp_path, capsys):
    (tmp_path / "empty").touch()
    (tmp_path / "noise").write_bytes(b"\0\1\2")
    (tmp_path / "folder").mkdir()
    for command, said in (
        (["compile", str(tmp_path / "noise"), "-o", str(tmp_path / "m.ree")], "syntax error in"),
        (["run", str(tmp_path / "folder")], "is not an artifact: it has no manifest.json"),
    ):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert said in err
        assert "None" not in err
    with pytest.raises(ValueError, match="the file is empty"):
        parse_tensors(b"")
