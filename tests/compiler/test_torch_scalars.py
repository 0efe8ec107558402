"""Inverse, hyperbolic and two-argument functions and shifts of torch: near float64, special points as eager."""

import numpy as np
import pytest
import torch

import ree
from ree.errors import ReeError
from ree.kernels import registry  # noqa: F401  (registers operators)
from ree.kernels.opdef import apply

EDGES = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 1e-40, -1e-40, 3e38, -3e38, torch.inf,
                      -torch.inf, torch.nan])  # fmt: skip
UNARY = ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erfc", "erfinv", "lgamma",
         "digamma")  # fmt: skip


class Apply(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


def same_special(got, want):
    """Equal where not finite or zero, signs of zero included."""
    special = ~want.isfinite() | (want == 0)
    a, b = got[special], want[special]
    assert torch.equal(a.isnan(), b.isnan())
    a, b = a[~a.isnan()], b[~b.isnan()]
    assert torch.equal(a, b)
    assert torch.equal(a.signbit(), b.signbit())


@pytest.mark.parametrize("name", UNARY)
def test_special_values_of(name):
    got = torch.from_numpy(apply(name, [EDGES.numpy()])[0])
    same_special(got, getattr(torch, name)(EDGES.double()).float())


def _off(name, x):
    """|error| in units of 2^-24 of what the operator's bound is relative to."""
    got, at = apply(name, [x])[0].astype(np.float64), torch.from_numpy(x.astype(np.float64))
    want = getattr(torch, name)(at).numpy()
    size = np.exp2(np.floor(np.log2(np.abs(want))) + 1)
    if name != "erfinv":
        other = torch.lgamma(-at) if name == "lgamma" else torch.digamma(1 - at)
        size = np.where(x < 0, 1 + np.abs(want) + np.abs(other.numpy()), size)
    return np.abs(got - want) / size * 2.0**24


@pytest.mark.parametrize(("name", "bound"), [("erfinv", 1), ("lgamma", 4), ("digamma", 4)])
def test_bound_of(name, bound):
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, 50_000).astype(np.float32)
    x = np.concatenate([x, 1 - x[:1000] ** 6, x[:5000] * np.float32(1e-9)])
    if name != "erfinv":
        x = np.concatenate([x, 4 * x, 30 * x, 1e6 * x, 1e20 * np.abs(x)])
    x = x[(np.abs(x) != 1) & ((x > 0) | (x != np.rint(x)))].astype(np.float32)
    assert _off(name, x).max() <= bound


def test_digamma_is_not_trained():
    from ree.compiler.frontend.importer import Importer
    from ree.compiler.gradients.engine import NoGradient, backward
    from ree.kernels.types import DType, TensorType

    m = Importer()
    x = m.builder.input(TensorType(DType.F32, (3,)))
    with pytest.raises(NoGradient, match=r"digamma .* has no gradient"):
        backward(m, m.reduce("sum", m.add("digamma", x), (), False), [x])


@pytest.mark.parametrize("name", ["atan2", "hypot"])
def test_special_pairs_of(name):
    a, b = (t.reshape(-1).contiguous() for t in torch.meshgrid(EDGES, EDGES, indexing="ij"))
    got = torch.from_numpy(apply(name, [a.numpy(), b.numpy()])[0])
    want = getattr(torch, name)(a.double(), b.double()).float()
    same_special(got, want)
    torch.testing.assert_close(got, want, rtol=3e-7, atol=2e-45, equal_nan=True)


def test_a_nan_has_no_sign_to_copy():
    nans = np.array([0x7FC00000, 0xFFC00000], np.uint32).view(np.float32)
    assert apply("copysign", [np.full(2, -3, np.float32), nans])[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_shifts_by_any_count(dtype):
    values = torch.tensor(
        [0, 1, 2, 7, 100, 255, -1, -128, 2**31 - 1, -(2**31), 2**62, -(2**63)]
    ).to(dtype)
    counts = torch.tensor([0, 1, 5, 7, 8, 15, 31, 32, 63, 64, 100, -1, -128]).to(dtype)
    a, n = (t.reshape(-1) for t in torch.meshgrid(values, counts, indexing="ij"))
    for f in (
        lambda a, n: (a << n, a >> n),
        lambda a, n: (a << 2, torch.bitwise_right_shift(a, 3)),
    ):
        for got, want in zip(ree.compile(Apply(f), (a, n))(a, n), f(a, n), strict=True):
            assert got.dtype == want.dtype
            assert torch.equal(got, want)


def test_a_shift_of_floats_is_refused():
    with pytest.raises(ReeError):
        ree.compile(Apply(lambda a: torch.bitwise_left_shift(a, 2)), (torch.ones(3),))


def test_compositions():
    x, y = torch.randn(200).clamp(-3, 3), torch.randn(200)
    x[:3], y[:3] = (
        torch.tensor([torch.nan, 1.0, torch.inf]),
        torch.tensor([1.0, torch.nan, torch.inf]),
    )

    def f(x, y):
        floats = torch.fmax(x, y), torch.fmin(x, y), torch.sinc(x), torch.logaddexp2(x, y)
        signs = torch.copysign(x, -2.0), torch.copysign(y, y - 1)
        return *floats, *signs, torch.atan2(x, y), torch.hypot(x, y)

    for got, want in zip(ree.compile(Apply(f), (x, y))(x, y), f(x, y), strict=True):
        torch.testing.assert_close(got, want, rtol=2e-6, atol=2e-6, equal_nan=True)
