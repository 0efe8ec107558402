"""Values, types and refusals of torch's calls against eager mode, in bytes: half precision, numbers beside
tensors, integers at their ends, indices."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ree
from ree.errors import InputError

INF = math.inf
HALVES = (torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Side(nn.Module):
    """Calls side by side, on the same inputs."""

    def __init__(self, calls):
        super().__init__()
        self.calls = tuple(calls)

    def forward(self, *args):
        return tuple(f(*args) for f in self.calls)


def bits(x):
    """A tensor as integers, every NaN alike."""
    if not x.is_floating_point():
        return x
    whole = {2: torch.int16, 4: torch.int32}[x.element_size()]
    return torch.where(x.isnan(), -1, x.contiguous().view(whole))


def differing(calls, *args):
    """Names of the calls whose results are not eager mode's, with the first element that differs."""
    found = []
    for (name, f), got in zip(
        calls.items(), ree.compile(Side(calls.values()), args)(*args), strict=True
    ):
        want = f(*args)
        if got.dtype is not want.dtype or got.shape != want.shape:
            found.append(
                f"{name}: {got.dtype} {list(got.shape)}, torch {want.dtype} {list(want.shape)}"
            )
            continue
        at = (bits(got) != bits(want)).reshape(-1).nonzero()
        if len(at):
            i = at[0, 0]
            found.append(
                f"{name}: {len(at)}, at {i}: {got.reshape(-1)[i]}, torch {want.reshape(-1)[i]}"
            )
    return found


def every(dtype):
    """Every number of a half type."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)


S = torch.tensor(0.3)  # float32, of rank 0
# torch rounds a number to half precision before it adds, compares or takes powers, and not before it multiplies
ONE_HALF = {
    "x + s": lambda x: x + 0.3,
    "x + int": lambda x: x + 4001,
    "x - s": lambda x: x - 0.3,
    "s - x": lambda x: 0.3 - x,
    "x + S": lambda x: x + S,
    "S - x": lambda x: S - x,
    "alpha": lambda x: torch.add(x, x.flip(0), alpha=0.3),
    "sub alpha": lambda x: torch.sub(x, 0.3, alpha=0.7),
    "rsub alpha": lambda x: torch.rsub(x, x.flip(0), alpha=0.7),
    "x * s": lambda x: x * 0.3,
    "x * int": lambda x: x * 4001,
    "x * S": lambda x: x * S,
    "S * x": lambda x: S * x,
    "x / s": lambda x: x / 0.3,
    "s / x": lambda x: 0.3 / x,
    "S / x": lambda x: S / x,
    "trunc s": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "trunc": lambda x: torch.div(x, x.flip(0), rounding_mode="trunc"),
    "eq": lambda x: x == 0.3,
    "lt": lambda x: x < S,
    "cube": lambda x: x**3,
    "square": lambda x: x**2,
    "root": lambda x: x**0.5,
    "-1": lambda x: x**-1,
    "lerp": lambda x: torch.lerp(x, x.flip(0), 0.3),
    "lerp.7": lambda x: torch.lerp(x, x.flip(0), 0.7),
    "lerp tensor": lambda x: torch.lerp(x, x.flip(0), x.roll(77)),
    "addcmul": lambda x: torch.addcmul(x, x.flip(0), x.roll(77), value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x.flip(0), x.roll(77), value=0.3),
    "hardshrink": lambda x: F.hardshrink(x, 0.3),
    "threshold": lambda x: F.threshold(x, 0.3, 0.7),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.7),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softsign": F.softsign,
    "clamp": lambda x: x.clamp(0.3, 0.7),
    "where": lambda x: torch.where(x > 0, x, 0.3),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.3),
    "relu6": lambda x: F.relu6(x) + 0.0,  # of -0 torch is -0 on a CPU, +0 on a GPU
    "frac": torch.frac,
    "round": torch.round,
    "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "deg2rad": torch.deg2rad,
    "nan_to_num": torch.nan_to_num,
    "mse": lambda x: F.mse_loss(x, x.flip(0), reduction="none"),
    "maximum": lambda x: torch.maximum(x, x.roll(77)),
    "heaviside": lambda x: torch.heaviside(x, x.roll(77)),
    "sort": lambda x: torch.sort(x, stable=True).indices,
    "amax": torch.amax,
    "argmin": torch.argmin,
    "ints": lambda x: x.nan_to_num(0.0).clamp(-100, 100).int(),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_number_of_half_precision(dtype):
    assert not differing(ONE_HALF, every(dtype))


# functions that go through others: the greatest distance to torch, in units of the last place
NEAR = {
    "xlogy": lambda x: torch.xlogy(x, x.flip(0)),
    "xlogy s": lambda x: torch.xlogy(0.3, x),
    "pow": lambda x: x**0.3,
    "rpow": lambda x: 0.3**x,
    "atan2": lambda x: torch.atan2(x, S),
    "elu": lambda x: F.elu(x, 0.3),
    "mish": F.mish,
    "tanhshrink": F.tanhshrink,
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(0)),
    "softplus": lambda x: F.softplus(x, 0.3, 3),
    "ldexp": lambda x: torch.ldexp(x.flip(0), x),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_functions_of_half_precision_are_near(dtype):
    x = torch.cat(
        [
            torch.linspace(-9, 9, 4001).to(dtype),
            torch.tensor([0.0, -0.0, INF, -INF, math.nan]).to(dtype),
        ]
    )
    program = ree.compile(Side(NEAR.values()), (x,))
    for (name, f), got in zip(NEAR.items(), program(x), strict=True):
        want = f(x)
        assert got.dtype is dtype
        same = bits(got) == bits(want)
        assert same[~want.isfinite() | (want == 0)].all(), name
        assert (~same).float().mean() < 2e-3, (
            name
        )  # what is left is a tie that another last bit decides
        torch.testing.assert_close(
            got, want, rtol=2 * torch.finfo(dtype).eps, atol=0, equal_nan=True
        )


def test_mixed_types():
    """Integers beside half precision are rounded to it, whatever their shape."""
    i = torch.arange(-5000, 5000, 7)
    h = torch.linspace(-3, 3, len(i))
    calls = {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "div": torch.div,
        "lt": torch.lt,
        "eq": lambda a, b: a * 1000 == b,
        "maximum": torch.maximum,
        "rank0": lambda a, b: a[0] + b,
        "addcmul": lambda a, b: torch.addcmul(a, a, b.to(a.dtype)),
        "bool": lambda a, b: a + (b > 0),
        "float": lambda a, b: a + b.float(),
    }
    for dtype in HALVES:
        for whole in (torch.int64, torch.int32, torch.int16):
            assert not differing(calls, h.to(dtype), i.to(whole))


def test_products_are_rounded_with_the_sum():
    """alpha, addcmul and lerp as torch's vectors compute them; no overflow on the way."""
    x = torch.cat([torch.randn(4091), torch.tensor([INF, -INF, 3e38, -3e38, 1.0])])
    y, z = x.flip(0), x.roll(5)
    calls = {
        "add": lambda x, y, z: torch.add(x, y, alpha=0.3),
        "sub": lambda x, y, z: torch.sub(x, y, alpha=-1.7),
        "rsub": lambda x, y, z: torch.rsub(x, y, alpha=3),
        "addcmul": lambda x, y, z: torch.addcmul(x, y, z, value=0.3),
        "addcdiv": lambda x, y, z: torch.addcdiv(x, y, z, value=0.3),
        "lerp": lambda x, y, z: torch.lerp(x, y, 0.3),
        "lerp.7": lambda x, y, z: torch.lerp(x, y, -0.7),
        "lerp tensor": lambda x, y, z: torch.lerp(x, y, z),
        "-2": lambda x, y, z: x**-2,
        "softshrink": lambda x, y, z: (
            F.softshrink(x, 0.3) + 0.0
        ),  # torch: zeros of either sign, by place
    }
    assert not differing(calls, x, y, z)


