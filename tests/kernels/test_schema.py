"""Attributes: what no operator declares is refused wherever a program comes from, and every extreme
that is legal gives the same bits compiled and interpreted."""

from dataclasses import replace

import numpy as np
import pytest

from ree.artifact import load, save
from ree.compiler import legal
from ree.compiler.instance import encode_attrs
from ree.compiler.interp import outputs
from ree.compiler.ir import Builder, bind_graph
from ree.compiler.text import GraphError, parse_graph, print_graph
from ree.errors import ArtifactError
from ree.kernels import opdef, registry
from ree.kernels.schema import AttrKind
from ree.kernels.types import LARGEST, DType, TensorType
from ree.program import Names, Program

TOP = 2**31 - 1


def _sample(op):
    """A graph of one node, from the operator's first sample, and its inputs."""
    sample = next(iter(opdef.get(op).samples()))
    return _graph(op, sample.inputs, sample.attrs), sample.inputs


def _graph(op, arrays, attrs):
    b = Builder()
    refs = tuple(b.input(TensorType(DType.of(x.dtype), x.shape)) for x in arrays)
    return b.finish((b.add_node(op, refs, attrs).value,))


def _program(g):
    names = Names(tuple(f"x{i}" for i in range(len(g.inputs))), ("y",), ())
    return Program(g, names, ())


def _with(g, attrs):
    """The graph with other attributes, as a file could hold them."""
    (node,) = g.nodes
    return replace(g, nodes=(replace(node, attrs=tuple(sorted(attrs.items()))),))


def _wrong(attr, value):
    """Values that the attribute must not have."""
    yield "text"
    if attr.kind is AttrKind.NUMBER:
        yield from (2**63, -(2**63) - 1, float(np.pi))
    elif attr.kind in (AttrKind.INT, AttrKind.DIM):
        yield from (attr.low - 1, attr.high + 1, True, 1.0)
    elif attr.kind in (AttrKind.INTS, AttrKind.DIMS):
        yield from (
            1,
            (attr.low - 1,) * len(value),
            (attr.high + 1,) * len(value),
            (1,) * 9,
            (True,),
        )
    elif attr.kind is AttrKind.F32:
        yield from (1, 1e300, float(np.pi), float(np.copysign(np.nan, -1)))
    else:
        yield from (0, 1.0)


@pytest.mark.parametrize("op", registry.names())
def test_a_schema_is_closed(op):
    g, _ = _sample(op)
    attrs, schema = g.nodes[0].attr_map, opdef.get(op).closed_schema
    assert set(attrs) == set(schema)
    cases = [
        ({**attrs, "a": 0}, "unknown attribute 'a'"),
        ({**attrs, "zz": 0}, "unknown attribute 'zz'"),
    ]
    for name, attr in schema.items():
        cases.append(
            ({k: v for k, v in attrs.items() if k != name}, f"attribute {name} is missing")
        )
        cases += [({**attrs, name: v}, f"attribute {name}: ") for v in _wrong(attr, attrs[name])]
    for wrong, message in cases:
        bad = _with(g, wrong)
        bound = opdef.Bound(op, g.inputs, g.nodes[0].results, wrong)
        with pytest.raises(ValueError, match=f"{op}: {message}"):
            legal.check(bad)
        with pytest.raises(ValueError, match=f"{op}: {message}"):
            bind_graph(bad, {})
        with pytest.raises(ValueError, match=f"{op}: {message}"):
            encode_attrs(bound)


def test_a_text_with_an_unknown_or_a_double_attribute_is_refused():
    g, _ = _sample("full")
    text = print_graph(_with(g, {**g.nodes[0].attr_map, "a": 0}))
    with pytest.raises(GraphError, match="line 2: full: unknown attribute 'a'"):
        parse_graph(text)
    text = print_graph(g).replace("shape=(3,5)", "shape=(3,5), shape=(3,5)")
    with pytest.raises(GraphError, match="twice"):
        parse_graph(text)


def test_an_artifact_with_an_unknown_attribute_is_not_loaded(tmp_path):
    g, _ = _sample("full")
    save(_program(_with(g, {**g.nodes[0].attr_map, "a": 0})), tmp_path / "a.ree")
    with pytest.raises(ArtifactError, match="full: unknown attribute 'a'"):
        load(tmp_path / "a.ree")


