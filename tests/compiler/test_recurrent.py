"""Recurrent layers, written out step by step: every flag near torch; the batch open, the time not."""

import pytest
import torch
from torch import nn

import ree
from ree.errors import CaptureError

FLAGS = [
    (nn.LSTM, {}),
    (nn.LSTM, {"bidirectional": True, "num_layers": 2, "dropout": 0.5}),
    (nn.LSTM, {"proj_size": 3, "batch_first": True, "bias": False}),
    (nn.GRU, {"bidirectional": True, "batch_first": True}),
    (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
]


class Recurrent(nn.Module):
    def __init__(self, kind, flags):
        super().__init__()
        self.layer = kind(6, 4, **flags)

    def forward(self, x):
        y, last = self.layer(x)
        return (y, *last) if isinstance(last, tuple) else (y, last)


@pytest.mark.parametrize(("kind", "flags"), FLAGS)
def test_an_open_batch(kind, flags):
    torch.manual_seed(0)
    module = Recurrent(kind, flags).eval()
    batch = 0 if flags.get("batch_first") else 1
    program = ree.compile(module, (torch.randn(3, 3, 6),), ({batch: torch.export.Dim("n")},))
    sizes = [3, 3, 6]
    sizes[batch] = 5
    x = torch.randn(sizes)
    first = program.run(x, trace="ops")
    for have, want in zip(first.outputs, module(x), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)
    other = program.run(x, trace="ops", isa="portable", threads=1, fuse=False)
    assert other.trace.root == first.trace.root


def test_an_open_time_is_refused():
    module = Recurrent(nn.GRU, {}).eval()
    with pytest.raises(CaptureError) as e:
        ree.compile(module, (torch.randn(3, 2, 6),), ({0: torch.export.Dim("t")},))
    assert "GRU 'layer'" in e.value.hint
    assert "time" in e.value.hint


def test_scripted_and_traced_submodules():
    layer, x = nn.Linear(6, 4), torch.randn(2, 6)
    traced = nn.Sequential(torch.jit.trace(layer, x), nn.ReLU())
    torch.testing.assert_close(ree.compile(traced, (x,))(x), traced(x))
    scripted = nn.Sequential(torch.jit.script(layer))
    with pytest.raises(CaptureError) as e:
        ree.compile(scripted, (x,))
    assert "submodule '0' is scripted" in e.value.hint
    with pytest.raises(CaptureError) as e:
        ree.compile(torch.jit.script(layer), (x,))
    assert "the model is scripted" in e.value.hint
