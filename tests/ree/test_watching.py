"""What is looked at while a model trains: metrics, validation, callbacks, TensorBoard files."""

import json
import os
import signal
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import ree
from ree import optim
from ree.cli import main
from ree.errors import InputError, InternalError, PlatformError, ReeError
from ree.random import Generator
from ree.training.directory import RunReader
from ree.training.interrupts import Interrupted
from ree.training.metrics import HEADER, Metrics, read_metrics


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def loss(model, batch):
    return (model(batch[0]) - 1).pow(2).mean()


def batch(step):
    return (Generator(0, step).normal((8, 4)),)


def held_out(step):
    return [(Generator(1, 2 * step + i).normal((16, 4)),) for i in range(2)]


def train(steps=4, optimizer=None, model=None, **how):
    return ree.train(model or net(), loss, optimizer or optim.SGD(0.1), batch, steps, **how)


def test_validation_is_the_loss_in_evaluation_mode(tmp_path):
    model = net().train()
    model[0].eval()
    result = train(model=model, validate=held_out, validate_every=2, run=tmp_path / "r")
    assert [m.training for m in model] == [False, True, True, True]
    assert [s for s, m in result.metrics.items() if m.validation_loss is not None] == [2, 4]
    result.load_into(model)
    model.eval()
    want = np.mean([loss(model, b).item() for b in held_out(4)])
    assert result.metrics[4].validation_loss == pytest.approx(want, rel=1e-5)
    one = train(validate=lambda s: held_out(s)[0][0], validate_every=4)  # a tensor is a batch too
    assert one.metrics[4].validation_loss == pytest.approx(
        loss(model, held_out(4)[0]).item(), rel=1e-5
    )
    # nothing of it is part of the run
    plain = train(run=tmp_path / "p")
    assert plain.history.commitment == result.history.commitment
    assert read_metrics(tmp_path / "r", 4) == result.metrics
    assert plain.metrics[1] == Metrics(float(np.float32(0.1)))


def test_tied_and_frozen_weights_are_validated():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
            self.b.weight = self.a.weight
            self.c.requires_grad_(False)

        def forward(self, x):
            return self.c(self.b(self.a(x).relu()))

    model = Tied()
    result = train(2, model=model, validate=lambda s: batch(9), validate_every=2)
    result.load_into(model)
    assert result.metrics[2].validation_loss == pytest.approx(
        loss(model, batch(9)).item(), rel=1e-5
    )


def test_the_learning_rate_has_the_bits_of_the_program():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.zero_()
    for schedule in (
        optim.Cosine(2, 9, 0.1),
        optim.Linear(0, 5),
        optim.Constant(3),
        optim.Constant(),
    ):
        found = []

        def callback(info, found=found):
            found.append((info.learning_rate, info.state["parameter.weight"][0, 0]))

        sgd = optim.SGD(0.3, schedule=schedule)
        moved = np.float32(0)
        ree.train(model, lambda m, b: -m(b[0]).sum(), sgd, lambda s: (torch.ones(1, 1),), 10,
                  callbacks=[callback])  # fmt: skip
        for rate, weight in found:
            moved = np.float32(moved + np.float32(rate))
            assert weight == moved


