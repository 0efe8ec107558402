"""Functions of torch through the importers: near eager, and the same bits however they run."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import ree
from ree.compiler.frontend.torch_types import to_numpy
from ree.errors import CaptureError, UnsupportedError

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}


class Apply(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


def check(f, *args, tolerance=None):
    program = ree.compile(Apply(f), args)
    want = f(*args)
    want = want if isinstance(want, tuple) else (want,)
    runs = [program.run(*args, isa=isa, threads=threads, fuse=fuse, trace="ops")
            for isa, threads, fuse in ((None, 2, True), (None, 1, False), ("portable", 7, True))]  # fmt: skip
    assert len({r.trace.root for r in runs}) == 1
    for have, w in zip(runs[0].outputs, want, strict=True):
        assert have.dtype == w.dtype
        assert have.shape == w.shape
        if not w.is_floating_point():
            assert torch.equal(have, w)
            continue
        scale = w[w.isfinite()].abs().max().item() if w.isfinite().any() else 1.0
        limit = TOLERANCE[w.dtype] if tolerance is None else tolerance
        torch.testing.assert_close(have, w, rtol=limit, atol=limit * scale, equal_nan=True)


def x(*shape, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape or (5, 37), generator=g)).to(dtype)


SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3.0, 1e-40, 1e30,
                        torch.inf, -torch.inf, torch.nan])  # fmt: skip
EXACT = {
    "floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc, "round": torch.round, "sign": torch.sign,
    "isnan": torch.isnan, "isinf": torch.isinf, "isfinite": torch.isfinite, "relu6": F.relu6,
    "clamp": lambda t: t.clamp(-1, 2), "hardtanh": F.hardtanh, "square": torch.square,
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_exact_functions(name):
    for t in (SPECIAL, x()):
        f = EXACT[name]
        have, want = ree.compile(Apply(f), t)(t), f(t)
        assert have.dtype == want.dtype
        assert torch.equal(torch.nan_to_num(have.float(), 9e9), torch.nan_to_num(want.float(), 9e9))
        if want.dtype is torch.float32 and name not in ("sign", "relu6", "hardtanh"):
            assert torch.equal(have.signbit() | have.isnan(), want.signbit() | want.isnan())


FUNCTIONS = {
    "leaky_relu": lambda t: F.leaky_relu(t, 0.2), "elu": F.elu, "hardswish": F.hardswish, "mish": F.mish,
    "hardsigmoid": F.hardsigmoid, "selu": F.selu, "softsign": F.softsign, "logsigmoid": F.logsigmoid,
    "pow7": lambda t: t**7, "pow-1": lambda t: t**-1, "pow2.5": lambda t: t.abs() ** 2.5,
    "2pow": lambda t: 2**t, "remainder": lambda t: torch.remainder(t, 0.7),
    "fmod": lambda t: torch.fmod(t, -0.7), "div_floor": lambda t: torch.div(t, 0.3, rounding_mode="floor"),
    "div_trunc": lambda t: torch.div(t, 0.3, rounding_mode="trunc"), "log10": lambda t: t.abs().log10(),
    "tan": lambda t: torch.tan(t / 3), "logsumexp": lambda t: torch.logsumexp(t, 1),
    "log_softmax": lambda t: F.log_softmax(t, 1), "var": lambda t: t.var(1), "std": lambda t: t.std((0, 1)),
    "var_mean": lambda t: torch.var_mean(t, 1, correction=0, keepdim=True), "prod": lambda t: t.prod(1),
    "norm1": lambda t: t.norm(1, 1), "norm3": lambda t: t.norm(3), "norminf": lambda t: t.norm(torch.inf, 0),
    "max": torch.max, "min": torch.min, "einsum": lambda t: torch.einsum("ij,kj->ki", t, t),
    "diagonal": lambda t: torch.diagonal(t, 2), "tril": torch.tril, "triu": lambda t: torch.triu(t, 3),
    "diff": torch.diff,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    tolerance = 1e-4 if name in ("prod", "fmod", "remainder", "tan") else 4e-6
    check(FUNCTIONS[name], x(), tolerance=tolerance)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integers(dtype):
    a = torch.arange(-20, 20).to(dtype)
    b = (torch.arange(40) % 7 + 1).to(dtype)

    def f(a, b):
        return (
            a + b, a * b - 3, a // b, a % b, torch.div(a, b, rounding_mode="trunc"), a & b, a | b, a ^ b, ~a,
            a > b, torch.where(a > b, a, b), a.sum(), a.float() / b, a.clamp(2, 9), a.abs(), a.sign(),
            a.bool().any(), (a == a).all(), b.cumsum(0), b.prod() * 0,
        )  # fmt: skip

    check(f, a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_after_every_operator(dtype):
    a, b = x(dtype=dtype), x(dtype=dtype, seed=1)

    def exact(a, b):
        return (
            a + b,
            a * b,
            a - 1,
            a / b,
            a.relu(),
            a.abs(),
            a > b,
            a.float(),
            a.to(torch.int64),
            -a,
        )

    program = ree.compile(Apply(exact), (a, b))
    for have, want in zip(program(a, b), exact(a, b), strict=True):
        assert torch.equal(have, want)
    check(
        lambda a, b: (F.gelu(a), F.softmax(a, 1), F.layer_norm(a, (37,)), a @ b.T, a.sum(1)), a, b
    )


def test_every_half_precision_number_survives():
    """All 65536 patterns of both types: to float32 as torch has it, and back unchanged."""
    for dtype in (torch.bfloat16, torch.float16):
        t = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
        f = Apply(lambda t: (t.float(), t.float().to(t.dtype)))
        wide, back = ree.compile(f, t)(t)
        real = ~t.isnan()
        assert torch.equal(wide[real], t.float()[real])
        assert torch.equal(back.view(torch.int16)[real], t.view(torch.int16)[real])
        assert wide[~real].isnan().all()
        assert back[~real].isnan().all()


def test_rounding_to_half_precision():
    """Random patterns of float32, and those halfway between two results, as torch rounds them."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, 200_000, np.uint32)
    ties = [(words & 0xFFFF0000) | 0x8000, (words & 0xFFFFE000) | 0x1000]
    t = torch.from_numpy(np.concatenate([words, *ties]).view(np.float32))
    for dtype in (torch.bfloat16, torch.float16):
        program = ree.compile(Apply(lambda t, dtype=dtype: t.to(dtype)), t)
        have, want = program(t), t.to(dtype)
        real = ~t.isnan()
        assert np.array_equal(to_numpy(have[real]), to_numpy(want[real]))
        assert have[~real].isnan().all()


