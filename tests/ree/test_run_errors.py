"""Training runs on bad input: exit 2 and one line, nothing lost; hostile files are refused."""

import json
import resource
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ree.cli import main
from ree.errors import RunError
from ree.files.safetensors import write_tensors
from ree.training.directory import RECORD_BYTES, RunReader, decode_records, encode_record, step_file
from ree.training.loop import run_steps
from ree.training.replay import verify_run
from ree.training.train_file import TrainFile
from ree.training.writer import RunWriter

STEPS, EVERY = 12, 5


def error(capsys, *args) -> str:
    """The command exits with 2 and one line, plus a hint, on stderr; nothing on stdout."""
    capsys.readouterr()
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), (code, out, err)
    noise = ("  ", "hint:", "load:", "compile:", "note:", "trace step", "compare:")
    lines = [x for x in err.splitlines() if not x.startswith(noise)]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return err


def edited(d: Path, old: str, new: str) -> Path:
    text = (d / "train.py").read_text()
    assert old in text
    (d / "edited.py").write_text(text.replace(old, new, 1))
    return d / "edited.py"


def train(d: Path, script: Path, *more: object) -> list[object]:
    return ["train", script, "-o", d / "new", "--steps", 8, "--checkpoint-every", 3, *more]


# TRAIN.py


def test_train_and_resume_on_the_command_line(runs, capsys):
    script = runs / "train.py"
    assert main([str(x) for x in train(runs, script, "--threads", 1, "--isa", "portable")]) == 0
    out = capsys.readouterr().out
    assert "wrote" in out
    assert "8 steps" in out
    args = ["train", script, "-o", runs / "new", "--steps", STEPS, "--resume", "--json"]
    assert main([str(x) for x in args]) == 0
    data = json.loads(capsys.readouterr().out)
    want = RunReader(runs / "run")
    assert data["commitment"] == want.history.commitment.hex()
    assert data["root"] == want.root_after(STEPS).hex()
    assert data["resumed_from"] == 8
    if data["plot"]:
        assert (runs / "new" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "exists" in error(capsys, *train(runs, script))
    assert "no run" in error(capsys, "train", script, "-o", runs / "x", "--steps", 3, "--resume")
    broken = edited(runs, "import", "raise SystemError('loaded')\nimport")
    fewer = ["train", broken, "-o", runs / "new", "--steps", 2, "--resume"]
    assert f"has {STEPS} already, got 2" in error(capsys, *fewer)
    other = edited(runs, "lr=0.01", "lr=0.02")
    assert "another program" in error(capsys, "train", other, "-o", runs / "new", "--steps", 20,
                                      "--resume")  # fmt: skip


@pytest.mark.parametrize("name", ["model", "loss", "optimizer", "batch"])
def test_a_missing_function(runs, capsys, name):
    script = edited(runs, f"def {name}(", "def other(")
    assert f"does not define {name}()" in error(capsys, *train(runs, script))
    assert not (runs / "new").exists()


def test_bad_scripts(runs, capsys):
    assert "no training file" in error(capsys, *train(runs, runs / "absent.py"))
    script = edited(runs, "def batch(step):", "def batch(step):\n    raise KeyError('gone')\n")
    assert "failed at line" in error(capsys, *train(runs, script))
    script = edited(
        runs, "cross_entropy(model(x), y)", "cross_entropy(model(x), y, reduction='none')"
    )
    assert "loss" in error(capsys, *train(runs, script))
    script = edited(runs, "def optimizer():", "accumulate = 1.5\ndef optimizer():")
    assert "accumulate" in error(capsys, *train(runs, script))
    script = edited(runs, "ree.optim.AdamW(lr=0.01)", "torch.optim.AdamW")
    assert "ree.optim" in error(capsys, *train(runs, script))
    assert "steps" in error(capsys, *train(runs, runs / "train.py", "--steps", 0))
    assert "checkpoint_every" in error(
        capsys, *train(runs, runs / "train.py", "--checkpoint-every", 0)
    )
    assert "isa" in error(capsys, *train(runs, runs / "train.py", "--isa", "z80"))
    assert not (runs / "new").exists()


def test_a_nan_loss_stops_the_run_before_the_step(runs, capsys):
    script = edited(runs, "    x = r.standard", "    if step == 5: return torch.full((4, 6), float('nan')), "
                    "torch.zeros(4, dtype=torch.int64)\n    x = r.standard")  # fmt: skip
    err = error(capsys, *train(runs, script))
    assert "step 5" in err
    assert "state before step 5 is kept" in err
    run = RunReader(runs / "new")
    assert run.steps == 4
    assert run.checkpoints == [0, 3, 4]
    assert verify_run(run).same
    # and it goes on once the batch is mended
    args = train(runs, runs / "train.py", "--resume")
    assert main([str(x) for x in args]) == 0
    assert RunReader(runs / "new").records == RunReader(runs / "run").records[:8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "torch.zeros(5, 6), torch.zeros(5, dtype=torch.int64)",
            "expected shape [4, 6], got [5, 6]",
        ),
        ("(torch.zeros(4, 6),)", "expected 2 tensors, got 1"),
        ("torch.zeros(4, 6), torch.zeros(4)", "expected dtype i64"),
        ("None, None", "batch(5)"),
    ],
)
def test_a_batch_that_changes(runs, capsys, change, message):
    script = edited(runs, "    x = r.", f"    if step == 5: return {change}\n    x = r.")
    err = error(capsys, *train(runs, script))
    assert message in err
    assert "step 5" in err
    assert RunReader(runs / "new").checkpoints == [0, 3, 4]


