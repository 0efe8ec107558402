"""Products grouped by expert: near torch, one row at a time, the same on every instruction set."""

import pytest
import torch

import ree
from ree.compiler.frontend.aten import experts as aten_experts

pytest.importorskip("transformers.integrations.moe")  # it brings the operator


class Grouped(torch.nn.Module):
    def __init__(self, experts, transposed):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn((experts, 24, 16)))
        self.transposed = transposed

    def forward(self, x, ends):
        w = self.w if not self.transposed else self.w.reshape(-1, 16, 24).transpose(1, 2)
        if x.dtype is torch.bfloat16:
            return torch.nn.functional.grouped_mm(x, w, offs=ends)
        return torch.ops.transformers.grouped_mm_fallback(x, w, ends)


def expected(module, x, ends):
    w = module.w.detach()
    w = w.reshape(-1, 16, 24).transpose(1, 2) if module.transposed else w
    y, start = torch.zeros(len(x), 16), 0
    for e, end in enumerate(ends.tolist()):
        y[start:end] = x[start:end] @ w[e]
        start = end
    return y


@pytest.mark.parametrize("most_dense", [0, 32])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ends", [[3, 3, 7, 11], [0, 0, 0, 0], [11, 11, 11, 11], [1, 2, 3, 9]])
def test_grouped(most_dense, transposed, ends, monkeypatch):
    monkeypatch.setattr(aten_experts, "MOST_DENSE", most_dense)
    torch.manual_seed(0)
    module, x = Grouped(4, transposed), torch.randn(11, 24)
    program = ree.compile(module, (x, torch.tensor([2, 4, 8, 11], dtype=torch.int32)))
    last = ends[-1]  # torch leaves what is beyond as it was in memory
    ends = torch.tensor(ends, dtype=torch.int32)
    first = program.run(x, ends, trace="ops")
    y = first.outputs[0]
    torch.testing.assert_close(y, expected(module, x, ends))
    assert torch.count_nonzero(y[last:]) == 0
    other = program.run(x, ends, trace="ops", isa="portable", threads=1, fuse=False)
    assert other.trace.root == first.trace.root


def test_both_ways_have_the_same_bits_and_others_rows_do_not_matter(monkeypatch):
    torch.manual_seed(0)
    module, x = Grouped(4, True), torch.randn(11, 24)
    ends = torch.tensor([2, 5, 5, 11], dtype=torch.int32)
    dense = ree.compile(module, (x, ends))
    monkeypatch.setattr(aten_experts, "MOST_DENSE", 0)
    y = ree.compile(module, (x, ends))(x, ends)
    assert torch.equal(dense(x, ends).view(torch.int32), y.view(torch.int32))
    x[7:] = float("nan")
    assert torch.equal(dense(x, ends)[:7].view(torch.int32), y[:7].view(torch.int32))


def test_bfloat16():
    torch.manual_seed(0)
    module, x = Grouped(4, True).bfloat16(), torch.randn(11, 24).bfloat16()
    ends = torch.tensor([2, 5, 5, 11], dtype=torch.int32)
    with torch.no_grad():
        want = module(x, ends)
    torch.testing.assert_close(ree.compile(module, (x, ends))(x, ends), want, rtol=2**-7, atol=1e-6)
