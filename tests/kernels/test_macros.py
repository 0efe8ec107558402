"""Macro operators: their expansion is what runs, and nothing illegal about one is loaded."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ree import _core
from ree.artifact import from_files, to_files
from ree.artifact.format import GRAPH
from ree.compiler import instance, interp, legal
from ree.compiler.instance import bind_all, numeric_id
from ree.compiler.ir import Builder, Kind, Ref, bound_node
from ree.compiler.passes import expansion
from ree.compiler.passes.expansion import MOST_NODES, expand
from ree.compiler.passes.load_time import prelude
from ree.compiler.text import parse_graph, print_graph
from ree.conformance import graph_of, program_of
from ree.errors import ArtifactError, InputError
from ree.kernels import macro, opdef, registry
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.verde.testing import open_time_program

MACROS = macro.names()
RECURRENT = ("gru", "lstm", "rnn")


def samples(name):
    return list(macro.get(name).samples())


def test_there_are_some_and_none_is_an_operator():
    assert MACROS == ("gru", "lstm", "quantise_rows", "rnn", "sample")
    assert not set(MACROS) & set(registry.names())
    with pytest.raises(TypeError, match="registered twice"):
        macro.register(macro.get("lstm"))
    with pytest.raises(TypeError, match="registered twice"):
        macro.register(replace(macro.get("lstm"), name="add"))
    with pytest.raises(TypeError, match="not in order"):
        replace(macro.get("gru"), schema=dict(reversed(macro.get("gru").schema.items())))


@pytest.mark.parametrize("name", MACROS)
def test_samples_by_interpreter_and_kernels(name):
    """On every instruction set the bytes of the expansion's references."""
    assert len(samples(name)) >= 12
    for sample in samples(name):
        g = graph_of(name, sample)
        assert parse_graph(print_graph(g)) == g
        legal.check(g)
        want = interp.outputs(expand(g), sample.inputs, ())
        program, roots = program_of(g), set()
        for isa in _core.isa_names():
            for fuse in (True, False):
                result = program.run(*sample.inputs, trace="ops", isa=isa, threads=2, fuse=fuse)
                roots.add(result.trace.root)
                plain = program.run(*sample.inputs, isa=isa, threads=1, fuse=fuse)
                for outs in (result.outputs, plain.outputs):
                    assert [y.tobytes() for y in outs] == [y.tobytes() for y in want]
        assert len(roots) == 1


def cell(name, x, h, c, w, b, p, relu):
    """A step in float64."""
    s = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    if name == "gru":
        rx, zx, nx = np.split(x, 3, 1)
        rh, zh, nh = np.split(h @ w.T + b, 3, 1)
        n = np.tanh(nx + s(rx + rh) * nh)
        z = s(zx + zh)
        return (1 - z) * n + z * h, c
    g = x + h @ w.T + b
    if name == "rnn":
        return np.maximum(g, 0) if relu else np.tanh(g), c
    i, f, a, o = np.split(g, 4, 1)
    c = s(f) * c + s(i) * np.tanh(a)
    h = s(o) * np.tanh(c)
    return (h if p is None else h @ p.T), c


@pytest.mark.parametrize("name", RECURRENT)
def test_samples_by_float64(name):
    """What it means, written anew."""
    for sample in samples(name):
        given = [np.asarray(v, np.float64) for v in sample.inputs]
        x, h = given.pop(0), given.pop(0)
        c = given.pop(0) if name == "lstm" else None
        w = given.pop(0)
        b = given.pop(0) if sample.attrs["bias"] else 0.0
        p = given.pop(0) if sample.attrs.get("projection") else None
        y = [None] * len(x)
        for t in range(len(x))[:: -1 if sample.attrs["reverse"] else 1]:
            h, c = cell(name, x[t], h, c, w, b, p, sample.attrs.get("relu"))
            y[t] = h
        want = [np.stack(y), h, *([c] if name == "lstm" else [])]
        have = interp.outputs(expand(graph_of(name, sample)), sample.inputs, ())
        for a, e in zip(have, want, strict=True):
            np.testing.assert_allclose(a, e, rtol=2e-4, atol=2e-4 * np.abs(e).max())


