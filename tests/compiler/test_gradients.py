"""Every gradient rule against central differences in float64, and the engine that joins them."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from ree.compiler.frontend.importer import Importer
from ree.compiler.gradients import engine
from ree.compiler.gradients.engine import CONSTANT, FLOATS, REFUSED, RULES, NoGradient, backward
from ree.kernels import opdef, registry
from ree.kernels.types import DType, TensorType

_spec = importlib.util.spec_from_file_location(
    "checks", Path(__file__).with_name("gradient_checks.py")
)
checks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(checks)

DIFFERENTIABLE = sorted(set(RULES) - {"cast"})  # a cast is no function of numbers: tested apart
ELEMENTS = 10  # compared in each source
SAMPLES = 12  # of each operator
SLOW = ("attention", "convolution")


def floats(sample):
    return [i for i, x in enumerate(sample.inputs) if x.dtype == np.float32]


# zeros are kinks, ties or poles of these
KINKED = {"abs", "relu", "maximum", "minimum", "amax", "amin", "sort", "remainder", "div", "pow", "log", "log2",
          "lgamma", "sqrt", "rsqrt"}  # fmt: skip


def smooth(op, sample):
    """Whether differences can be taken: normal finite numbers, without 0 where that is a kink.

    A float mask of attention may hold -inf, which means that a key is invalid.
    """
    of = floats(sample)[:3] if op == "attention" else floats(sample)
    return bool(of) and all(
        np.isfinite(x).all() and (abs(x[x != 0]) >= 1e-6).all() and (abs(x) <= 1e3).all()
        and (op not in KINKED or (x != 0).all())
        for x in (sample.inputs[i] for i in of)
    )  # fmt: skip


def samples(op):
    """The operator's own samples that suit, and positive numbers for those that need them."""
    rng = np.random.default_rng(11)
    other = ("wide", "signed-zero", "subnormal") + ("special",) * (op in SLOW)
    found = [s for s in opdef.get(op).samples() if smooth(op, s) and not s.name.endswith(other)]
    # where the samples hold few points of the domain
    scale, start = {
        **dict.fromkeys(
            ("log", "log1p", "log2", "sqrt", "rsqrt", "pow", "div", "remainder"), (3, 0.1)
        ),
        **dict.fromkeys(("asin", "acos", "atanh", "erfinv"), (1.8, -0.9)),
        "acosh": (3, 1.1),
        "lgamma": (3, 0.2),
    }.get(op, (0, 0))
    if scale:
        for shape in ((5, 7), (3, 1)):
            x = tuple((rng.random(shape) * scale + start).astype(np.float32)
                      for _ in next(iter(opdef.get(op).samples())).inputs)  # fmt: skip
            found.insert(0, opdef.Sample("positive", x, {}))
    return found[:SAMPLES]


def compare(op, sample, rng):
    """Count of elements compared; AssertionError where a gradient is not what differences say."""
    found, weights = checks.gradients_of(op, sample.inputs, dict(sample.attrs), rng)
    count = 0
    for i in floats(sample):
        x = sample.inputs[i]
        if weights[0] is None:
            continue
        assert found[i] is not None, (op, sample.name, i)
        assert found[i].shape == x.shape
        size = min(4 if op in SLOW else ELEMENTS, x.size)
        elements = rng.choice(x.size, size, replace=False) if size else []
        want = checks.differences(op, sample.inputs, sample.attrs, weights, i, elements)
        got = np.asarray(found[i], np.float64).reshape(-1)[elements] if x.size else want
        ok = np.isfinite(want)
        scale = abs(want[ok]).max() if ok.any() else 0
        np.testing.assert_allclose(got[ok], want[ok], rtol=3e-5, atol=1e-5 * scale + 1e-6,
                                   err_msg=f"{op} {sample.name} source {i}")  # fmt: skip
        count += int(ok.sum())
    return count


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_rules(op):
    rng = np.random.default_rng(7)
    assert sum(compare(op, s, rng) for s in samples(op)) >= 8