def test_ends_of_activations():
    x = torch.tensor([0.0, -0.0, 1.0, -1.0, INF, -INF, math.nan])
    calls = {
        "elu": lambda x: F.elu(x, INF),
        "celu": lambda x: F.celu(x, INF),
        "negative": lambda x: F.elu(x, -1.0).signbit(),
        "softplus": lambda x: F.softplus(x, 1, 0.5).isinf(),
        "threshold": lambda x: F.threshold(x, 0, -0.0),
        "leaky_relu": lambda x: F.leaky_relu(x, INF),
    }
    assert not differing(calls, x)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_ends_of_integers(dtype):
    i = torch.iinfo(dtype)
    one = torch.tensor([0, 1, 2, 3, 7, 100, i.max, i.max - 1, i.min, i.min + 1]).to(dtype)
    a, b = one.repeat_interleave(len(one)), one.repeat(len(one)).clone()
    b[b == 0] = 5
    calls = {
        "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
        "floor": torch.floor_divide,
        "fmod": torch.fmod,
        "remainder": torch.remainder,
        "alpha": lambda a, b: torch.add(a, b, alpha=3),
        "sub alpha": lambda a, b: torch.sub(a, b, alpha=2),
        "addcmul": lambda a, b: torch.addcmul(a, b, b, value=2),
        "threshold": lambda a, b: F.threshold(a, 0.9, 1.5),
        "ninth": lambda a, b: a**9,
        "power": lambda a, b: a**63,
        "float": lambda a, b: a**0.0,
        "abs": lambda a, b: abs(a),
        "sign": lambda a, b: torch.sign(a),
    }
    assert not differing(calls, a, b)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_asked_for(dtype):
    """dtype= takes the operand to half precision before anything is computed."""
    exact = {
        "prod": lambda x, i: torch.prod(i, 0, dtype=dtype),
        "sum": lambda x, i: torch.sum(x, 1, dtype=dtype),
        "cumprod": lambda x, i: torch.cumprod(i[:2], 0, dtype=dtype),
        "amax": lambda x, i: F.softmax(i.float(), 0, dtype=dtype).isnan(),
    }
    x = torch.tensor([[1.0, 0.3, 1e-5], [100.1, -100.0, 0.0], [4001.0, 1.0, -4000.0]])
    assert not differing(exact, x, torch.tensor([2**31, 0, 3]))


