"""Integers and truth values as torch computes them: divisions by 0, powers, convolutions, sums at indices."""

import pytest
import torch

import ree
from ree.errors import ReeError, UnsupportedError

WHOLE = [torch.int64, torch.int32, torch.int8]
DIVISIONS = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "remainder of a number": lambda a, b: torch.remainder(7, b),
    "floor_divide": torch.floor_divide,
    "fmod": torch.fmod,
    "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
}


class Apply(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


def same(f, *args):
    got, want = ree.compile(Apply(f), args)(*args), f(*args)
    assert got.dtype == want.dtype
    assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("name", DIVISIONS)
def test_an_integer_divided_by_zero_is_an_error(name, dtype):
    f = DIVISIONS[name]
    a, b = torch.tensor([7, -7, 5, -100], dtype=dtype), torch.tensor([2, 3, -4, -1], dtype=dtype)
    same(f, a, b)
    program = ree.compile(Apply(f), (a, b))
    b[2] = 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        f(a, b)
    with pytest.raises(ReeError, match="an integer is divided by 0, which is element 2 of"):
        program(a, b)
    with pytest.raises(ReeError, match="an integer is divided by 0"):
        program.run(a, b, device="interpret")


def test_a_divisor_that_is_known_is_refused_or_not_checked():
    x = torch.arange(-4, 4)
    with pytest.raises(UnsupportedError, match="an integer divided by 0"):
        ree.compile(Apply(lambda x: x // 0), (x,))
    zeros = ree.compile(Apply(lambda x: x % torch.zeros_like(x)), (x,))
    with pytest.raises(ReeError, match="divided by 0"):
        zeros(x)
    program = ree.compile(Apply(lambda x: x % 3), (x,))
    assert [n.op for n in program.graph.nodes] == ["remainder"]


def test_floats_and_nothing_are_divided_by_zero():
    same(lambda a, b: torch.isnan(a % b), torch.tensor([1.0, -2.0]), torch.tensor([0.0, -0.0]))
    same(lambda a, b: a // b, torch.ones(0, 2, dtype=torch.int64), torch.tensor([0, 1]))


@pytest.mark.parametrize("dtype", WHOLE)
def test_powers(dtype):
    x, e = torch.meshgrid(
        torch.tensor([-3, -2, -1, 0, 1, 2, 3, 7, 100]), torch.tensor([0, 1, 2, 5, 19, 62, 63, 64, 90, 127]),
        indexing="ij",
    )  # fmt: skip
    x, e = (v.reshape(-1).to(dtype) for v in (x, e))
    same(torch.pow, x, e)
    same(lambda x: x**9, x)
    same(lambda e: 3**e, e)
    low = torch.tensor([-1, -2, -3], dtype=dtype)
    same(torch.pow, torch.tensor([[-1], [1], [2], [-5]], dtype=dtype), low)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_logarithmic_spaces_between_tensors(dtype):
    def f(*ends):
        return [torch.logspace(a, b, 4, base, dtype=dtype) for a, b in zip(ends[::2], ends[1::2], strict=True)
                for base in (2, 3, 5.0, 10, 1.1, 0.5, 1)]  # fmt: skip

    ends = tuple(torch.tensor(v) for v in (0, 4, -2, 5, 7, 1, 4.3, 0))
    for got, want in zip(ree.compile(Apply(f), ends)(*ends), f(*ends), strict=True):
        near = {"rtol": 0 if dtype is torch.int64 else 2e-6, "atol": 0}
        torch.testing.assert_close(got, want, **near)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32, torch.int64])
@pytest.mark.parametrize("space", [torch.linspace, torch.logspace])
def test_ends_of_spaces_in_another_type(space, dtype):
    """Ends are rounded or cut to the type first, tensors and numbers, unless there is one number."""

    def f(a, b):
        return [
            space(*ends, steps, dtype=dtype)
            for steps in (1, 2, 5)
            for ends in ((a, b), (a, -3), (1.2, a))
        ]

    ends = torch.tensor(4.3), torch.tensor(-3)
    for got, want in zip(ree.compile(Apply(f), ends)(*ends), f(*ends), strict=True):
        near = {torch.bfloat16: 2**-8, torch.float16: 2**-10}.get(dtype, 0)
        torch.testing.assert_close(got, want, rtol=near, atol=near)


def test_logarithmic_spaces_of_a_negative_base():
    ends = torch.tensor(7), torch.tensor(1)
    same(lambda a, b: torch.logspace(a, b, 4, -3, dtype=torch.int64), *ends)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "how", [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}]
)
def test_convolutions(groups, how):
    g = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randint(-(2**40), 2**40, shape, generator=g)

    x, b = draw(2, 4, 7, 6), draw(6)
    same(
        lambda x, w, b: torch.conv2d(x, w, b, groups=groups, **how),
        x,
        draw(6, 4 // groups, 3, 2),
        b,
    )
    same(lambda x, w: torch.conv1d(x, w, groups=groups, **how), x[:, :, 0], draw(6, 4 // groups, 3))
    if "same" not in how.values():
        w = draw(4, 3, 3, 2)
        same(lambda x, w: torch.conv_transpose2d(x, w, groups=groups, **how), x, w)


def test_sums_of_truth_values_at_indices():
    x, i = torch.tensor([True, False, False]), torch.tensor([2, 2, 0])
    y = torch.tensor([True, True, False])
    same(lambda x, i, y: x.index_add(0, i, y), x, i, y)
    same(lambda x, i, y: x.scatter_add(0, i, y), x, i, y)
    same(lambda x, i, y: x.index_put((i,), y, accumulate=True), x, i, y)
    same(lambda x, i, y: x.put(i, y, accumulate=True), x, i, y)
    same(torch.fmax, x, y)
    same(torch.fmin, x, y)
