"""torch.cond: the branch taken is what comes out, bit for bit, whatever the other holds."""

import pytest
import torch
from torch import nn

import ree
from ree.errors import UnsupportedError
from ree.optim import SGD
from ree.training.step import compile_step


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return torch.cond(x.sum() > 0, self.a, lambda x: torch.log(self.b(x)), (x,))


def test_the_other_branch_is_not_seen():
    torch.manual_seed(0)
    module = Branches()
    with torch.no_grad():
        module.b.weight.fill_(float("inf"))
    x = torch.rand(3, 6)
    program = ree.compile(module, (x,))
    first = program.run(x, trace="ops")
    torch.testing.assert_close(first.outputs[0], module.a(x))
    other = program.run(x, trace="ops", isa="portable", threads=1, fuse=False)
    assert other.trace.root == first.trace.root
    torch.testing.assert_close(program(-x), torch.log(module.b(-x)), equal_nan=True)


class Nested(nn.Module):
    def forward(self, x, i):
        def inner(x, i):
            return torch.cond(
                x.max() > 1, lambda x, i: (x.sin(), i + 1), lambda x, i: (x.cos(), i * 2), (x, i)
            )

        return torch.cond(x.sum() > 0, inner, lambda x, i: (x * 2, i - 1), (x, i))


@pytest.mark.parametrize(
    "x", [torch.full((4,), 2.0), torch.full((4,), 0.5), torch.full((4,), -1.0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nested(x, dtype):
    x, i = x.to(dtype), torch.arange(4, dtype=torch.int32)
    program = ree.compile(Nested(), (torch.zeros(4, dtype=dtype), i))
    for have, want in zip(program(x, i), Nested()(x, i), strict=True):
        assert have.dtype == want.dtype
        torch.testing.assert_close(have, want)


class OnSize(nn.Module):
    def forward(self, x):
        return torch.cond(x.shape[0] > 4, lambda x: x + 1, lambda x: x * 2, (x,))


def test_a_predicate_that_is_a_size():
    x = torch.ones(3)
    assert torch.equal(ree.compile(OnSize(), (x,))(x), x * 2)
    with pytest.raises(UnsupportedError) as e:
        ree.compile(OnSize(), (x,), ({0: torch.export.Dim("n")},))
    assert "cond at test_branches.py" in e.value.items[0]


class Inside(nn.Module):
    def forward(self, x):
        return torch.cond(
            x.sum() > 0, lambda x: torch.linalg.svd(x)[1] + 1, lambda x: x[0] + 1, (x,)
        )


class Loop(nn.Module):
    def forward(self, x):
        from torch._higher_order_ops import while_loop

        return while_loop(lambda x: x.sum() < 5, lambda x: (x + 1,), (x,))[0]


def test_refused_by_line():
    with pytest.raises(UnsupportedError, match="svd") as e:
        ree.compile(Inside(), (torch.ones(2, 2),))
    assert "test_branches.py" in e.value.items[0]
    with pytest.raises(UnsupportedError, match="while_loop") as e:
        ree.compile(Loop(), (torch.ones(2),))
    assert "test_branches.py" in e.value.items[0]
    assert "loops" in e.value.hint


def test_not_in_training():
    def loss(model, batch):
        return model(batch[0]).sum()

    with pytest.raises(UnsupportedError) as e:
        compile_step(Branches(), loss, SGD(0.1), (torch.ones(2, 6),))
    assert "gradients of both branches" in e.value.items[0]