def test_order_of_ties_and_nan():
    """Places of extremes and of sorted elements; values of extremes beside NaN and signed zeros."""
    x = torch.tensor([[1.0, math.nan, -0.0, 0.0, 1.0, 3.0, 3.0], [2.0, -1.0, 2.0, INF, -1.0, INF, -INF],
                      [0.0, -0.0, -0.0, 0.0, -1.0, -1.0, -2.0]])  # fmt: skip
    bound = torch.tensor([math.nan, 1.0, -1.0, 0.5, math.nan, 2.0, -0.5])
    calls = {
        "max": lambda x, b: x.max(1).indices,
        "min": lambda x, b: x.min(1).indices,
        "argmax": lambda x, b: x.argmax(),
        "argmin": lambda x, b: x.argmin(0),
        "down": lambda x, b: x.sort(dim=1, descending=True, stable=True).indices,
        "up": lambda x, b: x.sort(dim=0, stable=True).values,
        "topk": lambda x, b: (
            x.topk(2, largest=False).values + 0.0
        ),  # torch: equal elements in any order
        "cummax": lambda x, b: x.cummax(1).indices,
        "cummin": lambda x, b: x.cummin(1).values,
        "median": lambda x, b: x.median(1).values,
        "nanmedian": lambda x, b: x.nanmedian(1).values,
        "kthvalue": lambda x, b: x.kthvalue(7).values,
        "clamp": lambda x, b: x.clamp(b, b.flip(0)),
        "nan": lambda x, b: x.clamp(math.nan, 1.0),
        "crossed": lambda x, b: x.clamp(2, 1),
        "pool": lambda x, b: F.max_pool1d(x[1:], 3, 1, return_indices=True)[1],
        "size": lambda x, b: x * float(x.shape[1]) + x.shape[0] ** 0.5 + math.sqrt(x.shape[1]),
    }
    for dtype in (torch.float32, *HALVES):
        assert not differing(calls, x.to(dtype), bound.to(dtype))


def test_booleans():
    a, b = torch.tensor([False, False, True, True]), torch.tensor([False, True, False, True])
    calls = {
        "fmax": torch.fmax,
        "fmin": torch.fmin,
        "alpha": lambda a, b: torch.add(a, b, alpha=True),
        "none": lambda a, b: torch.add(a, b, alpha=False),
        "mul": torch.mul,
        "maximum": torch.maximum,
        "add": lambda a, b: a + 1,
        "float": lambda a, b: a + 0.5,
    }
    assert not differing(calls, a, b)


X, W = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), torch.eye(6, 4)
# a call with an index, and whether torch counts a negative one from the end
AT = {
    "gather": (lambda i: X.gather(0, i[None]), 6, False),
    "take_along_dim": (lambda i: torch.take_along_dim(X, i), 30, False),
    "cross_entropy": (lambda i: F.cross_entropy(X[:5], i), 5, False),
    "smoothed": (lambda i: F.cross_entropy(X[:5], i, label_smoothing=0.1), 5, False),
    "nll_loss": (lambda i: F.nll_loss(X[:5], i, weight=X[0]), 5, False),
    "multi_margin": (lambda i: F.multi_margin_loss(X[:5], i), 5, False),
    "embedding": (lambda i: F.embedding(i, W), 6, False),
    "int32": (lambda i: F.embedding(i.clamp(-(2**31), 2**31 - 1).int(), W), 6, False),
    "embedding_bag": (lambda i: F.embedding_bag(i, W, torch.tensor([0, 2])), 6, False),
    "bag max": (lambda i: F.embedding_bag(i[None], W, mode="max"), 6, False),
    "one_hot": (lambda i: F.one_hot(i, 6), 6, False),
    "index_select": (lambda i: X.index_select(1, i), 5, False),
    "index_add": (lambda i: X.index_add(0, i, X[:5]), 6, False),
    "index_copy": (lambda i: X.index_copy(1, i, X), 5, False),
    "index_reduce": (lambda i: X.index_reduce(0, i, X[:5], "prod"), 6, False),
    "scatter": (lambda i: X.scatter(0, i[None], 2.0), 6, False),
    "scatter_add": (lambda i: X.scatter_add(0, i[None], X), 6, False),
    "scatter_reduce": (lambda i: X.scatter_reduce(0, i[None], X, "amax"), 6, False),
    "max_unpool": (lambda i: F.max_unpool1d(X[None], i.expand(1, 6, 5), 2), 10, False),
    "index": (lambda i: X[i], 6, True),
    "columns": (lambda i: X[:, i], 5, True),
    "index_fill": (lambda i: X.index_fill(0, i, 7.0), 6, True),
    "index_put": (lambda i: X.index_put((i,), torch.tensor(1.0)), 6, True),
    "accumulate": (lambda i: X.index_put((i,), X[:5], accumulate=True), 6, True),
    "take": (lambda i: torch.take(X, i), 30, True),
    "put": (lambda i: X.put(i, X[0]), 30, True),
}