def test_cross_entropy():
    logits, target = x(9, 11), torch.randint(0, 11, (9,))
    target[3] = -100
    weight = torch.rand(11)
    for kwargs in ({}, {"weight": weight}, {"reduction": "sum"}, {"reduction": "none"},
                   {"label_smoothing": 0.1}):  # fmt: skip
        check(lambda a, b, kwargs=kwargs: F.cross_entropy(a, b, **kwargs), logits, target)


def test_norms_over_channels():
    for module in (torch.nn.BatchNorm2d(6), torch.nn.GroupNorm(3, 6), torch.nn.BatchNorm1d(6)):
        module.eval()
        for p in (*module.parameters(), *module.buffers()):
            if p.is_floating_point():
                p.data.uniform_(0.5, 1.5)
        t = x(2, 6, 5) if isinstance(module, torch.nn.BatchNorm1d) else x(2, 6, 5, 7)
        torch.testing.assert_close(ree.compile(module, t)(t), module(t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("f", "why"),
    [
        (lambda t: t.double() + 1, "float64"),
        (lambda t: torch.complex(t, t), "complex"),
        (lambda t: t.to_sparse() * 2, ""),
        (lambda t: t.nonzero(), "depends on data"),
        (lambda t: t[t > 0], "depends on data"),
        (lambda t: t * t.sum().item(), "reads a number"),
        (
            lambda t: torch._higher_order_ops.while_loop(
                lambda a: a.sum() < 0, lambda a: (a + 1,), (t,)
            ),
            "loop",
        ),
        (lambda t: t + torch.rand_like(t), "random numbers"),
        (lambda t: t.view(1, 1, 1, 1, 1, 1, 1, 5, 37) * 2, "at most 8"),
        (lambda t: (t.view(1, -1).expand(2**27, 185) * 2).sum(), "2147483647 elements"),
    ],
)
def test_refusals(f, why):
    with pytest.raises((UnsupportedError, CaptureError)) as e:
        ree.compile(Apply(f), x())
    assert why in " ".join([str(e.value), *getattr(e.value, "items", ())])


@pytest.mark.parametrize(
    "how",
    [{"kernel_size": 2}, {"kernel_size": (3, 2), "stride": 2, "padding": 1}, {"kernel_size": 3, "dilation": 2},
     {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}],
)  # fmt: skip
def test_maxima_and_their_indices(how):
    """Values from few, so that maxima tie; a plane of nothing but the least value."""
    t = torch.randint(3, (2, 3, 9, 11)).float()
    t[0, 0] = float("-inf")
    cube = torch.randint(3, (1, 2, 5, 9, 11)).float()
    for pool, given in ((F.max_pool1d, t[..., 0]), (F.max_pool2d, t), (F.max_pool3d, cube)):
        if pool is not F.max_pool2d and how["kernel_size"] == (3, 2):
            continue
        check(partial(pool, return_indices=True, **how), given)
    check(lambda t: F.max_pool2d(t, return_indices=True, **how)[0], t)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "ends", [(0.0, 1.0, 0.1), (2.5, -3.0, -0.75), (1.0, 1.0, 0.5), (0.5, 7.5, 1)]
)
def test_numbers_in_steps_of_a_fraction(ends, dtype):
    check(lambda t: t.sum() + torch.arange(*ends, dtype=dtype), x())


