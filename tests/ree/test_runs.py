"""Training runs: the same bits straight, resumed and replayed; false runs are found and located."""

import csv
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ree import _core
from ree.cli import main
from ree.errors import InputError
from ree.traces.history import History, check_opening, open_step
from ree.traces.tensor import tensor_hash
from ree.training.diff import diff_runs
from ree.training.directory import (
    RECORD_BYTES,
    RunReader,
    decode_records,
    encode_record,
    read_manifest,
    step_file,
)
from ree.training.loop import run_steps
from ree.training.replay import missing_probabilities, sample_steps, trace_step, verify_run
from ree.training.state_hash import StateHasher, unchanged_states
from ree.training.writer import RunWriter, commitment_json

STEPS, EVERY = 12, 5


class Proxy:
    """A runner that lies: it changes something around the steps of an honest one."""

    def __init__(self, step, at: int) -> None:
        self.runner, self.at, self.count = step.runner(), at, 0

    @property
    def state(self):
        return self.runner.state

    @property
    def intact(self):
        return self.runner.intact

    def load(self, state) -> None:
        self.runner.load(state)

    def run(self, batch):
        self.count += 1
        return self.lie(batch) if self.count == self.at else self.runner.run(batch)


class FlipsABit(Proxy):
    def lie(self, batch):
        loss = self.runner.run(batch)
        i = list(self.runner.step.names.states).index("parameter.a.weight")
        self.state[i].view(np.uint32)[3, 2] ^= 1
        return loss


class SkipsAStep(Proxy):
    def lie(self, batch):
        before = [x.copy() for x in self.state]
        loss = self.runner.run(batch)
        self.load(before)
        return loss


class SaysAnotherLoss(Proxy):
    def lie(self, batch):
        return np.nextafter(self.runner.run(batch), np.float32(0))


def content(run: Path) -> dict[str, bytes]:
    """Everything that a run is, file by file."""
    return {
        str(p.relative_to(run)): p.read_bytes()
        for p in run.rglob("*") if p.is_file() and p.suffix != ".png"
    }  # fmt: skip


def out(capsys, *args, code=0) -> str:
    capsys.readouterr()
    assert main([str(a) for a in args]) == code, capsys.readouterr().err
    return capsys.readouterr().out


# running


def test_train_in_python(honest, tmp_path):
    import torch

    import ree
    import ree.optim

    assert callable(ree.train)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 1))
    module[0].requires_grad_(False)
    x = torch.arange(12.0).view(4, 3) / 10

    def loss(m, batch):
        return ((m(batch[0]) - batch[0].sum(1, keepdim=True)) ** 2).mean()

    seen = []
    result = ree.train(module, loss, ree.optim.SGD(lr=0.1), lambda s: (x,), 20, run=tmp_path / "r", seed=5,
                       progress=lambda s, v: seen.append((s, v)))  # fmt: skip
    assert result.losses[-1] < result.losses[0] / 5
    assert seen == list(enumerate(result.losses.tolist(), 1))
    run = RunReader(tmp_path / "r")
    assert run.root_after(20) == result.root
    assert verify_run(run).same
    assert run.manifest.seed == 5
    assert run.step.names.weights == ("0.bias", "0.weight")
    assert RunReader(honest / "run").manifest.weights_root != run.manifest.weights_root


def test_a_run_says_what_happened(honest, toy):
    run = RunReader(honest / "run")
    straight = run_steps(toy.step, toy.batch, STEPS)
    assert run.steps == STEPS
    assert run.checkpoints == [0, 5, 10, 12]
    assert run.root_after(STEPS) == straight.root
    assert run.history.commitment == straight.history.commitment
    assert [r.loss_value for r in run.records] == straight.losses.tolist()
    last = load_file(step_file(honest / "run" / "checkpoints", STEPS))
    assert {k: v.tobytes() for k, v in last.items()} == {
        k: v.tobytes() for k, v in straight.state.items()
    }
    kept = load_file(step_file(honest / "run" / "batches", 7))
    np.testing.assert_array_equal(kept["batch0"], toy.batch(7)[0].numpy())
    with open(honest / "run" / "losses.csv") as f:
        rows = list(csv.DictReader(f))
    assert [np.float32(r["loss"]) for r in rows] == straight.losses.tolist()
    assert run_steps(toy.step, toy.batch, 3, history=False).history is None


