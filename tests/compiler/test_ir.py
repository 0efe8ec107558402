"""IR: text, symbolic dimensions, legality, passes, plans."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.compiler import interp, legal
from ree.compiler.instance import RECORD_BYTES, make_instance, node_records
from ree.compiler.ir import Builder, Const, Kind, Ref, Symbol, bind_graph
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.plan.fusion import group
from ree.compiler.plan.planner import first_fit, plan
from ree.compiler.text import GraphError, parse_graph, print_graph
from ree.conformance import program_of
from ree.kernels import registry  # noqa: F401
from ree.kernels.constants import ALIGN
from ree.kernels.types import (
    DType,
    Sym,
    TensorType,
    evaluate,
    floordiv,
    mod,
    parse_dim,
    symbol,
)

ROOT = Path(__file__).parent.parent.parent


def sample_graph(batch=None):
    """linear, bias, gelu, softmax over a symbolic batch."""
    b = Builder()
    n = symbol("s0") if batch is None else batch
    if batch is None:
        b.symbols.append(Symbol("s0", 1, 100))
    x = b.input(TensorType(DType.F32, (n, 8)))
    w = b.weight(TensorType(DType.F32, (6, 8)))
    bias = b.const(np.arange(6, dtype=np.float32))
    y = b.add("gelu", b.add("add", b.add("linear", x, w), bias))
    y = b.add("permute", b.add("view", y, shape=(n, 2, 3)), dims=(1, 0, 2))
    z = b.add("softmax", b.add("mul", y, b.const(np.float32(0.125))), dim=2)
    s = b.add("slice", z, dim=1, start=0, stop=n, step=1)
    return b.finish((s, b.add("sum", z, dim=2, keepdim=False)))


def test_text_round_trip():
    for g in (sample_graph(), sample_graph(5), canonicalise(sample_graph())):
        text = print_graph(g)
        assert parse_graph(text) == g
        assert print_graph(parse_graph(text)) == text


def test_large_constants_are_named_by_digest():
    b = Builder()
    x = b.input(TensorType(DType.F32, (100,)))
    c = np.arange(100, dtype=np.float32)
    g = b.finish((b.add("add", x, b.const(c)),))
    text = print_graph(g)
    assert "sha256:" in text
    assert parse_graph(text, lambda i, t, digest: c.tobytes()) == g
    with pytest.raises(GraphError, match="without data"):
        parse_graph(text)
    with pytest.raises(GraphError, match="not canonical"):
        parse_graph(text, lambda i, t, digest: (c + 1).tobytes())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ree.graph", "graph", "line 1: expected 'ree.graph"),
        ("symbol s0 1 100", "symbol batch 1 100", "line 2: bad symbol"),
        ("f32[s0,8]", "f32[s9,8]", "line 3: undeclared symbol s9"),
        ("f32[s0,8]", "f64[s0,8]", "line 3: unknown dtype 'f64'"),
        ("f32[s0,8]", "f32[__import__(os),8]", "line 3: malformed dimension"),
        ("%0 = linear", "%1 = linear", "results numbered from %0"),
        ("linear(@i0, @w0)", "linear(@i0, @q0)", "expected a source"),
        ("linear(@i0, @w0) :", "linear(@i0, @w0)", "expected a node"),
        ("dim=2", "dim=", "malformed"),
        ("return", "retrun", "expected a node"),
    ],
)
def test_parse_errors_name_the_line(old, new, message):
    text = print_graph(sample_graph())
    assert old in text
    with pytest.raises(GraphError, match=None) as e:
        parse_graph(text.replace(old, new, 1))
    assert message in str(e.value)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_parser_never_raises_anything_else(data):
    base = print_graph(sample_graph()).encode()
    for raw in (data, base[: len(base) // 2] + data, base.replace(b"8", data[:3], 1)):
        with contextlib.suppress(ValueError):  # GraphError, IllegalGraph
            legal.check(parse_graph(raw.decode("latin-1")))


DIMS = st.recursive(
    st.integers(-9, 9) | st.sampled_from([symbol("s0"), symbol("s1")]),
    lambda inner: st.tuples(st.sampled_from("+-*/%"), inner, inner),
    max_leaves=8,
)


def build(tree):
    if not isinstance(tree, tuple):
        return tree
    op, a, b = tree[0], build(tree[1]), build(tree[2])
    if op in "/%":
        b = 3 if b == 0 or isinstance(b, Sym) else b
        return floordiv(a, b) if op == "/" else mod(a, b)
    return a + b if op == "+" else a - b if op == "-" else a * b


def value(tree, env):
    if isinstance(tree, Sym):
        return env[str(tree)]
    if not isinstance(tree, tuple):
        return tree
    op, b_dim = tree[0], build(tree[2])
    a, b = value(tree[1], env), value(tree[2], env)
    if op in "/%":
        b = 3 if b_dim == 0 or isinstance(b_dim, Sym) else b
        return a // b if op == "/" else a % b
    return a + b if op == "+" else a - b if op == "-" else a * b


@given(DIMS, st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=300, deadline=None)
def test_dimensions_are_canonical_and_evaluate(tree, s0, s1):
    d = build(tree)
    env = {"s0": s0, "s1": s1}
    assert evaluate(d, env) == value(tree, env)
    assert parse_dim(str(d)) == d


@pytest.mark.parametrize(
    "text",
    [
        "*".join(["(" + "+".join(f"s{i}" for i in range(8)) + ")"] * 12),
        "*".join(["(s0+1)"] * 142),
        "*".join(["(s0+s1)"] * 111),
        "*".join(["(max(s0,s1)+min(s0,s1)+mod(s0,s1))"] * 20),
        "floordiv(1,0)",
        "mod(s0,0*2)*mod(1,1-1)",
    ],
)
def test_a_dimension_is_refused_before_it_is_multiplied_out(text):
    begin = time.process_time()
    with pytest.raises(ValueError, match="dimension"):
        parse_dim(text)
    assert time.process_time() - begin < 1


def test_legality():
    good = sample_graph()
    legal.check(good)
    cases = {
        "numeric contract": {"contract": "repops/7"},
        "declared twice": {"symbols": good.symbols * 2},
        "empty range": {"symbols": (Symbol("s0", 5, 2),)},
        "undeclared": {"symbols": ()},
        "not follow from a dimension of any input": {
            "symbols": (*good.symbols, Symbol("s1", 1, 2))
        },
        "at least one output": {"outputs": ()},
        "used before": {"outputs": (Ref(Kind.VALUE, 99),)},
        "does not exist": {"outputs": (Ref(Kind.WEIGHT, 9),)},
        "before it is defined": {"nodes": good.nodes[1:]},
    }
    for message, change in cases.items():
        fields = {f: getattr(good, f) for f in good.__dataclass_fields__} | change
        with pytest.raises(legal.IllegalGraph, match=message):
            legal.check(type(good)(**fields))


def test_canonical_form_is_a_fixed_point_and_keeps_bits():
    g = sample_graph(7)
    c = canonicalise(g)
    assert canonicalise(c) == c
    assert [n.op for n in c.nodes].count("slice") == 0  # slicing all of it is nothing
    x = np.random.default_rng(0).standard_normal((7, 8)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)
    for a, b in zip(interp.outputs(g, [x], [w]), interp.outputs(c, [x], [w]), strict=True):
        assert a.tobytes() == b.tobytes()


def test_folding_and_sharing():
    b = Builder()
    x = b.input(TensorType(DType.F32, (3,)))
    three = b.add("add", b.const(np.float32(1)), b.const(np.float32(2)))
    y = b.add("mul", b.add("exp", x), three)
    z = b.add("add", y, b.add("exp", x))
    dead = b.add("log", x)
    assert dead.index == 5
    c = canonicalise(b.finish((z,)))
    assert [n.op for n in c.nodes] == ["exp", "mul", "add"]
    assert Const.of(np.array(3, np.float32)) in c.consts


def test_fusion_groups_and_memory_reuse():
    g = make_instance(canonicalise(sample_graph()), {"s0": 5}).graph
    groups = group(g)
    ops = [[n.op for n in grp.nodes] for grp in groups]
    assert ops[0] == ["linear", "add", "gelu"]
    unfused = group(g, fuse=False)
    assert all(len(grp.nodes) == 1 for grp in unfused)
    fused = plan(g, panel=32)
    everything = plan(g, panel=32, hash_values=True, keep_values=True)
    assert fused.arena_bytes < everything.arena_bytes
    assert len(everything.digests) == len([n for n in g.nodes if n.op not in ("view", "permute")])


def test_arena_buffers_that_live_together_do_not_overlap():
    g = make_instance(canonicalise(sample_graph()), {"s0": 40}).graph
    for r in (plan(g, panel=8), plan(g, panel=8, hash_values=True), plan(g, panel=8, fuse=False)):
        life = {}
        for step, call in enumerate(r.calls):
            for s in call.slots:
                if s >= 0 and r.slots[s].buffer.kind == "arena":
                    life.setdefault(r.slots[s].buffer.index, []).append(step)
        for i in life:
            for j in life:
                if i < j and max(life[i][0], life[j][0]) <= min(life[i][-1], life[j][-1]):
                    a, b = r.offsets[i], r.offsets[j]
                    assert a + r.arena[i] <= b or b + r.arena[j] <= a


def test_instances_bind_everything():
    g = canonicalise(sample_graph())
    a, b = make_instance(g, {"s0": 5}), make_instance(g, {"s0": 6})
    assert a.program == b.program
    assert a.digest != b.digest
    assert make_instance(g, {"s0": 5}).digest == a.digest
    for n in a.graph.nodes:
        assert [len(r) for r in node_records(n, a.graph.typer())] == [RECORD_BYTES] * len(n.results)
    with pytest.raises(ValueError, match="not bound"):
        make_instance(g, {})


@pytest.mark.parametrize("change", ["attribute", "operator", "constant", "output"])
def test_any_change_changes_program_and_instance(change):
    def make(which):
        b = Builder()
        x = b.input(TensorType(DType.F32, (4, 6)))
        y = b.add("mul" if which == "operator" else "add", x,
                  b.const(np.float32(2 if which == "constant" else 1)))  # fmt: skip
        z = b.add("sum", y, dim=0 if which == "attribute" else 1, keepdim=False)
        return b.finish((y if which == "output" else z,))

    a, b = make(""), make(change)
    assert a.program_hash() != b.program_hash()
    assert make_instance(a, {}).digest != make_instance(b, {}).digest


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=60, deadline=None)
def test_random_moves_and_pointwise(dims, seed, data):
    """Chains of moves and pointwise nodes of random shapes: planned and interpreted agree."""
    b = Builder()
    v = b.input(TensorType(DType.F32, tuple(dims)))
    x = np.random.default_rng(seed).standard_normal(dims).astype(np.float32)
    for _ in range(data.draw(st.integers(1, 5))):
        t = b.type_of(v)
        kind = data.draw(st.sampled_from(["permute", "slice", "flat", "outer", "exp", "add"]))
        if kind == "permute":
            v = b.add("permute", v, dims=tuple(data.draw(st.permutations(range(t.rank)))))
        elif kind == "slice":
            axis = data.draw(st.integers(0, t.rank - 1))
            stop = data.draw(st.integers(0, t.dims[axis]))
            start = data.draw(st.integers(0, stop))
            step = data.draw(st.integers(1, 3))
            v = b.add("slice", v, dim=axis, start=start, stop=stop, step=step)
        elif kind == "flat":
            v = b.add("view", v, shape=(t.numel,))
        elif kind == "outer" and t.rank < 6:
            v = b.add("expand", b.add("view", v, shape=(1, *t.dims)), shape=(2, *t.dims))
        elif kind == "exp":
            v = b.add("exp", v)
        elif kind == "add":
            v = b.add("add", v, v)
    g = b.finish((v,))
    (want,) = interp.outputs(g, [x], ())
    for fuse in (True, False):
        (got,) = program_of(g).run(x, fuse=fuse, threads=2).outputs
        assert got.shape == want.shape
        assert got.tobytes() == want.tobytes()


def test_references_import_neither_torch_nor_the_compiled_core():
    code = (
        "import sys; import ree.kernels.registry, ree.compiler.interp, ree.traces.diff; "
        "bad = [m for m in ('torch', 'ree._core', 'llvmlite', 'transformers') if m in sys.modules]; "
        "sys.exit(','.join(bad) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_generated_documents_are_up_to_date():
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("docs_generator", ROOT / "benchmarks" / "docs.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, make in module.GENERATED.items():
        assert (ROOT / "docs" / name).read_text() == make(), (
            f"run python benchmarks/docs.py ({name})"
        )


def test_attributes_that_python_calls_equal_are_not_shared():
    b = Builder()
    x = b.input(TensorType(DType.F32, (2,)))
    pads = [b.add("pad", x, low=(1,), high=(0,), value=v) for v in (0.0, -0.0, 0.0)]
    g = canonicalise(b.finish(tuple(pads)))
    assert len(g.nodes) == 2
    assert len(set(g.outputs)) == 2
    made = [y.tobytes() for y in interp.run(g, [np.ones(2, np.float32)], [])]
    assert made[0] != made[1]
    assert [n.attr_map["value"].hex() for n in bind_graph(g, {}).nodes] == ["0x0.0p+0", "-0x0.0p+0"]


def test_attributes_nest_as_deep_as_the_limit():
    text = print_graph(sample_graph(5))
    assert "dims=(1,0,2)" in text
    for depth in (9, 100_000):
        nested = "(" * depth + ")" * depth
        with pytest.raises(GraphError, match="nested over 8 deep"):
            parse_graph(text.replace("dims=(1,0,2)", f"dims={nested}"))


def plain_first_fit(sizes, lives):
    """What `first_fit` gives, from its definition."""
    offsets = []
    for n, size in enumerate(sizes):
        at = 0
        taken = [
            (offsets[m], offsets[m] + sizes[m])
            for m in range(n)
            if lives is None or (lives[m][1] >= lives[n][0] and lives[n][1] >= lives[m][0])
        ]
        for lo, hi in sorted(taken):
            if at + size <= lo:
                break
            at = max(at, -(-hi // ALIGN) * ALIGN)
        offsets.append(at)
    return offsets


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 12), st.integers(0, 6)), max_size=24),
       st.booleans())  # fmt: skip
def test_buffers_lie_where_the_first_gap_is(buffers, always):
    sizes = [size for size, _, _ in buffers]
    lives = None if always else [(first, first + n) for _, first, n in buffers]
    assert first_fit(sizes, lives) == plain_first_fit(sizes, lives)


def test_large_graphs_are_bound_and_planned_in_linear_work(monkeypatch):
    """Twice the nodes, at most about twice the calls: a chain, views that are all read, many outputs."""

    def chain(b, x, n):
        for _ in range(n):
            x = b.add("neg", x)
        return (x,)

    def comb(b, x, n):
        for _ in range(n):
            x = b.add("permute", x, dims=(1, 0))
            y = b.add("neg", x)
        return (y,)

    def outputs(b, x, n):
        return tuple(b.add("mul", x, b.const(np.float32(i + 2))) for i in range(n))

    for shape in (chain, comb, outputs):
        counts = []
        for n in (200, 400, 800):
            b = Builder()
            g = b.finish(shape(b, b.input(TensorType(DType.F32, (4, 4))), n))
            calls = [0]

            def count(frame, event, arg, calls=calls):
                calls[0] += event == "call"

            sys.setprofile(count)
            try:
                plan(make_instance(g, {}).graph, panel=8)
                plan(g, panel=8, hash_values=True, keep_values=True)
            finally:
                sys.setprofile(None)
            counts.append(calls[0])
        assert counts[2] - counts[1] < 2.3 * (counts[1] - counts[0]), (shape.__name__, counts)