def test_every_operator_has_a_rule_or_is_constant():
    assert set(RULES) | CONSTANT | REFUSED == set(registry.names())
    assert not set(RULES) & CONSTANT
    assert set(checks.F64) == set(DIFFERENTIABLE)


@pytest.mark.parametrize("op", sorted(CONSTANT))
def test_constant_operators_have_no_gradient(op):
    rng = np.random.default_rng(1)
    for sample in itertools.islice(opdef.get(op).samples(), 3):
        found, _ = checks.gradients_of(op, sample.inputs, dict(sample.attrs), rng)
        assert all(g is None for g in found)


FAULTS = {
    "mul": lambda g: [lambda: g.mul(g.dy, g.x), lambda: g.mul(g.dy, g.sources[1])],
    "tanh": lambda g: [lambda: g.mul(g.dy, g.op("sub", 1.0, g.y))],
    "softmax": lambda g: [lambda: g.mul(g.y, g.dy)],
    "slice": lambda g: [lambda: engine.Piece(g.dy, int(g.attrs["dim"]), 0)],
    "matmul": lambda g: [
        RULES_OF["matmul"](g)[0],
        lambda: g.op("mul", RULES_OF["matmul"](g)[1](), -1.0),
    ],
}
RULES_OF = dict(RULES)


@pytest.mark.parametrize("op", FAULTS)
def test_a_wrong_rule_is_noticed(op, monkeypatch):
    monkeypatch.setitem(RULES, op, FAULTS[op])
    with pytest.raises((AssertionError, ValueError)):
        test_rules(op)


# broadcasting

