"""Scans, searches, reductions by index, sampling, distances, integer products and pooling against torch."""

import math

import pytest
import torch
from torch.nn import functional as F

import ree
from ree.errors import UnsupportedError

NAN, INF = math.nan, math.inf
SPECIAL = torch.tensor([[1.0, NAN, 2, NAN, -1, INF, 0, -0.0, 0], [3, 3, 1, 3, -INF, 3, 2, 2, 2],
                        [-INF, -INF, 0, 0, 0, -0.0, 5, 5, 5], [NAN, 1, 1, 0, 2, 2, 2, 4, 4]])  # fmt: skip


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def ints(low, high, *shape, dtype=torch.int64):
    g = torch.Generator().manual_seed(sum(shape))
    return torch.randint(low, high, shape, generator=g).to(dtype)


X, FEW = randn(5, 37), ints(-3, 4, 4, 16)
WIDE = [
    ints(-(2**62), 2**62, *shape) for shape in ((3, 4), (4, 5), (2, 3, 4), (2, 4, 5), (5,), (4,))
]


class All(torch.nn.Module):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def forward(self, *args):
        rest = iter(args)
        return tuple(y for f, xs in self.calls for y in _tuple(f(*(next(rest) for _ in xs))))


def _tuple(y):
    return tuple(y) if isinstance(y, tuple | list) else (y,)


def check(calls, tolerance=4e-6):
    """[(function, its tensors)], all in one program: as eager mode, and the same bits on every layer."""
    module, args = All(calls), tuple(x for _, xs in calls for x in xs)
    program, want = ree.compile(module, args), module(*args)
    runs = [program.run(*args, isa=isa, trace="ops") for isa in (None, "portable")]
    assert len({r.trace.root for r in runs}) == 1
    for have, w in zip(runs[0].outputs, want, strict=True):
        assert (have.dtype, have.shape) == (w.dtype, w.shape)
        if not w.is_floating_point():
            assert torch.equal(have, w)
            continue
        scale = w[w.isfinite()].abs().max().item() if w.isfinite().any() else 1.0
        torch.testing.assert_close(have, w, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def test_scans():
    check([(lambda x, f=f, d=d: f(x, d), (x,)) for f in (torch.cumprod, torch.cummax, torch.cummin)
           for d in (0, -1) for x in (X, SPECIAL, FEW, FEW.int(), FEW > 0, torch.zeros(3, 0))]
          + [(lambda x, d=d: torch.logcumsumexp(x, d), (x,)) for d in (0, -1)
             for x in (X, SPECIAL, 90 * X)]
          + [(lambda x: torch.cummax(x, 0), (torch.tensor(2.5),))])  # fmt: skip


def test_medians_and_modes():
    by_value = [lambda x: torch.median(x), lambda x: torch.median(x, 0, keepdim=True)[0],
                lambda x: torch.median(x, 1)[0]]  # fmt: skip
    check([(f, (x,)) for f in by_value for x in (X, SPECIAL, FEW, FEW.int())]
          + [(lambda x: torch.nanmedian(x, 1), (SPECIAL,)), (lambda x: torch.nanmedian(x), (SPECIAL,)),
             (lambda x: torch.median(x, 1), (X,)), (lambda x: torch.median(x), (torch.zeros(0),)),
             (lambda x: torch.mode(x), (FEW,)), (lambda x: torch.mode(x, 0, keepdim=True), (FEW,)),
             (lambda x: torch.mode(x), (FEW > 0,)), (lambda x: torch.mode(x, 1), (SPECIAL[1:3],))])  # fmt: skip
    found = ree.compile(All([(torch.median, (SPECIAL,))]), (SPECIAL,)).run(SPECIAL).outputs[0]
    assert found.isnan()


@pytest.mark.parametrize("right", [False, True])
def test_searches(right):
    values = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1, 2.5])
    edges = torch.tensor([-1.0, 0, 1, 1, 3, NAN])
    rows = X.sort(-1).values
    check([(lambda v, e: torch.bucketize(v, e, right=right), (values, edges)),
           (lambda v, e: torch.bucketize(v, e, right=right, out_int32=True), (FEW, edges)),
           (lambda e, v: torch.searchsorted(e, v, right=right), (rows, randn(5, 4))),
           (lambda e, v: torch.searchsorted(e, v, right=right), (X, randn(5, 4))),  # as torch halves
           (lambda e, v, s: torch.searchsorted(e, v, right=right, sorter=s),
            (X, randn(5, 4), X.argsort(-1))),
           (lambda e, v: torch.searchsorted(e, v, side="right" if right else "left"),
            (FEW.sort(-1).values, FEW)),
           (lambda e: torch.searchsorted(e, 0.5, right=right), (rows[0],)),
           (lambda v, e: torch.bucketize(v, e, right=right), (FEW, torch.zeros(0)))])  # fmt: skip