def check_expansion(g):
    """Its number of nodes is what the macro says, all are operators, and the result has its type."""
    (node,), expanded = g.nodes, expand(g)
    assert macro.get(node.op).count(bound_node(node, g.typer())) == len(expanded.nodes)
    assert {n.op for n in expanded.nodes} <= set(registry.names())
    legal.check(expanded)
    assert expand(expanded) is expanded
    typer = expanded.typer()
    assert typer(expanded.outputs[0]) == node.results[0]


@pytest.mark.parametrize("name", MACROS)
def test_the_count_is_that_of_the_expansion(name):
    for sample in samples(name):
        check_expansion(graph_of(name, sample))


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
def test_the_count_of_any_time(name, dtype):
    for sample in samples(name):
        for time in (1, 2, 3, 4, 5, 16, 17, 70):
            b, (x, *rest) = Builder(), [v.shape for v in sample.inputs]
            refs = [b.input(TensorType(dtype, s)) for s in ((time, *x[1:]), *rest)]
            node = b.add_node(name, tuple(refs), sample.attrs)
            check_expansion(b.finish((node.value,)))


def test_a_count_over_the_bound_is_refused(monkeypatch):
    program = open_time_program()
    (x,) = program.examples.values()
    many = len(program.bound({"s0": 5}).nodes)
    monkeypatch.setattr(expansion, "MOST_NODES", many)
    program.bound({"s0": 5})
    fresh = open_time_program()
    monkeypatch.setattr(expansion, "MOST_NODES", many - 1)
    with pytest.raises(InputError, match=rf"written out is {many:,} nodes, at most {many - 1:,}"):
        fresh.run(x)
    assert MOST_NODES == 1 << 18


def test_the_numeric_id_binds_a_rule(monkeypatch):
    before = numeric_id()
    monkeypatch.setitem(macro._BY_NAME, "gru", replace(macro.get("gru"), rule="another"))
    numeric_id.cache_clear()
    assert numeric_id() != before
    monkeypatch.undo()
    numeric_id.cache_clear()
    assert numeric_id() == before


def test_what_surrounds_an_expansion():
    """Values behind it are numbered anew; what follows from the weights is still made once, without it."""
    rng = np.random.default_rng(0)
    b = Builder()
    x = b.input(TensorType(DType.F32, (3, 2, 8)))
    shapes = [(8, 5), (5, 5), (3, 2, 4), (2, 4), (4, 4)]
    weights = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    w = [b.weight(TensorType(DType.F32, s)) for s in shapes]
    product = b.add("matmul", w[0], w[1])  # of weights alone
    fixed = b.add_node("rnn", tuple(w[2:]), {"bias": False, "relu": False, "reverse": False})
    y = b.add("matmul", b.add("view", x, shape=(6, 8)), product)
    flat = b.add("view", b.add("sum", fixed.value, dim=2, keepdim=False), shape=(6,))
    z = b.add("add", b.add("sum", y, dim=1, keepdim=False), flat)
    unused = b.const(np.ones(3, np.float32))
    g = b.finish((z, product, Ref(Kind.VALUE, fixed.first + 1)))
    assert prelude(g).values == (product.index,)
    program = Program(g, Names(("x",), ("z", "p", "h"), ("a", "b", "c", "d", "e")), weights)
    given = rng.standard_normal((3, 2, 8)).astype(np.float32)
    want = interp.outputs(expand(g), [given], weights)
    for how in ({}, {"trace": "ops"}, {"trace": "ops", "keep_values": True}):
        assert [v.tobytes() for v in program.run(given, **how).outputs] == [
            v.tobytes() for v in want
        ]
    assert bind_all(g, {}).consts == g.consts
    assert unused.index == 0