def test_an_operator_without_a_schema_cannot_be_registered():
    add = opdef.get("add")
    fields = {f: getattr(add, f) for f in add.__dataclass_fields__}
    with pytest.raises(TypeError, match="schema"):
        opdef.OpDef(**{**fields, "schema": None})


@pytest.mark.parametrize(
    "dims", [(2**62,) * 5 + (0,), (2**31, 0), (2**20, 0, 2**20), (2**16, 2**16)]
)
def test_large_dimensions_are_refused_where_a_value_is_empty_too(dims):
    b = Builder()
    with pytest.raises(ValueError, match=r"at most|expected"):
        b.add("full", shape=dims, value=1.0, dtype=DType.F32)
    b = Builder()
    x = b.input(TensorType(DType.F32, dims))
    with pytest.raises(legal.IllegalGraph):
        legal.check(b.finish((x,)))


def _randn(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


QKV = (_randn(1, 1, 2, 2), _randn(1, 1, 3, 2), _randn(1, 1, 3, 2))
CONV = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1}
ATTEND = {"causal": True, "scale": 0.5, "window": 0, "q_offset": 0}
NEAR = 2**30
EXTREMES = [
    *(("attention", QKV, {**ATTEND, "q_offset": o, "window": w, "causal": c})
      for o in (-NEAR, -1, NEAR) for w in (0, 1, NEAR) for c in (False, True)),
    ("slice", (_randn(5),), {"dim": 0, "start": 1, "stop": 2, "step": TOP}),
    ("window", (_randn(5),), {"dim": 0, "size": 1, "step": TOP, "dilation": TOP}),
    ("convolution", (_randn(1, 1, 3), _randn(1, 1, 1)), {**CONV, "stride": (TOP,), "dilation": (TOP,)}),
    ("convolution", (_randn(1, 1, 3), _randn(1, 1, 2)), {**CONV, "padding": (65535,), "stride": (TOP,)}),
    ("convolution", (_randn(1, 1, 3), _randn(1, 1, 1)), {**CONV, "padding": (65535,), "stride": (65536,)}),
    ("pad", (_randn(3),), {"low": (-TOP,), "high": (TOP,), "value": 1.0}),
    ("iota", (), {"n": 3, "start": -(2**63), "step": 2**63 - 1}),
    ("iota", (), {"n": 3, "start": 2**63 - 1, "step": -(2**63)}),
    *(("full", (), {"shape": (2,), "value": v, "dtype": d}) for v, d in
      [(2**63 - 1, DType.I64), (-(2**63), DType.I64), (255, DType.U8), (-128, DType.I8), (0, DType.BF16),
       (0.0, DType.F16), (float("nan"), DType.F32)]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arrays", "attrs"), EXTREMES)
def test_extremes_give_the_same_bits(op, arrays, attrs):
    g = _graph(op, arrays, attrs)
    legal.check(g)
    p = _program(g)
    assert p.run(*arrays).outputs[0].tobytes() == outputs(g, list(arrays), ())[0].tobytes()


def test_a_chain_of_steps_that_are_never_taken_does_not_overflow():
    b = Builder()
    x = y = b.input(TensorType(DType.F32, (2, 3)))
    for _ in range(6):
        y = b.add("slice", y, dim=0, start=0, stop=1, step=LARGEST)
    g = b.finish((b.add("neg", y),))
    (given,) = (_randn(2, 3),)
    assert x.index == 0
    got = _program(g).run(given).outputs[0]
    assert got.tobytes() == (-given[:1]).tobytes()


@pytest.mark.parametrize(("op", "dtype", "value"), [
    ("full", DType.F32, 1), ("full", DType.I64, 1.0), ("full", DType.BOOL, 1), ("full", DType.U8, 256),
    ("full", DType.BF16, 0x7FC1), ("full", DType.F16, 1.0), ("pad", DType.F32, 1), ("pad", DType.U8, -1),
    ("pad", DType.BF16, 0x7FC1),
])  # fmt: skip
def test_an_element_is_of_its_dtype(op, dtype, value):
    b = Builder()
    with pytest.raises(ValueError, match=f"{op}: attribute value: .* is not of {dtype.text}"):
        if op == "full":
            b.add("full", shape=(2,), value=value, dtype=dtype)
        else:
            b.add("pad", b.input(TensorType(dtype, (2,))), low=(1,), high=(0,), value=value)
