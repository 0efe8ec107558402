"""What cannot be trained, and batches that do not fit: errors of one line, the state kept."""

import numpy as np
import pytest
import torch
from torch import nn

import ree
from ree.errors import ArtifactError, CaptureError, InputError, ReeError, UnsupportedError
from ree.optim import SGD, AdamW
from ree.training.step import NonFiniteLoss, Step, compile_step


def linear():
    return nn.Linear(4, 3)


X = torch.randn(5, 4)


class Extra(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.a(x)


def summed(m, batch):
    return m(batch[0]).sum()


BAD = {
    r"returns tuple, not a tensor at test_step_errors\.py:": (
        linear, lambda m, b: (m(b[0]).mean(), 1), (X,), CaptureError,
    ),
    r"returns dict, not a tensor": (linear, lambda m, b: {"loss": m(b[0]).mean()}, (X,), CaptureError),
    r"returns float, not a tensor": (linear, lambda m, b: 1.0, (X,), CaptureError),
    "loss: expected one f32 number": (linear, lambda m, b: m(b[0]), (X,), CaptureError),
    r"loss: expected one f32 number, got i64": (linear, lambda m, b: m(b[0]).argmax(), (X,), CaptureError),
    "parameter 'unused.weight' has no gradient": (Extra, summed, (X,), CaptureError),
    "parameter 'bias' has no gradient": (linear, lambda m, b: (m.weight @ b[0][0]).sum(), (X,), CaptureError),
    "does not vary with it": (linear, lambda m, b: m(b[0]).round().sum(), (X,), CaptureError),
    "no parameter is trainable": (lambda: linear().requires_grad_(False), summed, (X,), CaptureError),
    "not supported: _linalg_det": (linear, lambda m, b: torch.linalg.det(m(b[0])[:3]), (X,), UnsupportedError),
    "float64": (lambda: linear().double(), summed, (X.double(),), UnsupportedError),
    r"parameter 'weight' is trained, and torch.bfloat16": (
        lambda: linear().bfloat16(), lambda m, b: m(b[0].bfloat16()).float().sum(), (X,), UnsupportedError,
    ),
    r"parameter 'weight' is trained, and torch.float16": (
        lambda: linear().half(), lambda m, b: (b[0] @ m.weight.float().T).sum(), (X,), UnsupportedError,
    ),
    r"weight 'weight' has dtype|batch has dtype": (
        lambda: linear().double(), lambda m, b: m(b[0].double()).sum(),
                                                  (X,), UnsupportedError),
    "changes a batch in place": (linear, lambda m, b: m(b[0].mul_(2)).sum(), (X,), CaptureError),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_trained_is_refused_in_one_line(message):
    model, loss, batch, error = BAD[message]
    with pytest.raises(error, match=message) as e:
        compile_step(model(), loss, SGD(0.1), batch)
    assert "\n" not in e.value.message


def test_the_line_is_the_users_whatever_the_function_is_called():
    def helper(x):
        return torch.i0(x)

    def loss(m, batch):
        return helper(m(batch[0])).sum()

    class Named(nn.Module):
        def given(self, x):
            return helper(x)

        forward = given

    line = rf"i0 at test_step_errors\.py:{helper.__code__.co_firstlineno + 1}\b"
    with pytest.raises(UnsupportedError, match=line):
        compile_step(linear(), loss, SGD(0.1), (X,))
    with pytest.raises(UnsupportedError, match=r"i0 at test_step_errors\.py"):
        ree.compile(Named(), (X,))


def test_bad_arguments():
    for change, message in (({"seed": 2**63}, "seed"), ({"accumulate": 0}, "accumulate")):
        with pytest.raises(InputError, match=message):
            compile_step(linear(), summed, SGD(0.1), (X,), **change)
    with pytest.raises(InputError, match="optimizer"):
        compile_step(linear(), summed, torch.optim.SGD, (X,))
    with pytest.raises(InputError, match="tuple of tensors"):
        compile_step(linear(), summed, SGD(0.1), X)


def test_batches_and_states_that_do_not_fit(tmp_path):
    step = compile_step(linear(), summed, SGD(0.1), (X,))
    runner = step.runner()
    bad = [
        ((X[:4],), "shape"),
        ((X.double(),), "f32"),
        ((X, X), "expected 1 tensors"),
        ((X.long(),), "f32"),
    ]
    before = [x.tobytes() for x in runner.state]
    for batch, message in bad:
        with pytest.raises(InputError, match=message):
            runner.run(batch)
    with pytest.raises(InputError, match="expected 4 tensors"):
        runner.load(runner.state[:-1])
    with pytest.raises(InputError, match=r"state 'parameter\.bias'"):
        runner.load([np.zeros(7, np.float32), *runner.state[1:]])
    assert [x.tobytes() for x in runner.state] == before
    ree.compile(linear(), (X,)).save(tmp_path / "m.ree")
    with pytest.raises(ArtifactError, match="not a training step"):
        Step.load(tmp_path / "m.ree")
    assert issubclass(NonFiniteLoss, ReeError)


def test_an_index_out_of_range_keeps_the_state():
    step = compile_step(nn.Embedding(5, 3), summed, AdamW(0.1), (torch.tensor([0, 1]),))
    runner = step.runner()
    before = [x.tobytes() for x in runner.state]
    with pytest.raises(InputError, match=r"not in \[0, 5\)"):
        runner.run((torch.tensor([0, 5]),))
    assert [x.tobytes() for x in runner.state] == before
