"""Linear layers in 8-bit integers: from torch, by the pass over a graph, and what they are not done to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ree
from ree import _core
from ree.compiler import interp
from ree.compiler.instance import make_instance
from ree.compiler.ir import Builder
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.passes.quantise import (
    What,
    factors,
    linear_layers,
    quantise_weight,
    quantised,
    quantised_layers,
)
from ree.compiler.plan.planner import plan
from ree.errors import InputError, UnsupportedError
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.quantisation import output_error, quantise
from ree.quantised import QuantisedLinear


def same(a, b, where=""):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, where
    assert a.tobytes() == b.tobytes(), where


def everywhere(program, *inputs):
    """The outputs, the same on every instruction set, fused or not, traced or not."""
    bound = make_instance(program.graph, program.bind_symbols(inputs)).graph
    want = interp.outputs(bound, inputs, program.weights)
    for isa in _core.isa_names():
        for fuse in (True, False):
            got = program.run(*inputs, isa=isa, fuse=fuse, threads=2)
            traced = program.run(*inputs, isa=isa, fuse=fuse, trace="ops")
            for a, b, c in zip(want, got.outputs, traced.outputs, strict=True):
                same(a, b, (isa, fuse))
                same(a, c, (isa, fuse, "traced"))
    return want


def nasty(shape, seed=0):
    """Rows of every kind: ordinary, zeros, NaN, infinity, tiny, huge, one element that hides the rest."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    rows = x.reshape(-1, shape[-1])
    rows[0], rows[1, 3], rows[2, 5] = 0, np.nan, -np.inf
    rows[3] *= np.float32(1e-38)
    rows[4] *= np.float32(1e30)
    rows[5, 0] = 1e6
    return x