def test_softplus_of_another_slope():
    for beta, threshold in ((3.0, 0.2), (0.5, 20.0), (2.0, 1.0)):
        check(partial(F.softplus, beta=beta, threshold=threshold), 4 * x())


@pytest.mark.parametrize("decimals", [-2, 0, 3])
def test_rounding_to_decimals(decimals):
    check(partial(torch.round, decimals=decimals), 100 * x())


def test_sum_of_products_of_a_batch():
    c, a, b = x(3, 5, seed=1), x(4, 3, 6, seed=2), x(4, 6, 5, seed=3)
    check(lambda *v: torch.addbmm(*v, beta=0.5, alpha=2.0), c, a, b)


@pytest.mark.parametrize(
    "batches", [((1, 4), (3, 4)), ((3, 1), (1, 4)), ((2, 1, 4), (1, 3, 1)), ((4,), (3, 4))]
)
def test_attention_over_batches_that_are_broadcast(batches):
    (q, k), g = batches, torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(*s, n, 8, generator=g) for s, n in ((q, 3), (k, 6), (k, 6)))
    check(F.scaled_dot_product_attention, q, k, v)


def test_gradient_of_maxima_as_an_operator():
    t, grad = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    how = ((3, 3), (2, 2), (1, 1), (1, 1), False)

    def backward(t, grad):
        index = torch.ops.aten.max_pool2d_with_indices(t, *how)[1]
        return torch.ops.aten.max_pool2d_with_indices_backward(grad, t, *how, index)

    check(backward, t, grad)


def test_a_refusal_is_one_item():
    def pooled(t):
        return F.max_pool2d(t[None], 2, return_indices=True)

    with pytest.raises(UnsupportedError) as e:
        ree.compile(Apply(lambda t: pooled(t)[1]), x().bool())
    assert len(e.value.items) == 1  # nothing about what comes after
    assert e.value.items[0].startswith("max_pool2d_with_indices at test_torch_operators.py:")


def test_a_place_in_source_that_cannot_be_read():
    scope = {"torch": torch}
    exec(compile("def forward(t):\n    return torch.kron(t, t).i0()", "made", "exec"), scope)
    with pytest.raises(UnsupportedError) as e:
        ree.compile(Apply(scope["forward"]), x())
    assert e.value.items == ("i0 at made:2",)


def test_inputs_that_are_not_dense():
    quantised = torch.quantize_per_tensor(x(), 0.1, 0, torch.qint8)
    for t, why in (
        (x().to_sparse(), "sparse"),
        (quantised, "quantised"),
        (x().double(), "float64"),
    ):
        with pytest.raises(UnsupportedError, match=why):
            ree.compile(Apply(lambda t: t), t)


def test_layouts_of_inputs_that_were_rearranged():
    given = torch.arange(6.0).view(2, 3).t()
    for reads in (
        lambda t: t.as_strided((2, 2), (1, 2)),
        lambda t: t + t.stride(0),
        lambda t: t + t[:, 1:].storage_offset(),
        lambda t: t.t() if t.is_contiguous() else t + 1,
    ):
        with pytest.raises(
            CaptureError, match="how an input lies in memory is read at test_torch_op"
        ):
            ree.compile(Apply(reads), given)
        ree.compile(Apply(reads), given.contiguous())
    check(lambda t: F.softmax(t, 0) @ t.T, given)


def test_softmax_of_a_number():
    for dim in (0, -1):
        check(lambda a, d=dim: (F.softmax(a, d), F.softmin(a, d), F.log_softmax(a, d)), x()[0, 0])