SHAPES = [((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((), (5,)), ((1, 1), (2, 3)), ((2, 3), (2, 3)),
          ((1,), ()), ((4, 1, 3), (1, 5, 1)), ((1, 3), (2, 5, 3)), ((2, 1, 1), (2, 3, 4))]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_broadcast_sources(a, b):
    rng = np.random.default_rng(3)
    x, y = ((rng.random(s) + 0.5).astype(np.float32) for s in (a, b))
    c = rng.random(np.broadcast_shapes(a, b)[-1:]) < 0.5
    for op, inputs in (("add", (x, y)), ("div", (y, x)), ("pow", (x, y)), ("maximum", (x, y)),
                       ("where", (c, x, y)), ("fma", (x, y, x))):  # fmt: skip
        assert compare(op, opdef.Sample("", inputs, {}), rng)


# what differences cannot say: ties and kinks


def one(op, *inputs, **attrs):
    """Gradients of the plain sum of op's result."""
    m = Importer()
    sources = [m.builder.input(TensorType(DType.of(x.dtype), x.shape)) for x in inputs]
    y = m.add(op, *sources, **attrs)
    wanted = [s for s in sources if m.type(s).dtype in FLOATS]
    return checks.run(m, backward(m, m.reduce("sum", y, (), False), wanted), inputs)


def f32(*values):
    return np.array(values, np.float32)


def test_ties_are_shared_equally():
    np.testing.assert_array_equal(one("amax", f32(3, 1, 3, 3), dim=0, keepdim=False)[0],
                                  np.float32([1 / 3, 0, 1 / 3, 1 / 3]))  # fmt: skip
    np.testing.assert_array_equal(
        one("amin", f32(0, -0.0, 1), dim=0, keepdim=True)[0], [0.5, 0.5, 0]
    )
    for op in ("maximum", "minimum"):
        a, b = one(op, f32(1, 2, 3), f32(1, 3, 2))
        np.testing.assert_array_equal(a + b, [1, 1, 1])
        assert a[0] == b[0] == 0.5


def test_at_kinks():
    assert one("relu", f32(0, -0.0, 1))[0].tolist() == [0, 0, 1]
    assert one("abs", f32(0, -2, 3))[0].tolist() == [0, -1, 1]
    base, exponent = one("pow", f32(0, 0, 2), f32(0, 2, 0))
    assert base.tolist() == [0, 0, 0]
    assert exponent.tolist() == [0, 0, pytest.approx(np.log(2))]


def test_a_cast_rounds_the_gradient_to_the_type_of_its_source():
    for dtype in (DType.F16, DType.BF16):
        m = Importer()
        x = m.builder.input(TensorType(DType.F32, (3,)))
        w = m.builder.const(f32(1.0001, -3.14159, 1e-3))
        y = m.cast(m.cast(x, dtype), DType.F32)
        (g,) = backward(m, m.reduce("sum", m.add("mul", y, w), (), False), [x])
        rounded = m.cast(m.cast(w, dtype), DType.F32)
        got, want = checks.run(m, [g, rounded], [np.zeros(3, np.float32)])
        np.testing.assert_array_equal(got, want)
    m = Importer()
    x = m.builder.input(TensorType(DType.F32, (3,)))
    back = m.cast(m.cast(x, DType.I64), DType.F32)
    assert backward(m, m.reduce("sum", back, (), False), [x]) == [None]


def test_an_unread_result_of_sort_and_repeated_reads():
    x = f32(3, 1, 2)
    np.testing.assert_array_equal(one("sort", x, dim=0, descending=False)[0], [1, 1, 1])
    (g,) = one("embedding", np.zeros((3, 2), np.float32), np.array([1, 1, 0, 1]))
    np.testing.assert_array_equal(g, [[1, 1], [3, 3], [0, 0]])


# the engine


def pieces(*cuts, step=1, dims=(2, 10), dim=1):
    """Gradient of a sum of weighted slices of one source, and what it should be."""
    rng = np.random.default_rng(len(cuts))
    m = Importer()
    x = m.builder.input(TensorType(DType.F32, dims))
    want = np.zeros(dims)
    loss = m.scalar(0.0, DType.F32)
    for start, stop in cuts:
        y = m.take(x, dim, start, stop, step)
        part, (w,) = checks.weighted(m, [y], rng)
        want[:, start:stop:step] += w
        loss = m.add("add", loss, part)
    (g,) = backward(m, loss, [x])
    nodes = [n.op for n in m.builder.nodes]
    (got,) = checks.run(m, [g], [np.zeros(dims, np.float32)])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    return nodes


def test_slices_side_by_side_are_not_added():
    for cuts in (
        [(0, 4), (4, 10)],
        [(7, 10), (0, 2), (2, 5)],
        [(1, 2), (3, 4), (5, 6), (7, 8), (8, 10)],
    ):
        assert pieces(*cuts).count("pad") == 0
    assert "cat" not in pieces((0, 10))


def test_overlapping_slices_are_added():
    pieces((0, 6), (4, 10))
    pieces((0, 6), (6, 10), (3, 8), (0, 10))
    pieces((1, 10), (0, 7), step=3)
    pieces((4, 4), (2, 5))


def test_all_uses_of_a_value_are_added():
    m = Importer()
    x = m.builder.input(TensorType(DType.F32, ()))
    y = m.add("mul", x, x)
    z = m.add("add", m.add("mul", y, x), m.add("exp", y))  # x^3 + exp(x^2)
    (g,) = checks.run(m, backward(m, z, [x]), [np.array(0.5, np.float32)])
    assert g == pytest.approx(3 * 0.25 + np.exp(0.25) * 2 * 0.5, rel=1e-6)


def test_stopped_values_and_unused_sources():
    m = Importer()
    x, y = (m.builder.input(TensorType(DType.F32, ())) for _ in range(2))
    held = m.stop(m.add("exp", x))
    dx, dy = backward(m, m.add("mul", held, x), [x, y])
    assert dy is None
    (g,) = checks.run(m, [dx], [np.array(2.0, np.float32), np.array(0.0, np.float32)])
    assert g == pytest.approx(np.exp(2.0), rel=1e-6)
    m.stop(m.add("neg", y))
    assert backward(m, m.add("floor", x), [x]) == [None]


def test_without_a_rule_the_operator_is_named(monkeypatch):
    monkeypatch.delitem(RULES, "exp")
    m = Importer()
    x = m.builder.input(TensorType(DType.F32, ()))
    with pytest.raises(NoGradient, match="exp at"):
        backward(m, m.add("exp", x), [x])
    with pytest.raises(TypeError, match="two gradient rules for mul"):
        engine.gradient("mul")(lambda g: [])
