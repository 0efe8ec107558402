"""What training notices and keeps: batches that change, ragged parts, bad options, signals, trained models."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ree
from ree import optim
from ree.errors import InputError, PlatformError
from ree.random import Generator
from ree.training.interrupts import Interrupted

SCRIPT = """
import torch
from torch import nn
from ree import optim
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
def loss(m, b): return m(b[0]).pow(2).mean()
def optimizer(): return optim.SGD(0.01)
def batch(step): return (BATCH,)
"""


def train(batch, steps=2, **how):
    torch.manual_seed(0)
    loss = lambda m, b: (m(b[0]) - 1).pow(2).mean()  # noqa: E731
    return ree.train(nn.Linear(4, 1), loss, optim.SGD(0.1), batch, steps, **how)


def steady(step):
    return (Generator(0, step).normal((8, 4)),)


def test_a_batch_that_changes_is_told(tmp_path):
    g = torch.Generator().manual_seed(1)
    with pytest.warns(UserWarning, match=r"batch\(1\) gave other tensors"):
        assert train(lambda step: (torch.rand(8, 4, generator=g),)).notes
    assert not train(steady, run=tmp_path / "r").notes
    with pytest.warns(UserWarning, match=r"batch\(2\) gave other tensors"):
        train(lambda s: steady(s + 10 * (s == 2)), 3, run=tmp_path / "r", resume=True)


def test_ragged_parts_are_told():
    def notes(holes, k, **how):
        y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
        y[:holes] = -100
        loss = lambda m, b: F.cross_entropy(m(b[0]), b[1], **how)  # noqa: E731
        batch = lambda s: (torch.ones(8, 4), y)  # noqa: E731
        return ree.train(nn.Linear(4, 3), loss, optim.SGD(0.1), batch, 1, accumulate=k).notes

    with pytest.warns(UserWarning, match="different numbers of targets"):
        assert notes(2, 2)
    assert not notes(2, 1)
    assert not notes(0, 2)
    assert not notes(2, 2, reduction="sum")


def test_a_divisor_that_cannot_be_computed_is_told():
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 9])
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1], weight=torch.ones(3))  # noqa: E731
    batch = lambda s: (torch.ones(8, 4), y if s == 2 else y % 3)  # noqa: E731
    with pytest.raises(
        InputError, match=r"step 2: what the loss divides by .*care\.py:\d+: .*out of"
    ):
        ree.train(nn.Linear(4, 3), loss, optim.SGD(0.1), batch, 2, accumulate=2)


def test_bad_options_leave_no_run(tmp_path):
    for how, error in (({"threads": 0}, PlatformError), ({"checkpoint_every": 0}, InputError),
                       ({"checkpoint_every": 2.5}, InputError)):  # fmt: skip
        with pytest.raises(error):
            train(steady, run=tmp_path / "r", **how)
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_the_step(tmp_path, number, code):
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}[number]
    signal.signal(number, own)  # a background job is started with SIGINT ignored

    def progress(s, loss):
        if s == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as e:
        train(steady, 9, run=tmp_path / "r", progress=progress)
    assert (128 + e.value.number, e.value.step) == (code, 3)
    assert (tmp_path / "r/checkpoints/00000003.safetensors").exists()
    assert signal.getsignal(number) is own
    resumed = train(steady, 6, run=tmp_path / "r", resume=True)
    assert resumed.resumed_from == 3
    assert resumed.root == train(steady, 6).root


def test_cumulative_batch_norm():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=None))
    result = ree.train(net, lambda m, b: m(b[0]).sum(), optim.SGD(0.0), steady, 3, history=False)
    assert "forward" not in vars(net[1])
    for s in (1, 2, 3):
        net(steady(s)[0])
    for name, b in net.named_buffers():
        np.testing.assert_allclose(result.state[f"buffer.{name}"], b.numpy(), rtol=1e-5, atol=1e-6)


def test_load_into():
    result = train(steady)
    module = nn.Linear(4, 1)
    result.load_into(module)
    assert torch.equal(module.weight.detach(), torch.from_numpy(result.state["parameter.weight"]))
    other = nn.Linear(4, 2)
    before = other.weight.clone()
    for bad in (other, nn.Linear(4, 1, bias=False), nn.Linear(4, 1).double(), 3):
        with pytest.raises(InputError):
            result.load_into(bad)
    assert torch.equal(other.weight, before)


def command(cwd, *args):
    return subprocess.run([sys.executable, "-P", "-m", "ree.cli", *args], cwd=cwd, capture_output=True,
                          text=True)  # fmt: skip


def test_export_and_random_batches(tmp_path):
    (tmp_path / "t.py").write_text(SCRIPT.replace("BATCH", "torch.zeros(8, 4) + step"))
    assert command(tmp_path, "train", "t.py", "-o", "r", "--steps", "2").returncode == 0
    for how in (["m.safetensors"], ["m.ree", "--script", "t.py"]):
        made = command(tmp_path, "export", "r", "-o", *how)
        assert made.returncode == 0, made.stderr
    from safetensors.torch import load_file

    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    net.load_state_dict(load_file(tmp_path / "m.safetensors"))
    x = torch.ones(8, 4)
    np.testing.assert_allclose(ree.load(tmp_path / "m.ree")(x), net(x).detach(), rtol=1e-5)
    for bad in (["m.txt"], ["n.ree"], ["n.safetensors", "--script", "t.py"]):
        assert command(tmp_path, "export", "r", "-o", *bad).returncode == 2
    # a batch from another generator proves nothing; one that is no random draw does
    (tmp_path / "t.py").write_text(SCRIPT.replace("BATCH", "torch.randn(8, 4)"))
    told = command(tmp_path, "verify", "r", "--script", "t.py")
    assert told.returncode == 2, told
    assert "random generator (randn)" in told.stderr
    (tmp_path / "t.py").write_text(SCRIPT.replace("BATCH", "torch.zeros(8, 4)"))
    assert command(tmp_path, "verify", "r", "--script", "t.py").returncode == 1