@pytest.mark.parametrize("include_self", [False, True])
def test_reductions_by_index(include_self):
    x, src = randn(6, 4), randn(7, 5).round()
    x[2, 1], src[1, 1], src[4, 2] = NAN, INF, NAN
    index, vector = ints(0, 6, 7, 3), ints(0, 4, 7)
    calls = []
    for how in ("sum", "prod", "mean", "amax", "amin"):
        f = lambda x, i, y, how=how: x.scatter_reduce(0, i, y, how, include_self=include_self)  # noqa: E731
        calls += [(f, (x, index, src)), (f, (ints(-5, 5, 6, 4), index, ints(-5, 5, 7, 5))),
                  (f, (torch.tensor(2.0), torch.tensor(0), torch.tensor(3.0))),
                  (f, (x, index[:0], src[:0]))]  # fmt: skip
        if how != "mean":
            calls.append((f, (x > 0, index, src > 0)))
        if how != "sum":
            g = lambda x, i, y, how=how: x.index_reduce(1, i, y, how, include_self=include_self)  # noqa: E731
            calls.append((g, (randn(6, 4), vector, randn(6, 7))))
    calls.append((lambda x, i, y: x.scatter(0, i, y, reduce="multiply"), (x, index, src)))
    check(calls)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag(mode):
    table, at = randn(10, 4), torch.tensor([1, 2, 3, 3, 5, 5, 9, 0, 2, 5])
    offsets = torch.tensor([0, 2, 2, 5, 8])
    table[5] = -INF
    calls = [
        (lambda w, i, o: F.embedding_bag(i, w, o, mode=mode), (table, at, offsets)),
        (lambda w, i, o: F.embedding_bag(i, w, o, mode=mode), (table, at.int(), offsets.int())),
        (lambda w, i: F.embedding_bag(i, w, mode=mode), (table, at.view(2, 5))),
        (lambda w, i, o: F.embedding_bag(i, w, o, mode=mode, padding_idx=5), (table, at, offsets)),
        (lambda w, i, o: F.embedding_bag(i, w, o, mode=mode, include_last_offset=True),
         (table, at, torch.tensor([0, 2, 2, 5, 10]))),
        (lambda w, i, o: F.embedding_bag(i, w, o, mode=mode), (table, at[:0], offsets[:1])),
    ]  # fmt: skip
    if mode == "sum":
        calls.append((lambda w, i, o, p: F.embedding_bag(i, w, o, mode="sum", per_sample_weights=p),
                      (table, at, offsets, randn(10))))  # fmt: skip
    check(calls)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(padding):
    x, grid = randn(2, 3, 5, 7), 1.2 * randn(2, 4, 6, 2)
    grid[0, 0, 0], grid[0, 1], grid[1, 1, 1] = (
        torch.tensor([1.0, -1]),
        0,
        torch.tensor([1 / 7, 0.2]),
    )
    grid[0, 0, 1, 0], grid[0, 0, 2, 1], grid[0, 0, 3] = NAN, INF, -INF
    calls = [(lambda x, g, m=m, a=a: F.grid_sample(x, g, m, padding, a), (x, grid))
             for m in ("bilinear", "nearest", "bicubic") for a in (True, False)]  # fmt: skip
    calls += [(lambda x, g, m=m: F.grid_sample(x, g, m, padding, False),
               (randn(2, 3, 4, 5, 6), randn(2, 4, 2, 3, 3))) for m in ("bilinear", "nearest")]  # fmt: skip
    calls.append((lambda t: F.affine_grid(t, (2, 3, 4, 5), align_corners=False), (randn(2, 2, 3),)))
    check(calls, 1e-5)


