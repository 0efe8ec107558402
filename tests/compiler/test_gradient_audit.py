"""What in torch can change a gradient or a state: honoured as torch does it, or refused with its line."""

import re
from pathlib import Path

import pytest
import torch

import ree
from ree.errors import CaptureError, ReeError, UnsupportedError
from ree.optim import SGD

from . import gradient_audit as audit
from . import training_faults as faults

STEPS, RATE = 2, 0.1


def batch(step):
    return (torch.arange(20.0).reshape(5, 4).mul(0.7 + step).sin(),)


def torchs(model, loss):
    """Losses and state after plain steps of torch."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], RATE)
    losses = []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        value = loss(model, batch(step))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses, {k: v.detach() for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    ("what", "verdict", "loss", "make"), audit.AUDIT, ids=[r[0] for r in audit.AUDIT]
)
def test_row(what, verdict, loss, make):
    model = make()
    before = [(n, m.training) for n, m in model.named_modules()]
    plain = {n: dict(m.__dict__) for n, m in model.named_modules()}

    def whole(model, b):
        return loss(model, b[0])

    if verdict == "refused":
        with pytest.raises((CaptureError, UnsupportedError)) as e:
            ree.train(model, whole, SGD(RATE), batch, STEPS, history=False)
        said = " ".join((e.value.message, *e.value.items))
        assert re.search(r"audit\.py:\d+|'[\w.]+'|state of|\(a global\)|hook", said), said
        assert "\n" not in e.value.message
    else:
        run = ree.train(model, whole, SGD(RATE), batch, STEPS, history=False)
        losses, state = torchs(make(), whole)
        near = 2e-2 if what == "autocast" else 3e-5
        torch.testing.assert_close(
            torch.tensor(losses), torch.from_numpy(run.losses), rtol=near, atol=near
        )
        found = {k.split(".", 1)[1]: torch.from_numpy(v.copy()) for k, v in run.state.items()
                 if "." in k}  # fmt: skip
        first = {}  # names of tied tensors
        for name, value in make().state_dict(keep_vars=True).items():
            have = found.get(first.setdefault(id(value), name), value.detach())
            torch.testing.assert_close(have, state[name], rtol=near, atol=near)
    assert [(n, m.training) for n, m in model.named_modules()] == before
    for n, m in model.named_modules():
        assert m.__dict__.keys() == plain[n].keys()
        for t in [*m.__dict__.values(), *m._buffers.values(), *m._parameters.values()]:
            assert not isinstance(t, torch.Tensor) or type(t) in (torch.Tensor, torch.nn.Parameter)


FAULTS = {
    "no_grad inside checkpoint": faults.no_grad_ignored, "detach": faults.detach_ignored,
    "vmap": faults.wrappers_ignored, "Tensor.register_hook": faults.hooks_ignored,
    "a buffer changed inside checkpoint": faults.checkpoints_ignored,
    "a buffer that is only written": faults.buffers_dropped,
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_seen(what, monkeypatch):
    (row,) = (r for r in audit.AUDIT if r[0] == what)
    FAULTS[what](monkeypatch)
    with pytest.raises((AssertionError, ReeError, pytest.fail.Exception)):
        test_row(*row)


def test_the_documentation_has_every_row():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for what, verdict, *_ in audit.AUDIT:
        assert f"| {what} | {verdict} |" in text, what
