"""Calls composed of a few operators, against eager mode: values, types and gradients."""

import pytest
import torch
import torch.nn.functional as F

import ree
from ree.errors import ReeError

CALLS = {
    "signbit": (torch.signbit, "edges"),
    "signbit of integers": (torch.signbit, "whole"),
    "signbit of truths": (lambda x: torch.signbit(x > 0), "x"),
    "angle": (torch.angle, "edges"),
    "angle of integers": (torch.angle, "whole"),
    "ldexp": (torch.ldexp, "x whole"),
    "dist": (torch.dist, "x y"),
    "dist of a row": (lambda x, r: torch.dist(x, r, 3), "x row"),
    "dist of magnitudes": (lambda x, y: torch.dist(x, y, 1), "x y"),
    "dist of the greatest": (lambda x, y: torch.dist(x, y, torch.inf), "x y"),
    "dist of a count": (lambda x, y: torch.dist(x, y, 0), "x y"),
    "rrelu": (F.rrelu, "x"),
    "rrelu with bounds": (lambda x: F.rrelu(x, 0.1, 0.5), "x"),
    "bilinear": (F.bilinear, "x y cube"),
    "bilinear with bias": (lambda x, y, w, b: F.bilinear(x, y, w, b[:3]), "x y cube row"),
    "bilinear of a volume": (lambda x, y, w: F.bilinear(x[None], y[None], w), "x y cube"),
    "upper triangle": (lambda x: torch.triu_indices(4, 5, 1) + x[0, 0].long(), "x"),
    "lower triangle": (lambda x: torch.tril_indices(5, 3, -1) + x[0, 0].long(), "x"),
    "triangle of no rows": (lambda x: torch.tril_indices(0, 3) + x[0, 0].long(), "x"),
    "put": (lambda x, r: x.put(torch.tensor([[3, 0], [-1, 5]]), r[:4].view(2, 2)), "x row"),
    "put that adds": (lambda x, r: x.put(torch.tensor([3, 3]), r[:2], accumulate=True), "x row"),
    "masked_scatter": (lambda x, y: x.masked_scatter(x > 0, y), "x y"),
    "masked_scatter by a row": (lambda x, r, y: x.masked_scatter(r > 0, y), "x row y"),
    "masked_scatter into a row": (lambda r, x, y: r.masked_scatter(x > 0, y), "row x y"),
    "masked_scatter of integers": (lambda i, r: i.masked_scatter(r > 0, i + 90), "whole row"),
    "hamming": (lambda r: r * torch.hamming_window(6), "row"),
    "hamming with numbers": (lambda r: r * torch.hamming_window(6, False, 0.6, 0.3), "row"),
    "blackman": (lambda r: r * torch.blackman_window(6, periodic=False), "row"),
    "bartlett": (lambda r: r * torch.bartlett_window(6), "row"),
    "a window of one": (lambda r: r * torch.bartlett_window(1), "row"),
}


def inputs():
    g = torch.Generator().manual_seed(0)
    edges = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, torch.inf, -torch.inf, torch.nan]
    return {
        "x": torch.randn(4, 6, generator=g), "y": torch.randn(4, 6, generator=g),
        "row": torch.randn(6, generator=g), "cube": torch.randn(3, 6, 6, generator=g),
        "whole": torch.arange(24).view(4, 6) - 9, "edges": torch.tensor(edges),
    }  # fmt: skip


class Apply(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


@pytest.mark.parametrize("name", CALLS)
def test_values_are_those_of_eager(name):
    f, names = CALLS[name]
    args = tuple(inputs()[n] for n in names.split())
    got = torch.as_tensor(ree.compile(Apply(f), args).run(*args).outputs[0])
    torch.testing.assert_close(got, f(*args), rtol=2e-6, atol=1e-6, equal_nan=True)


def test_the_power_in_ldexp_is_exact():
    e = torch.arange(-126, 128)
    ones = torch.ones(len(e))
    got = ree.compile(Apply(torch.ldexp), (ones, e)).run(ones, e).outputs[0]
    assert torch.equal(torch.as_tensor(got), torch.ldexp(ones.double(), e).float())


def test_too_few_elements_to_scatter_are_an_error():
    x, mask, few = torch.zeros(6), torch.ones(6, dtype=torch.bool), torch.ones(5)
    program = ree.compile(Apply(torch.masked_scatter), (x, mask, few))
    with pytest.raises(ReeError, match="index 5 at position 5"):
        program.run(x, mask, few)


@pytest.mark.parametrize(
    "f", [lambda x: F.rrelu(x, training=True), lambda x: torch._trilinear(x, x, x, [], [], [], [0])]
)
def test_what_is_not_of_this_form_is_refused(f):
    x = inputs()["x"]
    with pytest.raises(ReeError, match=r"slopes drawn at random|trilinear form other"):
        ree.compile(Apply(f), (x,))
