"""Every file and field of a run, an artifact and a trace file, altered as an adversary would.

Digests over what is altered are made anew, so that only the claim itself can give it away. Verification
says that it differs (1) or refuses (2); what is covered by no claim is listed in docs/trace-format.md.
"""

import hashlib
import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

import ree
from ree.cli import main
from ree.files.safetensors import write_tensors
from ree.files.traces import read_trace_file
from ree.runtime.hashing import hash_array
from ree.traces.files import TraceFormatError, check_values, write_trace
from ree.traces.history import History, state_root
from ree.traces.trace import Sidecar, Trace, ValueInfo
from ree.training.directory import Manifest, RunReader, encode_record, step_file
from ree.training.writer import commitment_json

TRAIN = """
import torch
from ree import optim
model = lambda: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
loss = lambda m, b: (m(b[0]) ** 2).mean() + m(b[0])[:, 0].mean()
optimizer = lambda: optim.AdamW(0.1)
batch = lambda s: (torch.arange(8.0).view(4, 2).sin() * s, )
"""
DOC = (Path(__file__).parents[2] / "docs/trace-format.md").read_text()
STEPS, EVERY = 4, 2


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    d = tmp_path_factory.mktemp("honest")
    (d / "t.py").write_text(TRAIN)
    args = ["train", d / "t.py", "-o", d / "run", "--steps", STEPS, "--checkpoint-every", EVERY]
    assert main([str(x) for x in args]) == 0
    return d / "run"


@pytest.fixture
def run(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "run")
    return tmp_path / "run"


def uncovered(title):
    """The fields in a table, and those of them that nothing covers."""
    table = DOC[DOC.index(f"\n### {title}\n") :].split("\n### ")[1].split("\n## ")[0]
    rows = [r.strip("|").split("|") for r in table.splitlines() if r.startswith("| `")]
    found = [(n, r[1].strip()) for r in rows for n in re.findall("`([^`]+)`", r[0])]
    return {n for n, _ in found}, {n for n, by in found if by.startswith("nothing")}


def seal(run, records=None, **header):
    """Make all that binds the history anew, after records or members of the manifest were altered."""
    manifest = json.loads((run / "manifest.json").read_text()) | header
    (run / "manifest.json").write_text(json.dumps(manifest))
    reader = object.__new__(RunReader)
    reader.path, reader.notes = run, []
    records = reader._records() if records is None else records
    (run / "history.bin").write_bytes(
        b"".join(encode_record(s, r) for s, r in enumerate(records, 1))
    )
    manifest["data"] = tuple(manifest["data"])
    history = History(Manifest(**manifest).header(), records)
    (run / "commitment.json").write_text(json.dumps(commitment_json(history)))


def flipped(x):
    """Another first element, by so much that no later rounding hides it."""
    y = np.array(x)
    y.reshape(-1)[0] += 1
    return y


def altered(v):
    match v:
        case bool():
            return not v
        case int():
            return v + 1
        case str() if re.fullmatch("[0-9a-f]{64}", v):
            return ("0" if v[0] != "0" else "1") + v[1:]
        case str():
            return v + "x"
    return [{"name": "x", "bytes": 1, "sha256": "0" * 64}]


def refused(path, *more):
    return main(["verify", str(path), *map(str, more)]) in (1, 2)


def test_members_of_a_runs_manifest(run):
    names, free = uncovered("Training runs")
    good = json.loads((run / "manifest.json").read_text())
    assert main(["verify", str(run)]) == 0
    for f in fields(Manifest):
        assert f"manifest.{f.name}" in names, "a member that the table lacks"
        wrong = {f.name: altered(good[f.name])}
        (run / "manifest.json").write_text(json.dumps(good))
        if f.name in ("magic", "version"):
            (run / "manifest.json").write_text(json.dumps(good | wrong))
        else:
            seal(run, **wrong)
        assert refused(run) != (f"manifest.{f.name}" in free), f.name


@pytest.mark.parametrize("step", [0, 2, 4])
def test_every_tensor_of_a_checkpoint(run, step):
    reader = RunReader(run)
    path = step_file(run / "checkpoints", step)
    state = dict(zip(reader.step.names.states, reader.state(step), strict=True))
    assert {n.split(".")[0] for n in state} >= {"parameter", "buffer", "optimizer", "seed", "step"}
    metadata = {"program": reader.manifest.program, "step": str(step)}
    records, hashes = list(reader.records), (run / "tensors.bin").read_bytes()
    for name in state:
        false = state | {name: flipped(state[name])}
        write_tensors(path, false, metadata)
        rows = [hash_array(x) for x in false.values()]
        header = {"seed": int(false["seed"])} if step == 0 else {}
        if step == 0:
            header["initial_root"] = state_root(rows).hex()
            seal(run, records, **header)
        else:
            row = b"".join(rows)
            (run / "tensors.bin").write_bytes(
                hashes[: (step - 1) * len(row)] + row + hashes[step * len(row) :]
            )
            lie = replace(records[step - 1], state_root=state_root(rows))
            seal(run, [*records[: step - 1], lie, *records[step:]])
        assert main(["verify", str(run)]) == (2 if name == "seed" and step else 1), name
        if step == 0:
            seal(run, records, seed=reader.manifest.seed, initial_root=reader.manifest.initial_root)


