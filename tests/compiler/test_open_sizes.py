"""Open sizes that inputs give as multiples, sums and products; columns put together again."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

import ree
from ree.errors import InputError, ReeError

N, B, T = Dim("n", min=2, max=40), Dim("b", min=2, max=9), Dim("t", min=2, max=9)


class Apply(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def compiled(f, x, sizes):
    return ree.compile(Apply(f), (x,), dynamic_shapes=(sizes,))


def same(program, f, *args):
    torch.testing.assert_close(program(*args), f(*args), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "n"), [(2 * N, 10), (4 * N - 1, 11), (2 * N + 6, 12)])
def test_an_axis_of_a_multiple(size, n):
    def f(x):
        return x.softmax(0), torch.cat([x, x[1:]]), x.sum() / x.shape[0]

    program = compiled(f, torch.randn(n, 1), {0: size})
    same(program, f, torch.randn(n + 4, 1))
    for bad in (n + 1, 1, 400):
        with pytest.raises(InputError, match=r"expected .*, got"):
            program(torch.randn(bad, 1))


def test_a_view_by_the_factor_of_a_multiple():
    def f(x):
        return x.view(x.shape[0] // 4, 4).sum(1), x.view(2, -1)

    program = compiled(f, torch.randn(12), {0: 4 * N})
    same(program, f, torch.randn(20))
    for bad in (18, 4 * 41, 4):
        with pytest.raises(InputError):
            program(torch.randn(bad))


def test_a_view_of_what_may_not_divide_is_refused_with_a_way_out():
    with pytest.raises(ReeError, match=r"declare the axis as a multiple in dynamic_shapes"):
        compiled(lambda x: x.view(-1, 4), torch.randn(12), {0: Dim.AUTO})


def test_products_of_open_sizes():
    def f(x):
        flat = x.reshape(x.shape[0] * x.shape[1], 4)
        return (flat @ flat.T).reshape(x.shape[0], x.shape[1], -1), flat.sum(0) / flat.shape[0]

    program = compiled(f, torch.randn(3, 5, 4), {0: B, 1: T})
    same(program, f, torch.randn(6, 2, 4))


def test_an_input_whose_size_is_a_product():
    class Sum(torch.nn.Module):
        def forward(self, y, x):
            return x.flatten() + y

    shapes = {"x": {0: B, 1: T}, "y": {0: Dim.AUTO}}
    program = ree.compile(Sum(), (torch.randn(15), torch.randn(3, 5)), dynamic_shapes=shapes)
    y, x = torch.randn(14), torch.randn(7, 2)
    assert torch.equal(program(y, x), x.flatten() + y)
    with pytest.raises(InputError, match=r"expected shape \[14\], got \[15\]"):
        program(torch.randn(15), x)


def test_columns_put_together():
    """F.fold over windows, strides, dilations and paddings, batched or not, and its inverse."""
    g = torch.Generator().manual_seed(2)
    cases = []
    for kernel, stride, dilation, padding in itertools.product(
        [(2, 3), (1, 1), (3, 2)], [1, (2, 1), (1, 3)], [1, (1, 2)], [0, (1, 0), (2, 1)]
    ):
        how = {"dilation": dilation, "padding": padding, "stride": stride}
        x = torch.randn(2, 3, 7, 8, generator=g)
        columns = F.unfold(x, kernel, **how)
        cases.append((kernel, how, columns, x))

    class Folds(torch.nn.Module):
        def forward(self, *columns):
            return [
                F.fold(c, (7, 8), k, **how) for c, (k, how, *_) in zip(columns, cases, strict=True)
            ]

    class Unfolds(torch.nn.Module):
        def forward(self, *images):
            return [F.unfold(x, k, **how) for x, (k, how, *_) in zip(images, cases, strict=True)]

    columns = tuple(c for *_, c, _ in cases)
    columns = (*columns[:-1], columns[-1][0])
    for y, want in zip(ree.compile(Folds(), columns)(*columns), Folds()(*columns), strict=True):
        torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5)
    images = tuple(x for *_, x in cases)
    for y, want in zip(ree.compile(Unfolds(), images)(*images), Unfolds()(*images), strict=True):
        assert torch.equal(y, want)


def test_inputs_that_give_different_values():
    class Pair(torch.nn.Module):
        def forward(self, x, y):
            return x.view(-1, 2) + y[:, None]

    shapes = {"x": {0: 2 * N}, "y": {0: N}}
    program = ree.compile(Pair(), (torch.randn(6), torch.randn(3)), dynamic_shapes=shapes)
    same(program, Pair(), torch.randn(10), torch.randn(5))
    with pytest.raises(InputError, match=r"input 'y': expected .* with s\d+=5, got shape \[4\]"):
        program(torch.randn(10), torch.randn(4))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * (x.shape[0] > 3),
        lambda x: torch.full((2,), x.shape[0] == 5),
        lambda x: x / (x.shape[0] / 2),
        lambda x: x * x.shape[0] ** -0.5,
        lambda x: x * (x.shape[0] & 1),
    ],
)
def test_numbers_that_are_made_of_sizes_are_refused_with_the_line(f):
    with pytest.raises(ReeError, match=r"test_open_sizes\.py:\d+") as e:
        compiled(f, torch.randn(5, 2), {0: N})
    assert "size" in str(e.value) or "shape" in str(e.value)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.split(2)[0],
        lambda x: x if x.shape[0] > 9 else -x,
        lambda x: x * float(x.shape[0]),
        lambda x: x[:7],
    ],
)
def test_a_condition_on_an_open_size_has_its_line(f):
    line = f.__code__.co_firstlineno
    with pytest.raises(ReeError, match=rf"test_open_sizes\.py:{line}\b"):
        compiled(f, torch.randn(5, 2), {0: N})