def test_a_step_opens_against_the_commitment(honest):
    run = RunReader(honest / "run")
    h = run.history
    for s in (1, 7, STEPS):
        check_opening(h.commitment, h.header, STEPS, h.batches_root, h.history_root,
                      open_step(run.records, s))  # fmt: skip


def test_state_hashes_are_tensor_hashes(toy):
    g = toy.step.graph
    assert [toy.step.names.states[i] for i in unchanged_states(g)] == ["seed"]
    runner = toy.step.runner(threads=1)
    for isa in _core.isa_names():
        for threads in (1, 3):
            hasher = StateHasher(g.states, unchanged=unchanged_states(g), isa=isa, threads=threads)
            for s in (1, 2):
                runner.run(toy.batch(s))
                assert hasher(runner.state) == [tensor_hash(x) for x in runner.state]


def test_the_same_run_on_every_isa_and_thread_count(honest, toy):
    want = RunReader(honest / "run").history.commitment
    for isa in _core.isa_names():
        for threads in (1, 3):
            result = run_steps(toy.step, toy.batch, STEPS, isa=isa, threads=threads)
            assert result.history.commitment == want, (isa, threads)
    unfused = toy.step.runner(fuse=False)
    result = run_steps(toy.step, toy.batch, STEPS, runner=unfused)
    assert result.history.commitment == want


def test_killed_at_any_moment_and_resumed(toy, tmp_path):
    """SIGKILL at random moments until the run is through; every file is as without kills."""
    steps, straight, killed = 150, tmp_path / "straight", tmp_path / "killed"

    def train(run: Path, resume: bool, pause: float) -> None:
        def batch(s: int):
            time.sleep(pause)
            return [np.asarray(x) for x in toy.batch(s)]

        run_steps(toy.step, batch, steps, run=run, resume=resume, checkpoint_every=7, threads=1)

    train(straight, False, 0)
    rng, kills, seen, window = random.Random(1), 0, [], 0.05
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            try:
                train(killed, killed.exists(), 0.001)
                os._exit(0)
            except BaseException:
                os._exit(9)
        time.sleep(rng.uniform(0.1, 1) * window)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        if killed.exists():
            run = RunReader(killed)  # readable after every kill
            seen.append(run.steps)
        if not seen or seen[-1] <= max(seen[:-1], default=0):  # a busy machine: longer lives
            window *= 1.3
    else:
        pytest.fail("it never got through")
    assert kills >= 5
    assert len(set(seen)) >= 4, seen
    left = {p.name for p in killed.rglob("*.tmp")}
    assert content(killed) == content(straight) | dict.fromkeys(left, b"")
    assert verify_run(RunReader(killed)).same


def test_a_torn_tail_is_cut_off(runs, toy):
    want = content(runs / "run")
    raw = (runs / "run" / "history.bin").read_bytes()
    for cut in (*range(1, RECORD_BYTES + 1, 7), RECORD_BYTES):
        # the last checkpoint and its seal were never written
        step_file(runs / "run" / "checkpoints", STEPS).unlink()
        (runs / "run" / "commitment.json").unlink()
        (runs / "run" / "history.bin").write_bytes(raw[:-cut])
        run = RunReader(runs / "run")
        assert run.steps == STEPS - 1
        assert bool(run.notes) == (cut != RECORD_BYTES)
        (runs / "run" / "history.bin").write_bytes(
            raw[:-cut] + bytes(cut)
        )  # zeros, as after a crash
        assert RunReader(runs / "run").steps == STEPS - 1
        run_steps(toy.step, toy.batch, STEPS, run=runs / "run", resume=True)
        assert content(runs / "run") == want


def test_resume_goes_on(honest, toy, tmp_path):
    run_steps(toy.step, toy.batch, 4, run=tmp_path / "run", checkpoint_every=EVERY)
    with RunWriter(tmp_path / "run", toy.step) as w:
        assert w.start == 4
    result = run_steps(toy.step, toy.batch, STEPS, run=tmp_path / "run", resume=True)
    assert result.resumed_from == 4
    again = run_steps(toy.step, toy.batch, STEPS, run=tmp_path / "run", resume=True)
    assert again.resumed_from == STEPS
    assert again.history.commitment == RunReader(honest / "run").history.commitment
    with pytest.raises(InputError, match="has 12 already"):
        run_steps(toy.step, toy.batch, 3, run=tmp_path / "run", resume=True)