def test_running_sums_of_a_number_and_into_another_type():
    for t in (x()[0, 0], x()):
        check(lambda t: (t.cumsum(0), t.long().cumsum(-1), (t > 0).cumsum(0)), t)
        check(
            lambda t: (t.cumsum(0, dtype=torch.int64), t.long().cumsum(-1, dtype=torch.float32)), t
        )


def test_arithmetic_of_truths():
    for alpha in (True, False):
        check(lambda a, alpha=alpha: torch.add(a, ~a, alpha=alpha), x() > 0)
    check(lambda a: (a.square(), a**3, a**0, a.prod(1, dtype=torch.bool), a.prod(1)), x() > 0)


def test_places_in_a_number():
    zero, one = torch.tensor(0), torch.tensor([0])

    def f(t):
        return (
            t.gather(0, zero),
            t.gather(0, one),
            t.unfold(0, 1, 1),
            t.index_select(0, one),
            t.index_add(0, one, 2 * t, alpha=3),
            t.index_copy(0, one, t + 1),
        )

    for t in (x()[0, 0], torch.tensor(4)):
        check(f, t)
    check(lambda t: t.gather(0, torch.zeros(2, 0, dtype=torch.int64)), x(5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool])
def test_extremes_of_integers(dtype):
    t = (x(3, 4, 5) > 0) if dtype is torch.bool else x(3, 4, 5).to(dtype)
    check(lambda t: (t.amax(), t.amin(1), t.amax((2, 0)), t.amin((0, -1), keepdim=True)), t)
    check(lambda t: (t.amax(), t.amin(0)), t[0, 0, 0])


def test_padding_of_what_other_padding_cuts_away():
    for amounts in ((-4, 5, 0, 0), (0, 0, 2, -4), (5, -4, -4, 3), (-1, 2, 2, -2)):
        check(lambda a, p=amounts: F.pad(a, p, mode="replicate"), x(2, 3, 4, 4), tolerance=0)


@pytest.mark.parametrize("ends", [(4.3, -3), (-2, 60), (0, 0), (-7.9, 7.9)])
@pytest.mark.parametrize("steps", [0, 1, 2, 7, 50])
def test_linspace_of_integers(ends, steps):
    check(lambda a: a[:1] + torch.linspace(*ends, steps, dtype=torch.int64), torch.ones(3).long())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_quotient_is_cut_before_it_is_rounded_to_half_precision(dtype):
    """Eager mode rounds first: 25.97 becomes 26 in bfloat16."""
    a, b = x(64, dtype=dtype), x(64, dtype=dtype, seed=1)
    program = ree.compile(Apply(lambda p, q: torch.div(p, q, rounding_mode="trunc")), (a, b))
    want = torch.div(a.float(), b.float(), rounding_mode="trunc").to(dtype)
    assert torch.equal(program.run(a, b).outputs[0], want)


@pytest.mark.parametrize(
    "f",
    [lambda t: t * t.shape[2], lambda t: t.sum() / t.shape[2],
     lambda t: F.max_pool2d(t, 3, 2, 1, return_indices=True)],
)  # fmt: skip
def test_an_open_size_as_a_number(f):
    dims = ({2: torch.export.Dim("h", min=4, max=64)},)
    program = ree.compile(Apply(f), (torch.randn(3, 2, 8, 8),), dynamic_shapes=(dims,))
    for h in (5, 12):
        given = torch.randn(3, 2, h, 8)
        want = f(given)
        for have, w in zip(
            program.run(given).outputs, want if isinstance(want, tuple) else (want,), strict=True
        ):
            torch.testing.assert_close(torch.as_tensor(have), w)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_width_0(masked):
    q, k, v = torch.randn(1, 2, 3, 0), torch.randn(1, 2, 5, 0), torch.randn(1, 2, 5, 4)
    mask = torch.arange(15).reshape(3, 5) % 4 != 1 if masked else None
    check(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=mask), q, k, v)


@pytest.mark.parametrize("dim", [1, -1, (0, 1)])
def test_logsumexp_of_no_elements(dim):
    check(lambda x: torch.logsumexp(x, dim), torch.randn(3, 0))


def test_pooling_to_no_elements():
    check(lambda x: F.adaptive_avg_pool2d(x, (0, 2)), torch.randn(1, 3, 4, 4))


def test_resizing_from_no_elements():
    with pytest.raises(UnsupportedError, match="resizing an axis of 0 elements"):
        ree.compile(Apply(lambda x: F.interpolate(x, size=(3, 3))), (torch.randn(1, 3, 0, 4),))