def test_changed_data_is_named(runs, capsys):
    script = edited(runs, "def batch(", "def data():\n    return ['text.txt']\n\ndef batch(")
    assert "text.txt" in error(capsys, *train(runs, script))
    (runs / "text.txt").write_text("some words")
    assert main([str(x) for x in train(runs, script)]) == 0
    capsys.readouterr()
    assert main(["verify", str(runs / "new"), "--script", str(script)]) == 0
    (runs / "text.txt").write_text("other word")
    assert "data file 'text.txt' changed" in error(
        capsys, "verify", runs / "new", "--script", script
    )
    assert "text.txt" in error(
        capsys, "train", script, "-o", runs / "new", "--steps", 9, "--resume"
    )
    assert "text.txt" in error(capsys, "verify", runs / "new", "--script", runs / "train.py")
    assert main(["verify", str(runs / "new")]) == 0  # from the batches that it keeps


# the disk and other processes


def limited(size: int, call) -> int:
    """Exit code of `call` where no file may grow beyond `size`: it stands for a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        return call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("before", "size"),
    [(0, 100), (0, -500), (2, 100), (2, 500), (2, 1200), (2, 1700), (2, 2500), (2, 4500)],
)
def test_a_full_disk(runs, toy, before, size):
    """Wherever the disk is full, the run names the file and can be resumed to the same bits. size: of a file at
    most, in bytes; below zero, that many less than the largest file needs."""
    if size < 0:
        size += max(p.stat().st_size for p in (runs / "run").rglob("*"))
    run, args = runs / "new", {"run": runs / "new", "checkpoint_every": 4}
    if before:
        run_steps(toy.step, toy.batch, before, **args)

    def go() -> int:
        with pytest.raises(RunError, match=f"cannot write '{run}"):
            run_steps(toy.step, toy.batch, STEPS, resume=run.exists(), **args)
        return 0

    limited(size, go)
    assert not list(runs.rglob("*.tmp"))
    assert not [p for p in runs.iterdir() if p.name.startswith(".")]
    run_steps(toy.step, toy.batch, STEPS, resume=run.exists(), **args)
    assert RunReader(run).records == RunReader(runs / "run").records
    assert verify_run(RunReader(run)).same


def test_the_disk_fills_up_in_mid_run(runs, toy):
    """history.bin cannot take a whole record: it is left with whole ones."""
    run = runs / "new"
    run_steps(toy.step, toy.batch, 2, run=run, checkpoint_every=4)
    with RunWriter(run, toy.step) as w:
        record = RunReader(runs / "run").records[2]

        def go() -> int:
            with pytest.raises(RunError, match=r"history\.bin"):
                w._append(w._fds[0], "history.bin", encode_record(3, record))
            return 0

        limited(2 * RECORD_BYTES + 9, go)
    assert (run / "history.bin").stat().st_size == 2 * RECORD_BYTES
    assert RunReader(run).notes == []


def test_a_second_writer_is_refused(runs, toy):
    code = (
        "import sys, types\nfrom pathlib import Path\nfrom ree.training.writer import RunWriter\n"
        "from ree.errors import RunError\n"
        "try: RunWriter(Path(sys.argv[1]), None)\n"
        "except RunError as e: print(e)\n"
    )
    with RunWriter(runs / "run", toy.step):
        with pytest.raises(RunError, match="another process is writing"):
            RunWriter(runs / "run", toy.step)
        done = subprocess.run([sys.executable, "-P", "-c", code, runs / "run"], check=True,
                              capture_output=True, text=True)  # fmt: skip
        assert "another process is writing" in done.stdout
        assert verify_run(RunReader(runs / "run")).same  # reading is free
    RunWriter(runs / "run", toy.step).close()


# damaged and hostile files


def test_bad_checkpoints(runs, toy, capsys):
    path = step_file(runs / "run" / "checkpoints", 5)
    good, tensors = path.read_bytes(), load_file(path)

    def check(message: str) -> None:
        assert message in error(capsys, "verify", runs / "run", "--steps", "7")
        path.unlink(missing_ok=True)
        path.write_bytes(good)

    for size in (0, 5, 100, len(good) - 1):
        path.write_bytes(good[:size])
        check(str(path))
    path.write_bytes(good[:-4])
    check("truncated")
    path.write_bytes(good + b"\0")
    check("bytes of tensors")
    path.write_bytes(struct.pack("<Q", 2**60) + good[8:])
    check("header")
    flipped = bytearray(good)
    flipped[-9] ^= 2
    path.write_bytes(flipped)
    check("does not have the state root of step 5")
    save_file({k: v for k, v in tensors.items() if k != "seed"}, path)
    check("'seed' is missing")
    save_file(tensors | {"parameter.a.bias": np.zeros(9, np.float32)}, path)
    check("'parameter.a.bias': expected f32[8]")
    write_tensors(path, tensors, {"program": "0" * 64})
    check("another program")
    path.unlink()
    path.symlink_to(step_file(runs / "run" / "checkpoints", 10))
    check("regular file")
    header = {k: {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]} for k in tensors}
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    check("expected")
    path.unlink()  # then an earlier one serves
    assert main(["verify", str(runs / "run"), "--steps", "7"]) == 0
    step_file(runs / "run" / "checkpoints", 0).unlink()
    assert "no checkpoint at or before" in error(capsys, "verify", runs / "run", "--steps", "2")


def test_bad_batches(runs, capsys):
    path = step_file(runs / "run" / "batches", 7)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert "truncated" in error(capsys, "verify", runs / "run")
    raw = bytearray(good)
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert "not the batch that the run commits to in step 7" in error(
        capsys, "verify", runs / "run"
    )
    path.unlink()
    assert "keeps no batch of step 7" in error(capsys, "verify", runs / "run")
    assert main(["verify", str(runs / "run"), "--script", str(runs / "train.py")]) == 0


def test_without_kept_batches(runs, toy, capsys):
    run_steps(toy.step, toy.batch, 6, run=runs / "new", keep_batches=False)
    assert not list((runs / "new" / "batches").iterdir())
    assert "--script" in error(capsys, "verify", runs / "new")
    assert main(["verify", str(runs / "new"), "--script", str(runs / "train.py")]) == 0


def test_altered_history(runs, capsys):
    path = runs / "run" / "history.bin"
    good = path.read_bytes()
    for at in (0, 40, 65, 71, 5 * RECORD_BYTES + 3):
        raw = bytearray(good)
        raw[at] ^= 1
        path.write_bytes(raw)
        assert "history.bin" in error(capsys, "verify", runs / "run")
    path.write_bytes(good[: -3 * RECORD_BYTES])
    assert "expected 12 records, got 9" in error(capsys, "inspect", runs / "run")
    records, _ = decode_records(good)
    other = type(records[0])(records[0].state_root, records[0].loss ^ 1, records[0].batch)
    path.write_bytes(
        encode_record(1, other) + good[RECORD_BYTES:]
    )  # sound, but not what was sealed
    assert "was altered" in error(capsys, "verify", runs / "run")
    path.unlink()
    assert "regular file" in error(capsys, "verify", runs / "run")
    path.write_bytes(good)
    (runs / "run" / "tensors.bin").write_bytes(b"x" * 50)
    assert "tensor hashes of step 1" in error(capsys, "verify", runs / "run")
    (runs / "run" / "tensors.bin").unlink()  # a help for naming tensors, no more
    assert main(["verify", str(runs / "run")]) == 0


def test_bad_manifests(runs, capsys):
    path = runs / "run" / "manifest.json"
    good = json.loads(path.read_text())
    f = {"name": "x", "bytes": 3, "sha256": "0" * 64}
    for change, message in (
        ({"magic": "x"}, "not a training run"), ({"version": 9}, "version"), ({"more": 1}, "keys"),
        ({"program": "zz"}, "program"), ({"program": "0" * 64}, "program"),
        ({"instance": "0" * 64}, "altered"), ({"seed": 2**70}, "seed"), ({"seed": True}, "seed"),
        ({"seed": 1}, "altered"), ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"keep_batches": 1}, "keep_batches"), ({"contract": ""}, "contract"), ({"data": {}}, "data"),
        ({"data": [{**f, "bytes": -1}]}, "data"), ({"data": [{**f, "name": "a\nb"}]}, "data"),
        ({"initial_root": 5}, "initial_root"), ({"initial_root": "0" * 64}, "altered"),
    ):  # fmt: skip
        path.write_text(json.dumps(good | change))
        assert message in error(capsys, "verify", runs / "run"), change
    for raw in (b"", b"{", b"[" * 100000, b"\xff\xfe", b"[]", b"null"):
        path.write_bytes(raw)
        error(capsys, "verify", runs / "run")
    path.write_text(json.dumps(good))
    seal = runs / "run" / "commitment.json"
    for raw in (b"{", b"[]", b'{"steps": "x"}', b'{"steps": 1, "commitment": "zz"}'):
        seal.write_bytes(raw)
        assert "commitment.json" in error(capsys, "verify", runs / "run")
    seal.unlink()
    path.write_text(json.dumps(good | {"seed": 1}))  # all of it forged, but the seed is in S0
    assert "seed" in error(capsys, "verify", runs / "run")


def test_another_program_in_the_run(runs, toy_with, capsys):
    shutil.rmtree(runs / "run" / "program")
    assert "program" in error(capsys, "verify", runs / "run")
    toy_with("lr=0.01", "lr=0.02").step.save(runs / "run" / "program")
    assert "program: the manifest has" in error(capsys, "verify", runs / "run")


def test_bad_arguments(runs, capsys, tmp_path):
    run = runs / "run"
    for steps in ("0:3", "5:13", "9:2", "x", "1:2:3", "-1:2", "1e3"):
        assert "steps" in error(capsys, "verify", run, f"--steps={steps}")
    assert "sample" in error(capsys, "verify", run, "--sample", "0")
    assert "one of" in error(capsys, "verify", run, "--sample", "1", "--steps", "1:2")
    assert "step" in error(capsys, "trace", run, "--step", 13, "-o", tmp_path / "t")
    assert "step" in error(capsys, "trace", run, "--step", 0, "-o", tmp_path / "t")
    assert "Is a directory" in error(
        capsys, "trace", tmp_path / "absent", "--step", 1, "-o", tmp_path
    )
    served = ["party", "serve", run, "--key", tmp_path / "k", "--fault-step", 1]
    assert "without --inputs and --threads" in error(capsys, *served, "--threads", 0)
    assert "no run" in error(capsys, "diff", run, tmp_path / "absent")
    assert "not a training run" in error(capsys, "diff", run, run / "program")
    assert "no training file" in error(capsys, "verify", run, "--script", tmp_path / "absent.py")
    assert "for a training run" in error(capsys, "verify", run / "program", "--steps", "1:2")
    assert "--trace" in error(capsys, "verify", run / "program")
    assert "--trace" in error(capsys, "verify", run, "--trace", tmp_path / "t")


def test_data_beside_a_script_given_by_a_relative_path(tmp_path, monkeypatch):
    """The script finds its neighbours wherever it is called from."""
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "d.txt").write_text("data")
    lines = ["from pathlib import Path", "def data(): return [Path(__file__).parent / 'd.txt']"]
    (folder / "t.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    (found,) = TrainFile(Path("sub/t.py"), ()).data()
    assert (found.name, found.bytes) == ("d.txt", 4)