def test_a_step_that_fails_while_it_changes_the_state(honest, toy, tmp_path, monkeypatch):
    """What is half changed is no checkpoint: the run goes on from the one before."""
    runner = toy.step.runner()
    frame = runner.session._frame({})
    real, updates = frame.run_part, []

    def run_part(part, pool):
        real(part, pool)
        updates.append(part)
        if updates.count(1) == 7:
            raise InputError("planted")

    monkeypatch.setattr(frame, "run_part", run_part)
    run = tmp_path / "run"
    with pytest.raises(InputError, match="step 7: planted"):
        run_steps(toy.step, toy.batch, STEPS, run=run, checkpoint_every=EVERY, runner=runner)
    assert [step_file(run / "checkpoints", s).is_file() for s in (5, 6, 7)] == [True, False, False]
    with pytest.raises(InputError, match="while it changed the state"):
        runner.run(toy.batch(7))
    run_steps(toy.step, toy.batch, STEPS, run=run, resume=True)
    assert RunReader(run).records == RunReader(honest / "run").records


# verifying


def test_verify_and_inspect(honest, capsys):
    run = honest / "run"
    facts = json.loads(out(capsys, "inspect", run, "--json"))
    reader = RunReader(run)
    assert facts["root"] == reader.root_after(STEPS).hex()
    assert facts["commitment"] == reader.history.commitment.hex()
    assert facts["checkpoints"] == [0, 5, 10, 12]
    for isa in _core.isa_names():
        assert verify_run(reader, isa=isa, threads=2).same
    text = out(capsys, "verify", run)
    assert "same: 12 of 12 steps, 12 replayed" in text
    assert facts["commitment"] in text
    report = json.loads(out(capsys, "verify", run, "--steps", "7:8", "--json"))
    assert report["chosen"] == [7, 8]
    assert report["replayed"] == 3  # from the checkpoint after step 5
    report = json.loads(out(capsys, "verify", run, "--sample", "3", "--seed", "1", "--json"))
    assert report["chosen"] == sample_steps(STEPS, 3, 1)
    assert report["missing"]["0.1"] == pytest.approx(0.9**3)
    assert report["seed"] == 1
    text = out(capsys, "verify", run, "--sample", "2")
    assert "seed" in text
    assert "0.81" in text
    out(capsys, "verify", run, "--script", honest / "train.py", "--steps", "11")


def test_samples():
    assert sample_steps(50, 99, 0) == list(range(1, 51))
    assert sample_steps(10**9, 3, 4) == sample_steps(10**9, 3, 4)
    assert len(set(sample_steps(100, 40, 2))) == 40
    assert set(missing_probabilities(5, 5).values()) == {0.0}
    # a bound: 10 of 100 bad, 20 chosen
    exact = np.prod([(90 - i) / (100 - i) for i in range(20)])
    assert exact <= missing_probabilities(100, 20)[0.1]


def test_a_trace_of_one_step(honest, capsys, tmp_path):
    run = RunReader(honest / "run")
    roots = {
        trace_step(run, 8, isa=isa, threads=t).trace.root
        for isa in _core.isa_names()
        for t in (1, 3)
    }
    assert len(roots) == 1
    made = json.loads(out(capsys, "trace", run.path, "--step", 8, "-o", tmp_path / "t", "--json"))
    assert made["same"] is True
    assert made["root"] == roots.pop().hex()
    facts = json.loads(out(capsys, "inspect", tmp_path / "t", "--json"))
    assert facts["root"] == made["root"]
    assert facts["level"] == "ops"


@pytest.mark.parametrize("at", [3, 5, 12])
def test_a_flipped_bit_is_found_and_located(honest, toy, tmp_path, capsys, at):
    run = tmp_path / "run"
    run_steps(
        toy.step, toy.batch, STEPS, run=run, checkpoint_every=EVERY, runner=FlipsABit(toy.step, at)
    )
    text = out(capsys, "verify", run, code=1)
    assert f"differs: step {at}\n" in text
    assert "1 tensors: parameter.a.weight" in text
    assert ("[3, 2]" in text and "1 ulp" in text) == (at in (5, 12))  # where a checkpoint is
    report = verify_run(RunReader(run), [at])
    assert report.mismatch.step == at
    if at != 12:  # from a later checkpoint all is as it should be: the lie is at one step
        assert verify_run(RunReader(run), [11, 12]).same
    text = out(capsys, "diff", honest / "run", run, code=1)
    assert f"first differing step: {at} (state)" in text
    assert "left replays as it claims" in text
    assert f"right is wrong: step {at} does not replay" in text
    assert "parameter.a.weight" in text