def test_distances():
    a, b = randn(4, 6), randn(3, 6)
    b[0] = a[0]
    calls = []
    for p in (0.0, 1.0, 2.0, INF, 0.5, 3.0):
        f = lambda a, b, p=p: torch.cdist(a, b, p)  # noqa: E731
        calls += [(f, (a, b)), (f, (randn(2, 1, 4, 3), randn(5, 2, 3))), (f, (a[:, :0], b[:, :0])),
                  (lambda a, p=p: F.pdist(a, p), (torch.cat([a, b]),))]  # fmt: skip
    calls.append((torch.cdist, (randn(2, 40, 8), randn(30, 8))))
    check(calls, 1e-5)


def test_integer_products_wrap():
    a, b, c, d, e, v = WIDE
    check([(torch.mm, (a, b)), (torch.bmm, (c, d)), (torch.matmul, (c, v)), (torch.dot, (v, v)),
           (torch.mm, (a[:, :0], b[:0])), (F.linear, (a, b.T.contiguous(), e)),
           (lambda c, a, b: torch.addmm(c, a, b, alpha=3, beta=2), (e, a, b)),
           (lambda a, b: torch.einsum("ij,jk->ik", a, b), (a, b)),
           (torch.mm, (a.int(), b.int())), (torch.mm, (a.to(torch.uint8), b.to(torch.uint8)))])  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pooling(n):
    x, whole = randn(2, 3, *(7, 5, 6)[:n]), ints(-9, 9, 2, 3, *(7, 5, 6)[:n])
    adaptive, largest, mean = (
        getattr(F, f"{name}_pool{n}d") for name in ("adaptive_max", "max", "avg")
    )
    hows = ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": 2, "dilation": 2, "stride": 1, "ceil_mode": True})  # fmt: skip
    calls = [(lambda x, s=s: adaptive(x, s, return_indices=True), (y,))
             for s in ((3, 4, 5)[:n], (1,) * n) for y in (x, 0 * x, x[0])]  # fmt: skip
    calls += [(lambda x, how=how: largest(x, **how, return_indices=True), (whole.to(d),))
              for how in hows for d in (torch.int64, torch.int32, torch.uint8)]  # fmt: skip
    calls += [(lambda x: mean(x, 3, 2, 1, count_include_pad=False), (whole,)),
              (lambda x: mean(x, 2), (whole,))]  # fmt: skip
    check(calls)


def test_adaptive_means_of_many_cells():
    check([(lambda x: F.adaptive_avg_pool2d(x, (9, 11)), (randn(2, 3, 20, 17),))])


def test_linspace_between_tensors():
    check([(lambda a, b, n=n, d=d: torch.linspace(a, b, n, dtype=d), (torch.tensor(-3.7), torch.tensor(50.0)))
           for n in (0, 1, 2, 5, 50) for d in (torch.float32, torch.int64, torch.int32)]
          + [(lambda a: torch.linspace(a, -20, 7, dtype=torch.int64), (torch.tensor(7),))])  # fmt: skip


def test_multinomial_is_refused_outside_training():
    with pytest.raises(UnsupportedError, match="training steps alone"):
        ree.compile(All([(lambda p: torch.multinomial(p, 2), (torch.ones(3),))]), (torch.ones(3),))