@pytest.mark.parametrize("field", ["state_root", "loss", "batch"])
def test_every_member_of_a_record(run, field):
    records = list(RunReader(run).records)
    for s in (1, STEPS):
        was = getattr(records[s - 1], field)
        now = was ^ 1 if field == "loss" else bytes([was[0] ^ 1]) + was[1:]
        lie = replace(records[s - 1], **{field: now})
        seal(run, [*records[: s - 1], lie, *records[s:]])
        (run / "losses.csv").unlink(missing_ok=True)
        assert refused(run)
    seal(run, records)
    assert main(["verify", str(run)]) == 0


def test_a_batch_and_its_digest(run):
    reader = RunReader(run)
    path, records = step_file(run / "batches", 3), list(reader.records)
    write_tensors(path, {"batch0": flipped(reader.batch(3)[0])})
    assert refused(run)
    digest = state_root([hash_array(x) for x in load_file(path).values()])
    seal(run, [*records[:2], replace(records[2], batch=digest), *records[3:]])
    assert main(["verify", str(run)]) == 1


def test_what_stands_beside_the_history(run):
    good = json.loads((run / "commitment.json").read_text())
    for k, v in good.items():
        (run / "commitment.json").write_text(json.dumps(good | {k: altered(v)}))
        assert refused(run), k
    (run / "commitment.json").write_text(json.dumps(good | {"more": 1}))
    assert refused(run)
    (run / "commitment.json").write_text(json.dumps(good))
    losses = (run / "losses.csv").read_text()
    for false in (losses.replace("\n2,", "\n2,1"), losses[:-3], losses + "5,1.0\n", "x\n"):
        (run / "losses.csv").write_text(false)
        assert refused(run)
    (run / "losses.csv").write_text("".join(losses.splitlines(keepends=True)[:3]))
    assert main(["verify", str(run)]) == 0  # of the time before the run was continued
    hashes = bytearray((run / "tensors.bin").read_bytes())
    hashes[-1] ^= 1
    (run / "tensors.bin").write_bytes(hashes)
    assert refused(run)
    (run / "tensors.bin").unlink()
    assert main(["verify", str(run)]) == 0


def test_what_a_checkpoint_says_of_itself(run):
    path = step_file(run / "checkpoints", 2)
    reader = RunReader(run)
    state = dict(zip(reader.step.names.states, reader.state(2), strict=True))
    good = {"program": reader.manifest.program, "step": "2"}
    for metadata in (good | {"step": "3"}, good | {"program": "0" * 64}, {"step": "2"}, {}):
        write_tensors(path, state, metadata)
        assert refused(run), metadata
    write_tensors(path, state, good)
    assert main(["verify", str(run)]) == 0


# artifacts


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)

    def forward(self, x, y):
        return self.a(x).relu() - self.b(y), x + y


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    d = tmp_path_factory.mktemp("traced")
    p = ree.compile(Two(), (torch.ones(2, 3), torch.arange(6.0).view(2, 3)))
    p.save(str(d / "m.ree"))
    assert main(["run", str(d / "m.ree"), "--trace", str(d / "t"), "--trace-level", "ops"]) == 0
    return d