def test_other_lies_are_found(honest, toy, tmp_path, capsys):
    run_steps(toy.step, toy.batch, STEPS, run=tmp_path / "a", runner=SkipsAStep(toy.step, 4))
    text = out(capsys, "verify", tmp_path / "a", code=1)
    assert "differs: step 4\n  state differs in 15 tensors" in text  # all but the seed
    run_steps(toy.step, toy.batch, STEPS, run=tmp_path / "b", runner=SaysAnotherLoss(toy.step, 6))
    text = out(capsys, "verify", tmp_path / "b", code=1)
    assert "differs: step 6\n  loss differs" in text


def test_reordered_batches(honest, toy, tmp_path, capsys):
    def swapped(s: int):
        return toy.batch({4: 5, 5: 4}.get(s, s))

    run_steps(toy.step, swapped, STEPS, run=tmp_path / "run", checkpoint_every=EVERY)
    out(capsys, "verify", tmp_path / "run")  # it is what it says it is
    text = out(capsys, "verify", tmp_path / "run", "--script", honest / "train.py", code=1)
    assert "differs: step 4\n  batch differs" in text
    text = out(capsys, "diff", honest / "run", tmp_path / "run", code=1)
    assert "first differing step: 4 (batch, state, loss)" in text
    assert text.count("replays as it claims") == 2
    assert "input 16 'batch0' differs\n  element  [0, 0]" in text
    assert "first differing value: %0\n  operator linear" in text
    assert text.count("distance") >= 2


def test_a_claimed_order_that_was_not_kept(honest, toy, tmp_path):
    """Batches 4 and 5 were swapped, and the records claim otherwise."""
    run = tmp_path / "run"
    run_steps(toy.step, lambda s: toy.batch({4: 5, 5: 4}.get(s, s)), STEPS, run=run,
              checkpoint_every=EVERY)  # fmt: skip
    records, _ = decode_records((run / "history.bin").read_bytes())
    true = RunReader(honest / "run").records
    for s in (4, 5):
        records[s - 1] = type(true[0])(
            records[s - 1].state_root, records[s - 1].loss, true[s - 1].batch
        )
        kept = step_file(honest / "run" / "batches", s).read_bytes()
        step_file(run / "batches", s).write_bytes(kept)
    forge(run, records)
    found = verify_run(RunReader(run)).mismatch
    assert found.step == 4
    assert found.state
    assert not found.batch


def forge(run: Path, records) -> None:
    """Write records and a commitment that fits them, as an adversary would."""
    (run / "history.bin").write_bytes(
        b"".join(encode_record(s, r) for s, r in enumerate(records, 1))
    )
    history = History(read_manifest(run).header(), records)
    (run / "commitment.json").write_text(json.dumps(commitment_json(history)))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [("lr=0.01", "lr=0.02", "operator"), ("gelu(self.a(x))", "relu(self.a(x))", "relu")],
)
def test_other_programs_are_located(honest, toy_with, tmp_path, capsys, old, new, what):
    other = toy_with(old, new)
    run_steps(other.step, other.batch, STEPS, run=tmp_path / "run", checkpoint_every=EVERY)
    text = out(capsys, "diff", honest / "run", tmp_path / "run", code=1)
    assert "differs: program, instance" in text
    assert "first differing step: 1" in text
    assert "first differing value: %" in text
    assert what in text


def test_other_starts_are_located(honest, toy_with, tmp_path, capsys):
    other = toy_with("manual_seed(0)", "manual_seed(1)")
    run_steps(other.step, other.batch, 2, run=tmp_path / "run")
    text = out(capsys, "diff", honest / "run", tmp_path / "run", code=1)
    assert "initial root" in text
    assert "S0 parameter.a.bias: element [0]" in text


def test_a_shorter_run_is_a_prefix(honest, toy, tmp_path, capsys):
    run_steps(toy.step, toy.batch, 7, run=tmp_path / "run")
    assert "the first 7 are the same" in out(
        capsys, "diff", honest / "run", tmp_path / "run", code=1
    )
    d = diff_runs(RunReader(honest / "run"), RunReader(honest / "run"))
    assert d.same
