"""Special values, extremes and indices as torch has them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ree
from ree.errors import InputError, UnsupportedError

INF = math.inf


def run(f, *args):
    class M(nn.Module):
        def forward(self, *args):
            return f(*args)

    return ree.compile(M(), args)(*args)


def test_remainders_are_exact():
    a = torch.tensor([1e9, 3e38, 65504.0, -0.0, -7.0, INF, -1.0])
    b = torch.tensor([2 * math.pi, 1e-3, 6e-8, 2.0, 0.7, 2.0, INF])
    got = run(torch.fmod, a, b)
    want = [
        math.fmod(x, y) if math.isfinite(x) else math.nan
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert np.array_equal(got.numpy(), np.float32(want), equal_nan=True)
    assert math.copysign(1, got[3]) == -1
    x, y = torch.tensor([INF, -1.0, -1e-9, 1.0]), torch.tensor([2.0, INF, 1.0, -1e8])
    assert torch.equal(
        run(torch.floor_divide, x, y).nan_to_num(9.0), torch.tensor([9.0, -1, -1, -1])
    )


def test_numbers_beside_half_precision():
    x = torch.tensor([0.1, 0.3, 1.7], dtype=torch.bfloat16)
    for f in (lambda x: x == 0.1, lambda x: F.hardshrink(x, 0.3), lambda x: torch.fmod(x, 1.7)):
        assert torch.equal(run(f, x), f(x))


def test_infinities_and_signed_zeros():
    x = torch.tensor([[INF, 1.0], [0.0, -INF]])
    assert run(lambda x: x.log_softmax(-1), x).isnan().tolist() == [[True, True], [False, False]]
    assert run(lambda x: F.pad(x, (1, 0), value=-0.0), x)[0, 0].signbit()
    low = torch.full((1, 1, 9), -INF)
    pool = lambda x: F.max_pool1d(x, 3, 2, 1, 2, return_indices=True)[1]  # noqa: E731
    assert torch.equal(run(pool, low), pool(low))


def test_casts_saturate_and_lists_are_not_cut():
    x = torch.tensor([1e10, -1e10, INF, math.nan])
    assert run(lambda x: x.int(), x).tolist() == [2**31 - 1, -(2**31), 2**31 - 1, 0]
    ints = ree.compile(nn.Identity(), (torch.tensor([1, 2]),))
    with pytest.raises(InputError):
        ints([1.5, 2.0])


def test_indices_that_torch_refuses():
    class M(nn.Module):
        def forward(self, x, i):
            return x.index_select(1, i), x.index_add(0, i, x[:2])

    x, i = torch.arange(9.0).reshape(3, 3), torch.tensor([2, 0])
    p = ree.compile(M(), (x, i))
    assert all(map(torch.equal, p(x, i), M()(x, i)))
    with pytest.raises(InputError):
        p(x, torch.tensor([0, -1]))
    with pytest.raises(UnsupportedError):
        run(lambda x: x.t().as_strided((3, 3), (3, 1)), x)


BESIDE = {
    "eq": lambda x, s: x == s,
    "lt": lambda x, s: x < s,
    "floor_divide": lambda x, s: x // s,
    "of": lambda x, s: s // x,
    "remainder": lambda x, s: x % s,
    "fmod": torch.fmod,
    "div": lambda x, s: torch.div(x, s, rounding_mode="trunc"),
    "true": lambda x, s: x / s,
    "add": lambda x, s: x + s,
    "mul": lambda x, s: s * x,
    "rank0": lambda x, s: x < torch.tensor(s),
    "where": lambda x, s: torch.where(x > 3, x, s),
    "clamp": lambda x, s: x.clamp(min=s),
    "floating": lambda x, s: x // (s + 0.5),
}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.uint8], ids=str)
def test_integers_beside_narrow_ones(dtype):
    """A number that the type cannot hold wraps, or is an error, where it does in torch."""
    x = torch.tensor([1, 2, 5, 44, 127, torch.iinfo(dtype).max, -3]).to(dtype)
    kept = []
    for f in BESIDE.values():
        for s in (300, -3, 2**31 + 7):
            try:
                want = f(x, s)
            except RuntimeError:
                with pytest.raises(UnsupportedError):
                    run(lambda x, f=f, s=s: f(x, s), x)
            else:
                kept.append((f, s, want))
    got = run(lambda x: tuple(f(x, s) for f, s, _ in kept), x)
    for (_, s, want), y in zip(kept, got, strict=True):
        assert y.dtype == want.dtype
        assert torch.equal(y, want), s


def test_numbers_of_an_operator_are_rounded_once():
    """A float attribute that no float32 equals: padding, slopes, thresholds, eps."""

    def f(x):
        padded = F.pad(x, (1, 0), value=0.1), F.pad(x, (0, 1), value=math.nan)
        return (
            *padded,
            F.leaky_relu(x, 0.1),
            F.threshold(x, 0.3, -0.7),
            F.layer_norm(x, (4,), eps=1e-3),
        )

    x = torch.tensor([[1.5, -2.0, 0.2, 0.3]])
    for got, want in zip(run(f, x), f(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0, equal_nan=True)
