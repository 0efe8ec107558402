"""Sorting, reads and writes at indices: modules against torch, and every route to the same bytes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ree
from ree import _core
from ree.conformance import graph_of, program_of
from ree.errors import CaptureError, InputError, UnsupportedError
from ree.kernels import opdef


class Module(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


def check(f, *args, exact=True):
    """f compiled against f in torch; all instruction sets, thread counts and fusion alike."""
    program = ree.compile(Module(f).eval(), args)
    want = f(*args)
    want = tuple(want) if isinstance(want, tuple | list) else (want,)
    first = program.run(*args).outputs
    assert len(first) == len(want)
    for got, w in zip(first, want, strict=True):
        got = torch.as_tensor(got)
        assert got.dtype == w.dtype
        assert got.shape == w.shape
        if exact:
            assert torch.equal(torch.nan_to_num(got, 7.5), torch.nan_to_num(w, 7.5))
        else:
            assert torch.allclose(got, w, rtol=1e-5, atol=1e-5)
    arrays = [np.asarray(x) for x in first]
    for isa in _core.isa_names():
        for threads in (1, 2, 7):
            for fuse in (True, False):
                again = program.run(*args, isa=isa, threads=threads, fuse=fuse).outputs
                for x, y in zip(again, arrays, strict=True):
                    assert np.asarray(x).tobytes() == y.tobytes(), (isa, threads, fuse)
    run = program.run(*args, trace="ops")
    assert ree.verify(program, run.trace, args).same
    return program


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ints(low, high, *shape, seed=0):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


X = randn(6, 9)
NAN = torch.tensor([[1.0, float("nan"), -0.0, 0.0, 1.0], [2.0, -1.0, 2.0, float("inf"), -1.0]])
TIES = ints(-2, 3, 5, 40).float()


@pytest.mark.parametrize("x", [X, NAN, TIES, ints(-3, 3, 4, 7), randn(2, 700), X > 0])
@pytest.mark.parametrize("down", [False, True])
def test_sort_is_torchs_stable_sort(x, down):
    for dim in (0, 1):
        check(lambda x, d=dim: torch.sort(x, dim=d, descending=down, stable=True), x)
    check(lambda x: torch.argsort(x, dim=-1, descending=down, stable=True), x)


def test_topk():
    check(lambda x: x.topk(3, dim=1), X)
    check(lambda x: x.topk(2, dim=0, largest=False), X)
    program = ree.compile(Module(lambda x: x.topk(4)).eval(), (TIES,))
    values, where = program.run(TIES).outputs
    for row, got, at in zip(TIES, values, where, strict=True):
        best = sorted(range(len(row)), key=lambda i, r=row: (-float(r[i]), i))[:4]
        assert at.tolist() == best  # ties to the lowest index
        assert got.tolist() == [float(row[i]) for i in best]


@pytest.mark.parametrize("x", [X, NAN, TIES, ints(-3, 3, 4, 7)])
def test_extremes_along_an_axis(x):
    def first(x, least):
        y = x.min(1) if least else x.max(1, keepdim=True)
        return y.values, y.indices

    for least in (False, True):
        check(lambda x, k=least: first(x, k), x)
        check(lambda x, k=least: x.min() if k else x.max(), x)
    check(lambda x: x.argmin(1), x)
    check(lambda x: x.argmin(0, keepdim=True), x)
    check(lambda x: x.argmin(), x)
    check(lambda x: x.kthvalue(2, 0).values, x)


def test_expert_routing():
    """Softmax, top-k, weights by scatter, a mask from one-hot vectors."""

    def dispatch(x):
        weights, chosen = torch.softmax(x, -1).topk(2, dim=-1)
        mask = F.one_hot(chosen, 9).float().sum(1)
        return torch.zeros_like(x).scatter(1, chosen, weights), mask

    check(dispatch, randn(50, 9), exact=False)


def test_scatter():
    index, src = ints(0, 9, 6, 4), randn(6, 4, seed=1)
    unique = torch.argsort(randn(6, 9, seed=2), 1)[:, :4]
    check(lambda x, i, s: x.scatter(1, i, s), X, unique, src)
    check(lambda x, i: x.scatter(1, i, 2.5), X, index)
    check(lambda x, i, s: x.scatter(1, i, s), X, unique[:4, :3], src)  # a part of x and of src
    check(lambda x, i, s: x.scatter(0, i, s), X > 0, ints(0, 6, 1, 9), X[:1] < 1)
    check(lambda x, i, s: x.scatter_add(1, i, s), X, index, src, exact=False)
    check(
        lambda x, i, s: x.scatter_add(0, i, s),
        ints(0, 9, 5, 3),
        ints(0, 5, 40, 3),
        ints(0, 9, 40, 3),
    )
    check(lambda x, i, s: x.scatter_reduce(1, i, s, "sum"), X, index, src, exact=False)
    check(lambda x, i, s: x.scatter_reduce(1, i, s, "sum", include_self=False), X, index, src,
          exact=False)  # fmt: skip
    check(lambda x, i, s: x.scatter(1, i, s, reduce="add"), X, index, src, exact=False)


def test_the_last_update_wins_and_sums_go_in_order():
    x = np.array([1.0, 2.0], np.float32)
    index = np.array([1, 0, 1, 1], np.int64)
    src = np.array([5.0, 1e8, 7.0, -3.0], np.float32)
    args = [torch.from_numpy(v) for v in (x, index, src)]
    put = check(lambda x, i, s: x.scatter(0, i, s), *args)
    assert put.run(*args).outputs[0].tolist() == [1e8, -3.0]
    add = check(lambda x, i, s: x.scatter_add(0, i, s), *args)
    got = np.asarray(add.run(*args).outputs[0])
    chain = ((x[1] + src[0]) + src[2]) + src[3]
    assert got.tobytes() == np.array([x[0] + src[1], chain], np.float32).tobytes()
    big = np.array([1.0, 1e8, -1e8], np.float32)  # (1 + 1e8) - 1e8 is 0 in this order
    zero = torch.zeros(1), torch.zeros(3, dtype=torch.int64), torch.from_numpy(big)
    for f in (lambda x, i, s: x.scatter_add(0, i, s), lambda x, i, s: x.index_add(0, i, s)):
        assert check(f, *zero, exact=False).run(*zero).outputs[0].tolist() == [0.0]


def test_index_put():
    rows = torch.tensor([3, -1, 0])
    check(lambda x, i, v: x.index_put((i,), v), X, rows, randn(3, 9, seed=3))
    check(lambda x, i: x.index_put((i,), torch.tensor(1.5)), X, rows)
    check(lambda x, i, v: x.index_put((i, i), v), X, rows, randn(3, seed=3))
    check(lambda x, i, v: x.index_put((i, i), v, accumulate=True), X, torch.tensor([1, 1, -5]),
          randn(3, seed=3), exact=False)  # fmt: skip
    cube = randn(3, 4, 5, 2)
    check(lambda x, i: x.index_put((i, i, i), torch.tensor(0.5)), cube, torch.tensor([[0], [-2]]))
    check(lambda x, i, j, v: x.index_put((i, j), v), cube, torch.tensor([[0], [2]]),
          torch.tensor([1, 3]), randn(2, 1, 5, 2))  # fmt: skip

    def assign(x, i, v):
        y = x.clone()
        y[:, i] = v  # an axis in the middle
        y[i, :, i] = 3.0  # apart
        return y

    check(assign, cube, torch.tensor([2, 0]), randn(5, 2, seed=4))
    check(
        lambda x, i, v: x.index_add(1, i, v, alpha=2),
        X,
        rows.abs(),
        randn(6, 3, seed=3),
        exact=False,
    )
    check(lambda x, i, v: x.index_copy(0, i, v), X, torch.tensor([4, 2]), randn(2, 9, seed=3))
    check(lambda x, i: x.index_fill(1, i, -1.0), X, rows.abs())


def test_assignment_to_masks_and_slices():
    def masked(x, m):
        y = x.clone()
        y[m] = 0.0
        y[m[:, 0]] = x[0]
        y[1] += x[0]
        y[:, -1] = 4
        y[2:5, ::2] = x[:3, :5]
        y[:2] = 1.0
        return y

    check(masked, X, X > 0.3)
    check(lambda x, v: torch.select_scatter(x, v, 1, -2), X, X[:, 0])
    check(lambda x, v: torch.slice_scatter(x, v, 1, 2, -1, 3), X, X[:, :2])
    check(lambda x, v: torch.diagonal_scatter(x, v, -2), X, X[0, :4])


def test_moves():
    check(lambda x: (x.flip(0, 1), torch.rot90(x), x.fliplr()), X)
    check(lambda x: (x.roll((1, -2), (0, 1)), x.roll(4), x.roll(9, 1)), X)
    check(lambda x: (x.tril(), x.triu(2), x.tril(-1)), randn(2, 4, 6))
    check(lambda x: (x.repeat_interleave(3, 0), x.repeat_interleave(2)), X)
    check(lambda x: (x.diagonal(), x.diagonal(3), x.diagonal(-2), x.diagonal(8)), X)
    check(lambda x: x.diagonal(1, 2, 0), randn(4, 3, 5))
    check(lambda x: (torch.diag(x[0]), torch.diag_embed(x), torch.eye(3)), X)
    check(lambda x: x.narrow(1, 2, 3) + x.unbind(1)[4][:, None], X)
    check(lambda x: torch.meshgrid(x[0], x[:, 1], indexing="ij"), X)


def test_reads_at_indices():
    rows = torch.tensor([3, 1, 1, 0])
    check(lambda x, i: (x.index_select(0, i), x.index_select(1, i), x.take(i)), X, rows)
    check(lambda x, i: torch.take_along_dim(x, i, 1), X, ints(-9, 9, 6, 3))
    check(lambda x, i: torch.take_along_dim(x, i, 0), X, ints(0, 6, 4, 1))
    check(lambda i: F.one_hot(i, 5), ints(0, 5, 3, 4))


def test_histc():
    check(lambda i: torch.histc(i.float(), bins=8, min=0, max=7), ints(0, 8, 3, 60))
    check(lambda x: torch.histc(x, bins=5, min=-1, max=2), randn(400))


def test_open_sizes():
    class Route(nn.Module):
        def forward(self, x):
            values, where = x.topk(2, dim=1)
            return x.scatter(1, where, values * 2), x.flip(0), x.sort(0).indices

    rows = torch.export.Dim("rows", min=2, max=64)
    program = ree.compile(Route().eval(), (X,), dynamic_shapes={"x": {0: rows}})
    for n in (2, 6, 33):
        x = randn(n, 9, seed=n)
        for got, want in zip(program.run(x).outputs, Route()(x), strict=True):
            assert torch.equal(torch.as_tensor(got), want)


@pytest.mark.parametrize(
    ("f", "good", "bad"),
    [
        (lambda x, i: x.scatter(1, i, 1.0), [[0, 3]], [[0, 9]]),
        (lambda x, i: x.scatter_add(1, i, x[:1, :2]), [[0, 3]], [[-1, 3]]),
        (lambda x, i: x.index_put((i,), x[0]), [-6, 5], [6, 0]),
        (lambda x, i: x.index_put((i,), x[0], accumulate=True), [-6, 5], [0, -7]),
        (lambda x, i: x.index_put((i, i), x[0, 0]), [-6, 5], [6, 0]),
        (lambda x, i: F.one_hot(i, 4), [0, 3], [0, 4]),
        (lambda x, i: x.index_select(1, i), [0, 8], [0, 9]),
    ],
)
def test_an_index_out_of_range_is_an_error(f, good, bad):
    program = ree.compile(Module(f).eval(), (X, torch.tensor(good)))
    program.run(X, torch.tensor(good))
    for isa in _core.isa_names():
        with pytest.raises(InputError, match=r"not in \[|out of range"):
            program.run(X, torch.tensor(bad), isa=isa, threads=2)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.masked_select(x, x > 0),
        lambda x: torch.where(x > 0),
        lambda x: x.unique(),
    ],
)
def test_shapes_that_depend_on_data_are_refused(f):
    with pytest.raises(UnsupportedError) as e:
        ree.compile(Module(f).eval(), (X,))
    assert any("depends on data" in item for item in e.value.items)


def test_one_hot_without_classes_is_refused():
    with pytest.raises((UnsupportedError, CaptureError)):
        ree.compile(Module(lambda i: F.one_hot(i)).eval(), (ints(0, 4, 5),))


def test_assignment_to_a_mask_from_several_values_is_refused():
    with pytest.raises(UnsupportedError) as e:
        ree.compile(Module(lambda x, v: x.index_put((x > 0,), v)).eval(), (X, X[0]))
    assert any("the same everywhere" in item for item in e.value.items)


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(1, 300), st.integers(1, 130))
@settings(max_examples=40, deadline=None)
def test_random_shapes(seed, outer, n, inner):
    """Sorting and writing against the references, on every instruction set."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(0, 40))
    x = rng.integers(-9, 9, (outer, n, inner)).astype(np.float32) * np.float32(0.1)
    src = rng.standard_normal((outer, k, inner), np.float32)
    wide = np.round(rng.standard_normal((outer, n, inner)) * 10.0 ** rng.integers(0, 18))
    index = rng.integers(0, n, (outer, k, inner))
    dim = {"dim": 1}
    for op, inputs, attrs in [
        ("sort", (x,), {"dim": 1, "descending": bool(seed & 1)}),
        ("sort", (wide.astype(np.int64),), {"dim": 1, "descending": bool(seed & 2)}),
        ("scatter", (x, index, src), dim),
        ("scatter_add", (x, index, src), dim),
        ("index_put", (x, rng.integers(-n, n, k), src), dim),
        ("index_add", (x, rng.integers(-n, n, k), src), dim),
    ]:
        want = opdef.apply(op, inputs, attrs)
        program = program_of(graph_of(op, opdef.Sample("random", inputs, attrs)))
        for isa in _core.isa_names():
            for got, w in zip(program.run(*inputs, isa=isa, threads=1 + seed % 3).outputs, want,
                              strict=True):  # fmt: skip
                assert got.tobytes() == w.tobytes(), (op, x.shape, k, isa)