class At(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, i):
        return self.f(i)


@pytest.mark.parametrize("name", AT)
def test_indices(name):
    """What torch takes is taken and gives its result; what it refuses is an error of the run."""
    f, size, wraps = AT[name]
    good = torch.tensor([0, 1, 4, 2, 3])
    program = ree.compile(At(f), (good,))
    for last in (size - 1, -1, -size, -size - 1, size, 2**31, 2**40, -(2**40)):
        i = torch.cat([good[:-1], torch.tensor([last])])
        if 0 <= last < size or (wraps and -size <= last < 0):
            torch.testing.assert_close(program(i), f(i), rtol=1e-6, atol=1e-6)
            continue
        with pytest.raises((RuntimeError, IndexError)):
            f(i)
        with pytest.raises(InputError):
            program(i)


def test_indices_along_an_axis_are_modular():
    f = At(lambda i: torch.take_along_dim(X, i[:, None], 1))
    i = torch.tensor([0, 5, -6, 2**40, -1, 13])
    assert torch.equal(ree.compile(f, (i,))(i), f(i))


def test_labels_end_at_the_first_minus_one():
    x, target = X, torch.tensor([[0, 1, 2, -1, 3], [-1, 0, 0, 0, 0], [4, 3, 2, 1, 0], [2, -1, -1, 2, 2],
                                 [1, 1, -1, 0, 0], [3, -1, 0, -1, 4]])  # fmt: skip
    for how in ("none", "mean", "sum"):
        f = lambda x, t, how=how: F.multilabel_margin_loss(x, t, reduction=how)  # noqa: E731
        torch.testing.assert_close(ree.compile(Side([f]), (x, target))(x, target)[0], f(x, target))
    program = ree.compile(Side([F.multilabel_margin_loss]), (x[0], target[0]))
    torch.testing.assert_close(
        program(x[0], target[0])[0], F.multilabel_margin_loss(x[0], target[0])
    )
    for bad in (-2, 5):
        with pytest.raises(InputError):
            program(x[0], torch.tensor([0, 1, -1, bad, 0]))


def test_where_torch_depends_on_the_processor():
    """What docs/numerics.md says under "Where torch's CPU differs"."""
    x = torch.tensor([300.0, -129.9, 1e10, -1e10, INF, -INF, math.nan])
    calls = [
        lambda x, d=d: x.to(d)
        for d in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    ]
    top = 2**63 - 1
    want = (
        [300, -129, 10**10, -(10**10), top, -top - 1, 0],
        [300, -129, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 0],
        [300, -129, -1, 0, -1, 0, 0],
        [44, 127, -1, 0, -1, 0, 0],
        [44, 127, 255, 0, 255, 0, 0],
    )
    assert [y.tolist() for y in ree.compile(Side(calls), (x,))(x)] == list(want)
    zero = torch.tensor([-0.0])
    zeros = [F.relu, F.relu6, lambda x: x.clamp(min=0), lambda x: F.hardtanh(x, 0, 1)]
    assert not any(y.signbit() for y in ree.compile(Side(zeros), (zero,))(zero))
    nan = torch.tensor([math.nan]).view(torch.int32).bitwise_or(-(2**31)).view(torch.float32)
    signs = [torch.signbit, lambda x: torch.copysign(torch.tensor(-2.0), x)]
    assert [y.item() for y in ree.compile(Side(signs), (nan,))(nan)] == [False, 2.0]
    a, b = torch.tensor([88.8125]).half(), torch.tensor([0.1]).half()
    assert ree.compile(Side([torch.floor_divide]), (a, b))(a, b)[0] == 888  # 888.34; torch 887
    assert ree.compile(Side([F.gelu]), (x[4:5],))(x[4:5])[0] == INF
    half = torch.tensor([-0.300048828125, 0.5]).half()
    assert ree.compile(Side([lambda x: F.softshrink(x, 0.3)]), (half,))(half)[0][0] == 0