def test_the_gradient_norm_is_kept_where_it_is_asked_for(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    loss(model, batch(1)).backward()
    want = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    states = []
    for how in (
        {},
        {"gradient_norm": True},
        {"clip_norm": 0.5},
        {"clip_norm": 0.5, "gradient_norm": True},
    ):
        result = train(2, optim.SGD(0.1, **how), model, run=tmp_path / str(len(states)))
        states.append(result)
        norm = result.metrics[1].gradient_norm
        assert (norm == pytest.approx(want, rel=1e-5)) if "gradient_norm" in how else norm is None
        assert main(["verify", str(tmp_path / str(len(states) - 1))]) == 0
    for a, b in (states[:2], states[2:]):
        assert a.step.program_hash != b.step.program_hash
        assert np.array_equal(a.state["parameter.weight"], b.state["parameter.weight"])
    assert want > 0.5
    with pytest.raises(InputError, match="gradient_norm"):
        optim.SGD(0.1, gradient_norm=1)


def test_callbacks_stop_a_run_and_read_its_state(tmp_path):
    seen = []

    def callback(info):
        seen.append(info)
        assert set(info.state) >= {"parameter.0.weight", "step"}
        assert int(info.state["step"]) == info.step
        info.state["parameter.0.weight"][:] = 7  # a copy
        return info.step == 3

    other = []
    result = train(9, run=tmp_path / "r", callbacks=[callback, lambda i: other.append(i.step)])
    assert len(result.losses) == 3
    assert [(i.step, i.loss) for i in seen] == list(enumerate(map(float, result.losses), 1))
    assert other == [1, 2, 3]
    with pytest.raises(InputError, match="read it in the callback"):
        seen[0].state  # noqa: B018
    assert RunReader(tmp_path / "r").checkpoints == [0, 3]
    assert len(train(2, callbacks=[lambda i: 1]).losses) == 2  # only True itself stops
    assert train(6, run=tmp_path / "r", resume=True).root == train(6).root


@pytest.mark.parametrize("where", ["callbacks", "progress", "validate"])
def test_what_fails_after_a_step_keeps_it(tmp_path, where):
    def fail(*args):
        if (args[0] if where == "validate" else getattr(args[0], "step", args[0])) == 2:
            raise ZeroDivisionError("mine")
        return batch(1)

    how = {where: [fail] if where == "callbacks" else fail}
    how |= {"validate_every": 1} if where == "validate" else {}
    with pytest.raises(ZeroDivisionError, match="mine"):
        train(run=tmp_path / "r", **how)
    run = RunReader(tmp_path / "r")
    assert (run.steps, run.checkpoints) == (2, [0, 2])
    assert list(read_metrics(tmp_path / "r", 2)) == [1, 2]
    assert train(run=tmp_path / "r", resume=True).root == train().root


def test_metrics_of_a_resumed_run_are_those_of_a_straight_one(tmp_path):
    how = {"optimizer": optim.Adam(0.1, schedule=optim.Linear(1, 9), gradient_norm=True),
           "validate": held_out, "validate_every": 2}  # fmt: skip
    straight = train(6, run=tmp_path / "a", **how)
    train(3, run=tmp_path / "b", **how)
    resumed = train(6, run=tmp_path / "b", resume=True, **how)
    assert resumed.metrics == straight.metrics
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()


def test_a_bad_file_of_metrics_is_no_bad_run(tmp_path, capsys):
    train(3, run=tmp_path / "r")
    path = tmp_path / "r/metrics.csv"
    good = path.read_text()

    def inspect():
        assert main(["inspect", str(tmp_path / "r"), "--json"]) == 0
        out, err = capsys.readouterr()
        return json.loads(out)["metrics"], err

    capsys.readouterr()
    assert inspect() == ({"learning_rate": {"step": 3, "value": 0.1}}, "")
    path.write_text(good + "4,0.5,,\n")  # of a step that is not there; and a line in part
    assert inspect()[0]["learning_rate"]["step"] == 3
    path.write_text(good + "4,0.")
    assert inspect() == ({"learning_rate": {"step": 3, "value": 0.1}}, "")
    path.write_text(HEADER + "3,0.1,inf,nan\n")
    assert inspect()[0]["gradient_norm"] == {"step": 3, "value": "inf"}
    row = "1,0.1,,\n"
    for text in ("", "x\n", HEADER + "1,2\n", HEADER + "1,\x1b[2J,,\n", HEADER + "0,1,,\n", HEADER + 2 * row,
                 HEADER + "1,0x1,,\n", HEADER + "9" * 5000 + ",1,,\n",
                 HEADER + "1,1e" + "9" * 5000 + ",,\n"):  # fmt: skip
        path.write_text(text)
        found, err = inspect()
        assert found == {}
        assert err.startswith("note: no metrics: ")
        assert "\x1b" not in err
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert "regular file" in inspect()[1]
    assert main(["verify", str(tmp_path / "r")]) == 0
    with pytest.warns(UserWarning, match=r"metrics\.csv"):
        train(4, run=tmp_path / "r", resume=True)
    assert list(read_metrics(tmp_path / "r", 9)) == [4]
    path.unlink()  # as in runs of before
    train(5, run=tmp_path / "r", resume=True)
    assert list(read_metrics(tmp_path / "r", 9)) == [5]


# signals


def test_a_signal_before_the_first_step_of_a_resumed_run(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        train(3, run=tmp_path / "r")
        steps = []

        def stopped(s):
            steps.append(s)
            if len(steps) == 2:  # batch(1), then the batch of the checkpoint's step
                os.kill(os.getpid(), signal.SIGINT)
            return batch(s)

        for total in (3, 6):  # nothing is left to do; something is
            steps.clear()
            with pytest.raises(Interrupted) as e:
                ree.train(
                    net(), loss, optim.SGD(0.1), stopped, total, run=tmp_path / "r", resume=True
                )
            assert (e.value.step, steps) == (3, [1, 3])
        assert RunReader(tmp_path / "r").steps == 3
    finally:
        signal.signal(signal.SIGINT, before)


# TensorBoard


def scalars(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboard")
    how = {"run": tmp_path / "r", "tensorboard": tmp_path / "tb", "checkpoint_every": 2,
           "validate": held_out, "validate_every": 2}  # fmt: skip
    adam = optim.Adam(0.1, gradient_norm=True)
    with pytest.raises(ZeroDivisionError):
        train(5, adam, callbacks=[lambda i: 1 // (3 - i.step)], **how)
    result = train(5, adam, resume=True, **how)
    found = scalars(tmp_path / "tb")
    assert found["loss/train"] == list(enumerate(map(float, result.losses), 1))
    assert found["learning_rate"] == [(s, float(np.float32(0.1))) for s in range(1, 6)]
    assert found["gradient_norm"] == [(s, m.gradient_norm) for s, m in result.metrics.items()]
    assert found["loss/validation"] == [(s, result.metrics[s].validation_loss) for s in (2, 4)]


def test_tensorboard_refused_before_the_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "file/x", 3, ""):
        with pytest.raises(InputError, match="tensorboard"):
            train(run=tmp_path / "r", tensorboard=bad)
    for name in [m for m in sys.modules if m.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(PlatformError, match=r"ree-ml\[tensorboard\]"):
        train(run=tmp_path / "r", tensorboard=tmp_path / "tb")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


# the command line


def test_the_command_line(runs, capsys):
    script = runs / "train.py"
    text = script.read_text()
    args = ["train", str(script), "-o", str(runs / "new"), "--steps", "4"]
    assert main([*args, "--validate-every", "2"]) == 2
    assert "does not define validation()" in capsys.readouterr().err
    script.write_text(text + "\ndef validation(step):\n    return [batch(1000), batch(1001)]\n")
    for bad in ("0", "-1"):
        assert main([*args, "--validate-every", bad]) == 2
    assert not (runs / "new").exists()
    assert main([*args, "--validate-every", "2", "--tensorboard", str(runs / "tb"), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["metrics"]["learning_rate"] == {"step": 4, "value": 0.01}
    assert out["metrics"]["validation_loss"]["step"] == 4
    assert len(scalars(runs / "tb")["loss/validation"]) == 2
    assert main(["inspect", str(runs / "new")]) == 0
    assert "at step 4, not verified" in capsys.readouterr().out
    script.write_text(text + "\ndef validation(step):\n    return 1 / 0\n")
    assert main(["train", str(script), "-o", str(runs / "x"), "--steps", "4"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not (runs / "x").exists()


# the boundary


BAD = {
    "model": [None, 3, lambda x: x, nn.Linear],
    "loss": [None, 3, lambda m, b: 1.0, lambda m: m, lambda m, b: m(b[0]), lambda m, b: None],
    "optimizer": [None, torch.optim.SGD, "sgd", optim.SGD],
    "batch": [None, 3, [1], lambda: (torch.ones(8, 4),), lambda s: None, lambda s: 3, lambda s: (),
              lambda s: ("x",), lambda s: torch.ones(8, 4).double(), lambda s: (torch.ones(8, 4).to_sparse(),),
              lambda s: (torch.ones(8, 4, dtype=torch.complex64),), lambda s: (np.ones((8, 4)),),
              lambda s: (torch.ones(8, 4 + s - 1),), lambda s: (torch.ones(8, 4, device="meta"),)],
    "steps": [0, -1, 1.5, "3", None, True, 2**70],
    "checkpoint_every": [0, 2.5, "3", None, True],
    "seed": [1.5, "1", None, 2**63, True],
    "accumulate": [0, 1.5, "2", None, 3, True],
    "keep_batches": [None, 1, "no"],
    "resume": [None, 1, True],
    "history": [None, 0],
    "run": [3, "", "a\0b", b"x", ["x"], "/proc/nothing/here", "\udcff\udc00/" + "x" * 300],
    "data": ["file", 3, None, [3], ["absent"], [None], ["a\0b"]],
    "threads": [0, -1, "2", 1.5, 10**9],
    "isa": ["z80", 3, b"avx2", ["portable"]],
    "progress": [3, "x"],
    "validate": [3, lambda s: None, lambda s: [], lambda s: ("x",), lambda s: (torch.ones(3, 5),),
                 lambda s: (torch.ones(8, 4).to_sparse(),), lambda s: (torch.ones(8 * s, 4),), lambda: None],
    "validate_every": [0, 1.5, "1", 1, True],
    "callbacks": [3, [3], lambda i: None, None, {"a": 1}],
    "tensorboard": [3, "", b"x"],
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_told_in_one_line(tmp_path, name):
    good = {"model": net(), "loss": loss, "optimizer": optim.SGD(0.1), "batch": batch, "steps": 2}
    if name == "validate":
        good["validate_every"] = 1
    for bad in BAD[name]:
        with pytest.raises((ReeError, TypeError)) as e:
            ree.train(**good | {name: bad})
        assert not isinstance(e.value, InternalError), (name, bad, e.value)
        if isinstance(e.value, TypeError):  # a function of the user's with other arguments
            assert "takes 0 positional arguments" in str(e.value)
        else:
            assert "\n" not in e.value.message


def test_what_the_user_raises_passes_through(tmp_path):
    class Mine(Exception):
        pass

    for kind in (Mine, OSError, StopIteration, RuntimeError, ReeError):

        def fail(s, kind=kind):
            if s == 2:
                raise kind("mine")
            return batch(s)

        with pytest.raises(kind, match="mine"):
            ree.train(net(), loss, optim.SGD(0.1), fail, 3)
    with pytest.raises(ReeError) as e:
        ree.train(net(), lambda m, b: 1 / 0, optim.SGD(0.1), batch, 3)
    assert not isinstance(e.value, InternalError)


# parts of a batch


def _masked(model, b):
    mask = (b[1] == 1).float()
    return (model(b[0]).squeeze(1).pow(2) * mask).sum() / mask.sum().clamp(min=1)


RAGGED = {
    "ne": lambda m, b: m(b[0]).squeeze(1).where(b[1] != 0, 0).sum() / (b[1] != 0).sum(),
    "eq": _masked,
    "gt": lambda m, b: (m(b[0]).squeeze(1) * (b[1] > 0)).sum() / (b[1] > 0).sum(),
    "float mask": lambda m, b: (m(b[0]).squeeze(1) * b[2]).sum() / b[2].sum(),
    "bool mask": lambda m, b: (m(b[0]).squeeze(1) * b[3]).sum() / b[3].sum(),
    "reciprocal": lambda m, b: (m(b[0]).squeeze(1) * b[3]).sum() * b[3].sum().reciprocal(),
    "class weights": lambda m, b: nn.functional.cross_entropy(
        torch.cat([m(b[0]), -m(b[0])], 1), b[1], torch.tensor([1.0, 3.5])
    ),
    "threshold": lambda m, b: (
        (m(b[0]).squeeze(1) * b[3]).sum() / (b[0][:, 0] > 0.5).sum().clamp(min=1)
    ),
}
EVEN = {
    "mean": loss,
    "scaled": lambda m, b: m(b[0] / b[0].std()).pow(2).mean(),
    "constant": lambda m, b: m(b[0]).pow(2).sum() / 4,
    "rows": lambda m, b: (m(b[0]) / b[0].abs().sum(1, keepdim=True)).mean(),
    "weights": lambda m, b: m(b[0]).pow(2).mean() / m[0].weight.pow(2).sum(),
}


@pytest.mark.parametrize("name", [*RAGGED, *EVEN])
def test_parts_that_count_otherwise_are_told(name):
    def made(step):
        x = Generator(0, step).normal((8, 4))
        x[:, 0] = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1.0])
        y = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1])
        return x, y, y.float(), y > 0

    model = nn.Sequential(nn.Linear(4, 1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        notes = ree.train(
            model, (RAGGED | EVEN)[name], optim.SGD(0.01), made, 1, accumulate=2
        ).notes
    assert [str(w.message) for w in told if w.category is UserWarning] == notes
    assert ["different numbers" in n for n in notes] == [True] * (name in RAGGED)
