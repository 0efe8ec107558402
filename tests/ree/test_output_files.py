"""Files that are written: whole or not at all, where they were asked for, with the mode of the umask."""

import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ree
from ree import artifact
from ree.cli import main
from ree.errors import ReeError
from ree.files import atomic as files
from ree.files.safetensors import parse_tensors, write_tensors_to
from ree.traces import replacing as replacing_module
from ree.traces.replacing import replacing


@pytest.fixture(scope="module")
def program():
    return ree.compile(torch.nn.Linear(3, 2), (torch.ones(1, 3),))


@pytest.fixture
def here(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program.save("m.ree")
    return tmp_path


def names(folder="."):
    return sorted(os.listdir(folder))


def test_a_link_is_written_through(here):
    (here / "real").write_bytes(b"old")
    (here / "link").symlink_to("real")
    (here / "further").symlink_to(here / "link")
    (here / "dangling").symlink_to("made")
    (here / "loop").symlink_to("loop")
    for name in ("further", "dangling"):
        assert main(["run", "m.ree", "-o", name]) == 0
        assert (here / name).is_symlink()
    assert (here / "real").read_bytes() == (here / "made").read_bytes() != b"old"
    assert main(["run", "m.ree", "-o", "loop"]) == 2
    assert names() == ["dangling", "further", "link", "loop", "m.ree", "made", "real"]


def test_a_pipe_stays_a_pipe(here):
    os.mkfifo("fifo")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("fifo").read_bytes()))
    reader.start()
    assert main(["run", "m.ree", "-o", "fifo"]) == 0
    reader.join(20)
    assert stat.S_ISFIFO(os.lstat("fifo").st_mode)
    assert list(parse_tensors(got[0])) == ["output0"]


def test_standard_output_holds_the_tensors_alone(here):
    main(["run", "m.ree", "-o", "file"])
    want = (here / "file").read_bytes()
    for name in ("-", "/dev/stdout"):
        command = [sys.executable, "-P", "-m", "ree", "run", "m.ree", "-o", name]
        done = subprocess.run(command, capture_output=True, check=True)
        assert done.stdout == want
        assert b"output0: f32[1,2]" in done.stderr
    with open("redirected", "wb") as f:
        subprocess.run(command, stdout=f, stderr=subprocess.DEVNULL, check=True)
    assert (here / "redirected").read_bytes() == want
    with open("/dev/full", "wb") as f:
        full = subprocess.run(command, stdout=f, stderr=subprocess.PIPE, check=False)
    assert (full.returncode, full.stderr.count(b"\n")) == (2, 1)