# what somebody else wrote

LINE = re.compile(r"^(%2, %3, %4 = )(.*)$", re.M)
ALTERED = {
    "an attribute is missing": ("bias=true, ", ""),
    "an unknown attribute": ("{bias", "{also=1, bias"),
    "an attribute twice": ("bias=true", "bias=true, bias=true"),
    "of another type": ("bias=true", "bias=1"),
    "no bias, which stands there": ("bias=true", "bias=false"),
    "a projection that is not there": ("projection=false", "projection=true"),
    "another order": ("bias=true, projection=false", "projection=false, bias=true"),
    "the other way, with its results in another order": ("f32[s0,2,5], f32[2,5]", "f32[2,5], f32[s0,2,5]"),
    "other weights": ("@w1", "@w0"),
    "a source that does not exist": ("@w1", "@w9"),
    "one source more": ("@w2)", "@w2, @w2)"),
    "seven sources": ("@w2)", "@w2, @w2, @w2)"),
    "one source less": (", @w2)", ")"),
    "another macro": ("lstm(", "gru("),
    "an ordinary operator": ("lstm(", "linear("),
    "no operator": ("lstm(", "lstm_("),
    "another time": ("f32[s0,2,5]", "f32[s0+1,2,5]"),
    "another symbol": ("f32[s0,2,5]", "f32[s1,2,5]"),
    "a fixed time": ("f32[s0,2,5]", "f32[5,2,5]"),
    "results in half precision": ("f32[s0,2,5]", "bf16[s0,2,5]"),
    "one result less": (", f32[2,5]", "", 1),
}  # fmt: skip


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_artifact_is_refused(how):
    from ree.settlement.testing.altered_artifacts import sealed

    files = to_files(open_time_program())
    text = files[GRAPH].decode()
    assert from_files(sealed(files, {})).program_hash
    line = next(x for x in text.split("\n") if "= lstm(" in x)
    altered = line.replace(*ALTERED[how])
    assert altered != line
    with pytest.raises(ArtifactError) as e:
        from_files(sealed(files, {GRAPH: text.replace(line, altered, 1).encode()}))
    assert "\n" not in str(e.value.message)


def test_a_direction_that_was_turned_is_another_program():
    from ree.settlement.testing.altered_artifacts import sealed

    program = open_time_program()
    files = to_files(program)
    text = files[GRAPH].decode().replace("reverse=false", "reverse=true", 1)
    other = from_files(sealed(files, {GRAPH: text.encode()}))
    (x,) = program.examples.values()
    assert other.program_hash != program.program_hash
    assert other.instance({"s0": 5}).digest != program.instance({"s0": 5}).digest
    assert other.run(x).outputs[0].tobytes() != program.run(x).outputs[0].tobytes()


@pytest.mark.parametrize(
    ("time", "batch", "width", "units", "why"),
    [(0, 2, 20, 5, "time of 1"), (3, 2, 20, 4, "4 gates a unit"), (3, 2, 0, 0, "4 gates a unit")],
)
def test_sizes_that_fit_nothing(time, batch, width, units, why):
    b = Builder()
    x = b.input(TensorType(DType.F32, (time, batch, width)))
    h = b.input(TensorType(DType.F32, (batch, units)))
    w = b.input(TensorType(DType.F32, (width, units)))
    with pytest.raises(ValueError, match=why):
        b.add_node("lstm", (x, h, h, w), {"bias": False, "projection": False, "reverse": False})


def test_nothing_below_a_program_knows_a_macro():
    program = open_time_program()
    bound = program.instance({"s0": 5}).graph
    assert all(opdef.form_of(n.op) is not None for n in bound.nodes)
    assert (
        instance.make_instance(program.graph, {"s0": 5}).digest
        == program.instance({"s0": 5}).digest
    )
