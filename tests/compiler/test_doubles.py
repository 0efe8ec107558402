"""float64 that only folds: the float32 numbers that torch makes of it."""

import pytest
import torch
from torch import nn

import ree
from ree.errors import CaptureError, UnsupportedError


class Of(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f
        self.register_buffer("table", torch.arange(1, 7, dtype=torch.float64) / 7)

    def forward(self, x):
        return self.f(self, x)


F64 = torch.float64
FOLDED = {
    "buffer": lambda m, x: x + (m.table * 2 + torch.arange(6, dtype=F64) * 0.1).float(),
    "linspace": lambda m, x: x * torch.linspace(0, 1, 6, dtype=F64).sqrt().float(),
    "phases": lambda m, x: (
        x * torch.cos(10000.0 ** (-torch.arange(0, 12, 2, dtype=F64) / 12)).to(x.dtype)
    ),
    "number": lambda m, x: x * torch.tensor(0.1, dtype=F64),
    "half": lambda m, x: x + m.table.half(),
    "compared": lambda m, x: torch.where(m.table > 0.5, x, -x),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    module, x = Of(FOLDED[name]), torch.randn(3, 6)
    program = ree.compile(module, (x,))
    have, want = program(x), module(x)
    assert have.dtype == want.dtype
    assert torch.equal(have, want)
    assert not program.names.weights


REFUSED = [
    ("computed from an input", lambda m, x: (x.double() * 0.1).float()),
    ("computed from an input", lambda m, x: (x * m.table).float()),
    ("not among", lambda m, x: x + m.table.cumsum(0).float()),
    ("log of -", lambda m, x: x + torch.log(m.table - 0.5).float()),
]


@pytest.mark.parametrize(("message", "f"), REFUSED)
def test_refused_by_line(message, f):
    with pytest.raises(UnsupportedError) as e:
        ree.compile(Of(f), (torch.randn(3, 6),))
    assert message in e.value.items[0]
    assert "test_doubles.py:" in e.value.items[0]


def test_float64_is_not_returned():
    with pytest.raises(CaptureError, match="returns float64"):
        ree.compile(Of(lambda m, x: m.table * 2), (torch.randn(3, 6),))