@pytest.mark.parametrize("name", [".", "..", "/", "m.ree", "absent/x", "/proc/none/x"])
@pytest.mark.parametrize("option", ["-o", "--trace"])
def test_what_cannot_be_a_file_is_one_line(here, capsys, name, option):
    assert main(["run", "m.ree", option, name]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert names() == ["m.ree"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_the_umask(program, here, mask):
    old = os.umask(mask)
    try:
        program.save("n.ree")
        main(["run", "m.ree", "-o", "out", "--trace", "trace"])
    finally:
        os.umask(old)
    for path in (here / "out", here / "trace", *(here / "n.ree").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path
    assert stat.S_IMODE((here / "n.ree").stat().st_mode) == 0o777 & ~mask


def test_a_temporary_name_is_not_guessed_and_not_followed(here, monkeypatch):
    assert len({replacing_module.temporary_name(here / "out") for _ in range(50)}) == 50
    (here / "victim").write_bytes(b"precious")
    trap = here / ".out.trap.tmp"
    trap.symlink_to("victim")
    monkeypatch.setattr(replacing_module, "temporary_name", lambda _: trap)
    with pytest.raises(FileExistsError), replacing(here / "out") as f:
        f.write(b"x")
    assert (here / "victim").read_bytes() == b"precious"
    monkeypatch.setattr(files, "temporary_name", lambda _: trap)
    with pytest.raises(ReeError):
        ree.load("m.ree").save("n.ree")
    assert (here / "victim").read_bytes() == b"precious"
    assert trap.is_symlink()


def test_only_an_artifact_is_replaced(program, here, capsys):
    (here / "site").mkdir()
    (here / "site" / "manifest.json").write_text('{"name": "a web page"}')
    program.save("mixed")
    (here / "mixed" / "notes.txt").write_text("mine")
    (here / "file").write_text("mine")
    (here / "link").symlink_to("site")
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    for name in ("site", "mixed", "file", "link", ".", "..", "/dev/null"):
        with pytest.raises(ReeError, match="not an artifact"):
            program.save(name)
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before
    (here / "empty").mkdir()
    (here / "to").symlink_to("m.ree")
    (here / "new").symlink_to("made.ree")
    for name in ("empty", "m.ree", "to", "new"):
        program.save(name)
        assert ree.load(name).program_hash == program.program_hash
    assert (here / "to").is_symlink()
    assert (here / "made.ree").is_dir()
    assert not [x for x in names() if x.startswith(".")]


@pytest.mark.parametrize("exchange", [True, False])
def test_readers_and_writers_never_see_half_an_artifact(here, monkeypatch, exchange):
    if not exchange:

        def refuse(*_):
            raise OSError(22, "no exchange here")

        monkeypatch.setattr(files, "_exchange", refuse)
    torch.manual_seed(0)
    two = [ree.compile(torch.nn.Linear(3, 2), (torch.ones(1, 3),)) for _ in range(2)]
    roots = {p.weights_root for p in two}
    assert len(roots) == 2
    errors, stop, read = [], threading.Event(), set()

    def write(p):
        try:
            for _ in range(15):
                p.save("m.ree")
        except ReeError as e:
            errors.append(e)

    def load():
        while not stop.is_set():
            try:
                read.add(ree.load("m.ree").weights_root)
            except ReeError as e:
                # without an exchange the name is free for a moment
                if exchange or ("no artifact" not in str(e) and "No such file" not in str(e)):
                    errors.append(e)

    two[0].save("m.ree")
    writers = [threading.Thread(target=write, args=(p,)) for p in two]
    reader = threading.Thread(target=load)
    for t in (reader, *writers):
        t.start()
    for t in writers:
        t.join()
    stop.set()
    reader.join()
    assert not errors
    assert read <= roots
    assert names() == ["m.ree"]


def test_a_name_that_is_free_for_a_moment_is_not_said_to_be_something_else(
    here, monkeypatch, program
):
    program.save("m.ree")
    answer = Path.is_dir

    def taken_away_after(path):
        found = answer(path)
        if path == Path("m.ree"):
            path.rename("taken.ree")
        return found

    monkeypatch.setattr(Path, "is_dir", taken_away_after)
    with pytest.raises(ReeError, match="No such file"):
        ree.load("m.ree")


def test_an_artifact_that_could_not_be_read_again_is_not_written(here):
    def holder(name, module=None):
        m = torch.nn.Module()
        m.register_buffer(name, torch.arange(300.0))
        m.forward = lambda x: x + getattr(m, name) + torch.ones(300, 300).tril() @ x
        return m

    x = torch.ones(300)
    for i, name in enumerate(("const", "const_0", "weights", "_", "0", "x")):
        program = ree.compile(holder(name), (x,))
        program.save(f"{i}.ree")
        assert torch.equal(ree.load(f"{i}.ree")(x), program(x)), name
    for name in ("__metadata__", "a" * 501):
        with pytest.raises(ReeError, match="cannot be saved"):
            ree.compile(holder(name), (x,)).save("bad.ree")
    program = ree.compile(holder("b"), (x,))
    long = tuple(
        replace(n, origin=replace(n.origin, module="m" * 2000)) for n in program.graph.nodes
    )
    program.graph = replace(program.graph, nodes=long)
    program.save("long.ree")
    ree.load("long.ree")
    assert not (here / "bad.ree").exists()


def test_bfloat16_is_bfloat16_in_every_file(here):
    m = torch.nn.Linear(3, 2).bfloat16()
    x = torch.randn(1, 3).bfloat16()
    program = ree.compile(m, (x,))
    program.save("b.ree")
    main(["run", "b.ree", "-o", "out.safetensors"])
    from safetensors.torch import load_file, save_file

    for path, name in (("b.ree/weights.safetensors", "weight"), ("b.ree/examples.safetensors", "input"),
                       ("out.safetensors", "output0")):  # fmt: skip
        assert load_file(path)[name].dtype is torch.bfloat16
    assert torch.equal(load_file("out.safetensors")["output0"], program(x))
    assert torch.equal(ree.load("b.ree")(x), program(x))
    save_file({"input": x}, "in.safetensors")
    assert main(["run", "b.ree", "--inputs", "in.safetensors", "-o", "again.safetensors"]) == 0
    assert Path("again.safetensors").read_bytes() == Path("out.safetensors").read_bytes()


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "float64", "uint16", "uint32", "complex64"]
)
def test_types_that_no_program_has_are_one_line(here, capsys, dtype):
    from safetensors.torch import save_file

    save_file({"input": torch.ones(1, 3).to(getattr(torch, dtype))}, "in.safetensors")
    capsys.readouterr()
    assert main(["run", "m.ree", "--inputs", "in.safetensors"]) == 2
    err = capsys.readouterr().err
    assert "dtype" in err
    assert len([x for x in err.splitlines() if not x.startswith("hint")]) == 1


def test_a_file_of_tensors_is_what_the_library_reads(here, tmp_path):
    from safetensors.numpy import load

    rng = np.random.default_rng(0)
    tensors = {"odd": rng.integers(0, 9, 3).astype(np.uint8), "f": rng.random((2, 5)).astype(np.float32),
               "empty": np.zeros((0, 3), np.float32), "n": np.array(3),
               "h": np.ones(1, np.float16)}  # fmt: skip
    with open("t", "wb") as f:
        write_tensors_to(f, tensors, {"a": "b"})
    raw = Path("t").read_bytes()
    for have in (load(raw), parse_tensors(raw)):
        assert set(have) == set(tensors)
        for k, x in tensors.items():
            assert have[k].dtype == x.dtype
            np.testing.assert_array_equal(have[k], x)


def test_malformed_tensor_files_are_refused():
    def made(header, data=b"\0" * 8):
        text = json.dumps(header).encode() if not isinstance(header, bytes) else header
        return len(text).to_bytes(8, "little") + text + data

    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    assert parse_tensors(made({"x": good}))["x"].tolist() == [0, 0]
    for change in ({"dtype": "F8_E4M3"}, {"dtype": 3}, {"shape": 2}, {"shape": [-2]}, {"shape": [True, 2]},
                   {"shape": [2.0]}, {"shape": [1] * 9}, {"shape": [1 << 60]}, {"data_offsets": [0]},
                   {"data_offsets": [8, 16]}, {"data_offsets": [0, 1 << 70]}, {"data_offsets": [-8, 0]},
                   {"extra": 1}):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011
            parse_tensors(made({"x": {**good, **change}}))
    one = b'"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    twice = b"{" + one + b"," + one + b"}"
    for raw in (b"", b"\0" * 7, b"\xff" * 8, made([]), made(b"{"), made({"x": good}, b""), made(twice),
                made({"x": good}, b"\0" * 9), made({"x": good, "y": good}),
                made({"__metadata__": {"a": 1}})):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011
            parse_tensors(raw)


def test_pickled_programs_go_through_the_checks(program):
    import copy
    import pickle

    x = torch.randn(1, 3)
    for again in (pickle.loads(pickle.dumps(program)), copy.deepcopy(program)):
        assert torch.equal(again(x), program(x))
    parts = artifact.to_files(program)
    parts["weights.safetensors"] = parts["weights.safetensors"][:-1] + b"\x7f"
    for bad in (parts, {}, None, {k: v.decode("latin1") for k, v in parts.items()}):
        with pytest.raises(ReeError):
            artifact.from_files(bad)
