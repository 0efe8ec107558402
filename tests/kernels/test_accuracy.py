"""References against PyTorch in float64: the error bounds that the operators state."""

import numpy as np
import pytest
import torch

from ree.kernels import opdef, registry  # noqa: F401
from ree.kernels.opdef import apply
from ree.kernels.scalar.functions import BOUNDS

EPS = 2.0**-24
RNG = np.random.default_rng(0)


def randn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def t64(x):
    return torch.from_numpy(np.asarray(x, np.float64))


def ulps(got, want):
    """Distance to the exact value in ulps of it."""
    exponent = np.floor(np.log2(np.maximum(np.abs(want), 2.0**-126)))
    return np.abs(got.astype(np.float64) - want) / np.exp2(exponent - 23)


UNARY = {
    "exp": torch.exp, "exp2": torch.exp2, "expm1": torch.expm1, "log": torch.log,
    "log2": torch.log2, "log1p": torch.log1p, "tanh": torch.tanh, "erf": torch.erf,
    "sin": torch.sin, "cos": torch.cos, "rsqrt": torch.rsqrt, "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    **{n: getattr(torch, n) for n in ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
                                      "erfc")},
}  # fmt: skip


@pytest.mark.parametrize("op", UNARY)
def test_scalar_functions(op):
    x = np.concatenate([randn(50_000), 8 * randn(50_000), 1e-3 * randn(10_000)])
    if op in ("log", "log2", "rsqrt"):
        x = np.abs(x) + np.float32(1e-30)
    if op in ("asin", "acos", "atanh"):
        x = np.tanh(x)[np.abs(np.tanh(x)) < 1]
    if op == "acosh":
        x = 1 + np.abs(x)
    if op == "log1p":
        x = np.maximum(x, np.float32(-0.999))
    f = UNARY[op]
    want = f(t64(x), threshold=100).numpy() if op == "softplus" else f(t64(x)).numpy()
    assert ulps(apply(op, [x])[0], want).max() <= BOUNDS[op]


def test_compositions():
    x = np.concatenate([randn(20_000), 6 * randn(20_000)])
    for op, approximate in (("gelu", "none"), ("gelu_tanh", "tanh")):
        want = torch.nn.functional.gelu(t64(x), approximate=approximate).numpy()
        error = np.abs(apply(op, [x])[0] - want)
        assert (error <= 8 * EPS * np.abs(x)).all(), op
    want = torch.nn.functional.silu(t64(x)).numpy()
    assert ulps(apply("silu", [x])[0], want).max() <= 3.5


@pytest.mark.parametrize("k", [1, 64, 128, 129, 1000, 4096])
def test_contraction(k):
    for a, b in ((randn(4, k), randn(5, k)), (np.abs(randn(4, k)), np.abs(randn(5, k)))):
        error = np.abs(apply("linear", [a, b])[0] - a.astype(np.float64) @ b.T.astype(np.float64))
        scale = np.abs(a).astype(np.float64) @ np.abs(b).T.astype(np.float64)
        assert (error <= (min(k, 128) + -(-k // 128)) * EPS * scale).all()


@pytest.mark.parametrize("n", [1, 64, 1000, 1100, 5000])
def test_sums(n):
    x = randn(3, n)
    steps = -(-min(n, 1024) // 64) + 6 * (1 if n <= 1024 else 2) + 1
    error = np.abs(apply("sum", [x], {"dim": 1, "keepdim": False})[0] - x.astype(np.float64).sum(1))
    bound = steps * EPS * np.abs(x).astype(np.float64).sum(1)
    assert (error <= bound).all()
    mean = apply("mean", [x], {"dim": 1, "keepdim": False})[0]
    assert (np.abs(mean - x.astype(np.float64).mean(1)) <= bound / n + EPS * np.abs(mean)).all()


@pytest.mark.parametrize("n", [5, 384, 1100])
def test_rows(n):
    x, w, b = randn(6, n), randn(n), randn(n)
    want = t64(x).softmax(-1).numpy()
    got = apply("softmax", [x], {"dim": 1})[0]
    assert (np.abs(got - want) <= (6 + -(-n // 64)) * 2 * EPS * want).all()
    attrs = {"eps": float(np.float32(1e-5)), "weight": True, "bias": True}
    want = torch.nn.functional.layer_norm(t64(x), (n,), t64(w), t64(b), attrs["eps"]).numpy()
    assert (
        np.abs(apply("layer_norm", [x, w, b], attrs)[0] - want) <= 1e-5 * (np.abs(want) + 1)
    ).all()
    attrs = {"eps": float(np.float32(1e-5)), "weight": True}
    want = torch.nn.functional.rms_norm(t64(x), (n,), t64(w), attrs["eps"]).numpy()
    assert ulps(apply("rms_norm", [x, w], attrs)[0], want).max() <= 6 + n / 64


@pytest.mark.parametrize("tokens", [5, 128, 300])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(tokens, causal):
    q, k, v = randn(2, 4, tokens, 16), randn(2, 2, tokens, 16), randn(2, 2, tokens, 16)
    attrs = {"causal": causal, "scale": 0.25, "window": 0, "q_offset": 0}
    want = torch.nn.functional.scaled_dot_product_attention(
        t64(q), t64(k), t64(v), is_causal=causal, enable_gqa=True, scale=0.25
    ).numpy()
    error = np.abs(apply("attention", [q, k, v], attrs)[0] - want)
    assert error.max() <= 2e-6 * np.abs(v).max() * (1 + tokens / 1024)


def test_a_wrong_bound_would_be_seen():
    x = randn(1000)
    assert ulps(apply("exp", [x])[0] * np.float32(1 + 4e-7), np.exp(x.astype(np.float64))).max() > 2
