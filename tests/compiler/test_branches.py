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


def quotient(x, d):
    def inner(x, d):
        return torch.cond(d[0] != 0, lambda x, d: x // d[0], lambda x, d: x + 1, (x, d))

    return torch.cond(d.sum() != 0, inner, lambda x, d: x % d, (x, d))


def row(x, d):
    return torch.cond(d[0] < 3, lambda x, d: x[d], lambda x, d: x[:2] + d[1], (x, d))


def put(x, d):
    def place(x, d):
        return x.index_put((d[:1],), d[1:])

    return torch.cond(d[0] < 3, place, lambda x, d: x * 2, (x, d))


@pytest.mark.parametrize(
    ("f", "divisors"),
    [
        (quotient, [(2, 3), (0, 2), (1, -1), (0, 0)]),
        (row, [(2, 1), (5, 1), (1, 7)]),
        (put, [(2, 1), (9, 1), (-7, 1)]),
    ],
)
def test_the_other_branch_is_not_heard(f, divisors):
    """What is out of range or divides by 0 in the branch taken is an error, in the other it is not."""

    class Module(nn.Module):
        def forward(self, x, d):
            return f(x, d)

    x = torch.tensor([7, -8]) if f is quotient else torch.tensor([7, -8, 9])
    program = ree.compile(Module(), (x, torch.tensor(divisors[0])))
    raised = 0
    for given in divisors:
        d = torch.tensor(given)
        try:
            want = f(x, d)
        except Exception:
            raised += 1
            with pytest.raises(ree.ReeError):
                program(x, d)
        else:
            assert torch.equal(program(x, d), want)
    assert raised == 1