class Two(torch.nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


@pytest.fixture(scope="module")
def two():
    torch.manual_seed(3)
    return Two(torch.nn.Linear(48, 70), torch.nn.Linear(70, 10, bias=False)).eval()


def test_a_module_and_the_pass_have_the_same_bits(two):
    x = nasty((2, 4, 48))
    as_module = ree.compile(
        Two(QuantisedLinear(two.a), QuantisedLinear(two.b)), {"x": torch.from_numpy(x)}
    )
    (want,) = everywhere(as_module, x)
    plain = ree.compile(two, {"x": torch.from_numpy(x)})
    layers = linear_layers(plain.graph, [True] * len(plain.weights))
    graph, made = quantised(plain.graph, layers, smoothed=False)
    weights = []
    for m in made:
        w = plain.weights[m.weight]
        place = (What.BYTES, What.SCALES, What.SUMS)
        weights.append(w if m.what is What.GIVEN else quantise_weight(w)[place.index(m.what)])
    names = Names(("x",), ("y",), tuple(f"w{i}" for i in range(len(weights))))
    (got,) = everywhere(Program(graph, names, weights), x)
    same(got, want)
    rows = want.reshape(8, -1)
    assert np.isnan(rows[1:3]).all()
    assert np.isfinite(rows[[0, 3, 4, 5, 6, 7]]).all()
    same(rows[0], rows[3])  # what is tiny counts as 0
    exact = two(torch.from_numpy(x)).detach().numpy().reshape(8, -1)
    assert np.abs(rows[6:] - exact[6:]).max() < 0.05


def test_what_torch_computes_is_what_the_program_computes(two):
    x = np.random.default_rng(1).standard_normal((9, 48)).astype(np.float32)
    module = Two(QuantisedLinear(two.a), QuantisedLinear(two.b))
    program = ree.compile(module, {"x": torch.from_numpy(x)})
    same(program.run(x).outputs[0], module(torch.from_numpy(x)).numpy())
    calls = plan(make_instance(program.graph, {}).graph, panel=32).calls
    kernels = [c.kernel for c in calls]
    assert kernels.count("gemm_i8") == 2
    assert "pack_i8" not in kernels  # packed at load
    assert kernels[-1] == "gemm_i8"  # scales and bias are in its tile function


class IntMm(torch.nn.Module):
    def forward(self, a, b):
        return torch._int_mm(a, b), torch.ops.aten._int_mm(a, a.t())


def test_int_mm_of_torch_is_exact():
    rng = np.random.default_rng(2)
    a = rng.integers(-128, 128, (20, 32)).astype(np.int8)
    b = rng.integers(-128, 128, (32, 24)).astype(np.int8)
    module = IntMm()
    program = ree.compile(module, {"a": torch.from_numpy(a), "b": torch.from_numpy(b)})
    got = everywhere(program, a, b)
    for x, want in zip(got, module(torch.from_numpy(a), torch.from_numpy(b)), strict=True):
        assert x.dtype == np.int32
        same(x, want.numpy())
    assert [n.op for n in program.graph.nodes].count("linear_i8") == 2
    assert "cast" not in [n.op for n in program.graph.nodes]


def test_too_many_products_are_refused_with_their_line():
    a, b = torch.zeros(1, 1 << 17, dtype=torch.int8), torch.zeros(1 << 17, 1, dtype=torch.int8)
    with pytest.raises(UnsupportedError) as e:
        ree.compile(IntMm(), {"a": a, "b": b})
    assert any("test_quantise.py" in x and "at most 131071 products" in x for x in e.value.items), (
        e.value.items
    )


def test_a_total_shares_memory_with_what_is_made_of_it():
    """A cast that others read is stored over the total: the total is still read as integers."""
    b = Builder()
    x, w = b.input(TensorType(DType.I8, (5, 40))), b.weight(TensorType(DType.I8, (33, 40)))
    other = b.input(TensorType(DType.F32, (5, 33)))
    y = b.add("cast", b.add("linear_i8", x, w), dtype=DType.F32)
    z = b.add("mul", b.add("softmax", other, dim=1), y)
    graph = b.finish((z,))
    rng = np.random.default_rng(4)
    a, c = (rng.integers(-128, 128, s).astype(np.int8) for s in ((5, 40), (33, 40)))
    program = Program(graph, Names(("x", "other"), ("z",), ("w",)), (c,))
    (got,) = everywhere(program, a, rng.standard_normal((5, 33)).astype(np.float32))
    assert np.abs(got).max() > 1


def test_a_narrow_integer_is_cast_at_once():
    """Widening to i64 on the way changes nothing; a wide integer that was cut is another number."""
    values = np.array([-(2**31), 2**31 - 1, 16777217, -1, 0, 300], np.int32)
    for to in (DType.F32, DType.F16, DType.I8, DType.BOOL, DType.I32):
        b = Builder()
        x = b.input(TensorType(DType.I32, (6,)))
        g = b.finish((b.add("cast", b.add("cast", x, dtype=DType.I64), dtype=to),))
        short = canonicalise(g)
        assert len(short.nodes) == (to is not DType.I32)
        want, got = (
            interp.outputs(make_instance(h, {}).graph, (values,), ())[0] for h in (g, short)
        )
        same(got, want, to)
    b = Builder()
    x = b.input(TensorType(DType.I64, (6,)))
    g = b.finish((b.add("cast", b.add("cast", x, dtype=DType.I8), dtype=DType.I64),))
    assert len(canonicalise(g).nodes) == 2


class Tied(torch.nn.Module):
    """A table that is also a layer's weight, a weight used twice, a product of activations, half precision."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 32)
        self.twice = torch.nn.Linear(32, 32)
        self.narrow = torch.nn.Parameter(torch.randn(32, 32, dtype=torch.bfloat16) / 6)
        self.broken = torch.nn.Parameter(torch.full((32, 32), torch.inf))

    def forward(self, ids):
        x = self.table(ids)
        x = x + self.twice(torch.tanh(self.twice(x)))
        x = x + torch.nn.functional.linear(x, self.narrow.float())
        x = x + torch.nn.functional.linear(x, torch.softmax(x, -1)).mean()
        x = torch.nn.functional.linear(x, self.broken.clamp(max=3)) * 0 + x
        return x @ self.table.weight.T, torch.nn.functional.linear(x, self.table.weight)


@pytest.fixture(scope="module")
def tied():
    torch.manual_seed(5)
    return ree.compile(Tied().eval(), {"ids": torch.arange(12) * 4})


def test_which_layers_are_quantised_and_which_are_not(tied):
    done = quantise(tied)
    g = done.program.graph
    assert done.layers == quantised_layers(g)[0] == 4
    assert len(done.kept) == quantised_layers(g)[1] == 2
    assert all("test_quantise.py" in k and "not a weight" in k for k in done.kept), done.kept
    types = dict(zip(done.program.names.weights, map(str, g.weights), strict=True))
    (table,) = (n for n in types if n.endswith("table.weight"))
    assert types[table] == "f32[50,32]"  # rows are still taken from it
    assert types[f"{table}.bytes"] == "i8[50,32]"
    assert (
        sum(t == "i8[32,32]" for t in types.values()) == 3
    )  # of one weight for two sources, of half precision
    assert list(types) == sorted(types)
    everywhere(done.program, tied.examples["ids"])
    e = done.errors["output1"]
    assert e.cosine > 0.998
    assert e.greatest > 0
    assert 0 < e.relative < 0.05


class Turned(torch.nn.Module):
    """Matrices that lie [K, N], one of them read both ways."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(48, 20, dtype=torch.float16) / 7)
        self.square, self.bias = (
            torch.nn.Parameter(torch.randn(20, 20) / 4),
            torch.nn.Parameter(torch.randn(20)),
        )

    def forward(self, x):
        y = torch.addmm(self.bias, x, self.a.float())
        return (
            y @ self.square,
            torch.nn.functional.linear(y, self.square),
            (y @ y.T).softmax(-1) @ y,
        )


@pytest.mark.parametrize("smoothed", [True, False])
def test_matrices_that_lie_the_other_way_round(smoothed):
    torch.manual_seed(6)
    module, x = Turned(), torch.randn(7, 48)
    program = ree.compile(module, {"x": x})
    done = quantise(program, None if smoothed else {})
    assert (done.layers, done.smoothed) == (3, smoothed)
    assert [n.op for n in program.graph.nodes].count("matmul") == 4
    assert quantised_layers(program.graph) == (0, 3)
    assert quantised_layers(done.program.graph) == (3, 0)
    types = dict(zip(done.program.names.weights, map(str, done.program.graph.weights), strict=True))
    assert sorted(t for t in types.values() if t.startswith("i8")) == ["i8[20,20]"] * 2 + [
        "i8[20,48]"
    ]
    got = everywhere(done.program, x.numpy())
    for a, b in zip(got, module(x), strict=True):
        assert output_error(b.detach().numpy(), a).relative < 0.03


def test_a_weight_that_is_not_finite_stays():
    b = Builder()
    x, w, v = (b.input if i == 0 else b.weight for i in range(3))
    x, w, v = (f(TensorType(DType.F32, (4, 4))) for f in (x, w, v))
    g = b.finish((b.add("linear", b.add("linear", x, w), v),))
    bad = np.eye(4, dtype=np.float32)
    bad[1, 2] = np.inf
    names = Names(("x",), ("y",), ("v", "w"))
    done = quantise(
        Program(g, names, (bad, np.eye(4, dtype=np.float32))), {"x": np.eye(4, dtype=np.float32)}
    )
    assert (done.layers, len(done.kept)) == (1, 1)
    assert "not finite" in done.kept[0]
    with pytest.raises(InputError, match="no linear layer to quantise: its weight is not finite"):
        quantise(Program(g, names, (bad, bad)), {"x": bad})


def test_a_layer_of_no_products_stays():
    class Empty(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Parameter(torch.zeros(4, 0)), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.b(torch.nn.functional.linear(x, self.a) + 1)

    program = ree.compile(Empty().eval(), {"x": torch.zeros(2, 0)})
    done = quantise(program)
    assert done.layers == 1
    assert "no products to a sum" in done.kept[0]
    (y,) = everywhere(done.program, np.zeros((2, 0), np.float32))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("least", [0, None])
def test_inputs_without_rows_even_nothing_out(least, two):
    open_size = None if least is None else {"x": {0: torch.export.Dim("rows", min=0, max=9)}}
    examples = {"x": torch.zeros(0 if least is None else 3, 48)}
    program = ree.compile(two, examples, dynamic_shapes=open_size)
    done = quantise(program, {"x": np.zeros((0, 48), np.float32)})
    assert (done.layers, done.smoothed) == (2, True)
    assert done.errors["output0"].greatest is None
    for name, w in zip(done.program.names.weights, done.program.weights, strict=True):
        assert "factors" not in name or (w == 1).all()


def test_a_program_without_layers_or_with_states():
    b = Builder()
    with pytest.raises(InputError, match="no linear layer to quantise"):
        quantise(
            Program(
                b.finish((b.add("neg", b.input(TensorType(DType.F32, (3,)))),)),
                Names(("x",), ("y",), ()),
                (),
            )
        )
    b = Builder()
    s, w = b.state(TensorType(DType.F32, (3, 8))), b.weight(TensorType(DType.F32, (8, 8)))
    y = b.add("linear", s, w)
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    program = Program(
        b.finish((y, y)),
        Names((), ("s", "y"), ("w",), ("s",)),
        (weight,),
        initial=(np.ones((3, 8), np.float32),),
    )
    done = quantise(program)
    assert (done.layers, done.smoothed, done.errors) == (1, False, {})


@pytest.mark.parametrize("seed", range(4))
def test_factors_are_powers_of_two_that_help(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((64, 96)).astype(np.float32)
    x[:, 7] *= 60
    x[:, 11] = 0
    w = rng.standard_normal((40, 96)).astype(np.float32)
    f = factors(np.abs(x).max(0), [w])
    assert (np.frexp(f)[0] == 0.5).all()
    assert f[7] < np.median(f)
    want = x.astype(np.float64) @ w.T.astype(np.float64)

    def error(f):
        q, step, _ = quantise_weight(x * f)
        v, scale, _ = quantise_weight(w / f)
        got = q.astype(np.int64) @ v.T.astype(np.int64) * step[:, None].astype(np.float64) * scale
        return np.abs(got - want).max()

    assert error(f) < error(np.ones_like(f)) / 3


def test_rows_of_weights_are_rounded_to_the_nearest():
    w = np.array(
        [[127, -127, 0.5, 1.5, -2.5, 126.4], [0, 0, 0, 0, 0, 0], [1e-3, -2e-3, 0, 0, 0, 0]],
        np.float32,
    )
    q, scale, sums = quantise_weight(w)
    assert sums.tolist() == q.astype(int).sum(1).tolist()
    assert q[0].tolist() == [127, -127, 0, 2, -2, 126]
    assert not q[1].any()
    assert q[2].tolist() == [64, -127, 0, 0, 0, 0]  # 63.5, to even
    assert scale[0] == 1
    assert np.abs(q * scale[:, None] - w).max() <= scale.max() / 2


def test_errors_of_outputs():
    a = np.array([[1, 2], [3, np.nan], [np.inf, 4]], np.float32)
    b = np.array([[1, 2.5], [3, 1], [np.inf, 4]], np.float32)
    e = output_error(a, b)
    assert (e.greatest, e.relative, e.not_finite) == (0.5, 0.125, 1)
    assert e.cosine == pytest.approx((1 + 5) / np.sqrt(5 * 7.25))
    assert output_error(a * np.nan, b).greatest is None