def rewritten(d, **members):
    """Digests and members of an artifact's manifest made anew."""
    m = json.loads((d / "manifest.json").read_text()) | members
    for name, entry in m["files"].items():
        raw = (d / name).read_bytes()
        entry.update(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    m["program"] = members.get(
        "program", hashlib.sha256((d / "graph.txt").read_bytes()).hexdigest()
    )
    (d / "manifest.json").write_text(json.dumps(m))


def test_members_of_an_artifacts_manifest(traced, tmp_path):
    names, free = uncovered("Artifacts")
    good = json.loads((traced / "m.ree/manifest.json").read_text())
    for k, v in good.items():
        assert f"manifest.{k}" in names, "a member that the table lacks"
        if k == "files":
            continue
        d = tmp_path / k
        shutil.copytree(traced / "m.ree", d)
        wrong = [*v[:-1], v[-1] + "2"] if isinstance(v, list) else altered(v)
        rewritten(d, **{k: wrong})
        # the examples are by name, so one of them has no input any more; a structure must fit
        found = refused(d, "--trace", traced / "t")
        assert found != (f"manifest.{k}" in free) or k in ("inputs", "structure"), k


def test_files_of_an_artifact(traced, tmp_path):
    def change(name, edit):
        d = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        shutil.copytree(traced / "m.ree", d)
        edit(d / name)
        assert refused(d, "--trace", traced / "t")  # its digest
        rewritten(d)
        return d

    def tensor(name):
        def edit(path):
            tensors = load_file(path)
            save_file(tensors | {name: flipped(tensors[name])}, path)

        return edit

    for name in ("a.weight", "a.bias", "b.weight", "b.bias"):
        assert refused(change("weights.safetensors", tensor(name)), "--trace", traced / "t")
    for name in ("x", "y"):
        assert refused(change("examples.safetensors", tensor(name)), "--trace", traced / "t")
    for name in ("weights.safetensors", "examples.safetensors"):
        d = change(name, lambda p: save_file(load_file(p) | {"more": np.ones(3)}, p))
        assert main(["verify", str(d), "--trace", str(traced / "t")]) == 2
    d = change("graph.txt", lambda p: p.write_text(p.read_text().replace("sub(", "add(")))
    assert refused(d, "--trace", traced / "t")


def test_origins_are_covered_by_nothing(traced, tmp_path, capsys):
    assert "origins.json" in uncovered("Artifacts")[1]
    d = tmp_path / "m.ree"
    shutil.copytree(traced / "m.ree", d)
    rows = json.loads((d / "origins.json").read_text())
    (d / "origins.json").write_text(json.dumps([["FALSE"] * 5 for _ in rows]))
    rewritten(d)
    capsys.readouterr()
    assert main(["verify", str(d), "--trace", str(traced / "t")]) == 0
    assert main(["inspect", str(d)]) == 0
    assert "FALSE" not in capsys.readouterr().out


# trace files


def test_members_of_a_trace(traced, tmp_path):
    names, _ = uncovered("Trace files")
    file = read_trace_file(str(traced / "t"))
    t = replace(file.trace, sidecar=Sidecar())
    for f in fields(Trace):
        assert f.name in names, "a member that the table lacks"
        v = getattr(t, f.name)
        many = isinstance(v, tuple)
        wrongs = [bytes([v[0] ^ 1]) + v[1:]] if isinstance(v, bytes) else []
        if many:
            wrongs = [(*v[:i], bytes([h[0] ^ 1]) + h[1:], *v[i + 1 :]) for i, h in enumerate(v)]
            wrongs += [v[:-1], (*v, v[-1])]
        for wrong in wrongs:
            write_trace(str(tmp_path / "t"), replace(t, **{f.name: wrong}), {})
            assert main(["verify", str(traced / "m.ree"), "--trace", str(tmp_path / "t")]) == 1
            assert main(["diff", str(traced / "t"), str(tmp_path / "t")]) == 1
    raw = (traced / "t").read_bytes()
    for at in (44 + 3, 44 + 4):  # version, level
        (tmp_path / "t").write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert refused(traced / "m.ree", "--trace", tmp_path / "t")


def test_tensors_of_a_trace_file(traced, tmp_path, capsys):
    file = read_trace_file(str(traced / "t"))
    assert {k[0] for k in file.tensors} == {"output", "value"}
    check_values(file)
    for key in file.tensors:
        false = {k: flipped(x) if k == key else x for k, x in file.tensors.items()}
        write_trace(str(tmp_path / "t"), file.trace, false)
        capsys.readouterr()
        assert main(["verify", str(traced / "m.ree"), "--trace", str(tmp_path / "t")]) == 1
        assert f"{key[0]} {key[1]}: the tensor carried is not" in capsys.readouterr().out
        bad = read_trace_file(str(tmp_path / "t")).tensors
        with pytest.raises(TraceFormatError, match=f"{key[0]} {key[1]}: expected bytes with hash"):
            bad[key]
        with pytest.raises(TraceFormatError):
            dict(bad)
        with pytest.raises(TraceFormatError):
            bad.get(key)
        assert bad.unchecked(key).tobytes() == false[key].tobytes()
        sound = next(k for k in bad if k != key)
        assert bad[sound].tobytes() == file.tensors[sound].tobytes()


def test_a_sidecar_is_never_shown_as_fact(traced, tmp_path, capsys):
    assert "sidecar" in uncovered("Trace files")[1]
    file = read_trace_file(str(traced / "t"))
    t = file.trace
    lie = Sidecar(tuple(ValueInfo(*["FALSE"] * 6, 1.0) for _ in t.values),
                  ("FALSE",) * len(t.inputs), ("FALSE",) * len(t.outputs), (("FALSE", "FALSE"),))  # fmt: skip
    false = replace(t, sidecar=lie, values=tuple(h if h == bytes(32) else bytes([h[0] ^ 1]) + h[1:]
                                                 for h in t.values))  # fmt: skip
    for trace, code in ((replace(t, sidecar=lie), 0), (false, 1)):
        write_trace(str(tmp_path / "t"), trace, {})
        capsys.readouterr()
        assert main(["verify", str(traced / "m.ree"), "--trace", str(tmp_path / "t")]) == code
        assert main(["inspect", str(tmp_path / "t")]) == 0
        assert "FALSE" not in capsys.readouterr().out
    assert main(["diff", str(tmp_path / "t"), str(traced / "t")]) == 1
    out, err = capsys.readouterr()
    assert "FALSE" in out
    assert "names and source lines are the files' own words" in err
