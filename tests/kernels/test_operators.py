"""Every operator on all its samples: the same bytes from every route."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree import _core
from ree.compiler import interp
from ree.compiler.instance import make_instance
from ree.conformance import GOLDEN, cases, graph_of, program_of, reference_digest
from ree.kernels import opdef, registry, rowprogram
from ree.kernels.index import read
from ree.kernels.opdef import Form

OPS = registry.names()


def same(a, b, where):
    assert a.dtype == b.dtype, where
    assert a.shape == b.shape, where
    assert a.tobytes() == b.tobytes(), where


@pytest.mark.parametrize("op", OPS)
def test_backends_agree(op):
    """Reference, interpreter, every instruction set, 1, 2 and 7 threads, traced or not."""
    count = 0
    for case in cases(op):
        inputs = [np.ascontiguousarray(x).reshape(x.shape) for x in case.sample.inputs]
        bound = make_instance(case.program.graph, {}).graph
        for got, want in zip(interp.outputs(bound, inputs, ()), case.expected, strict=True):
            same(got, want, (op, case.sample.name, "interp"))
        for isa in _core.isa_names():
            for threads in (1, 2, 7):
                result = case.program.run(*inputs, isa=isa, threads=threads)
                for got, want in zip(result.outputs, case.expected, strict=True):
                    same(got, want, (op, case.sample.name, isa, threads))
        count += 1
    assert count >= 3


def emptied(sample):
    """The sample with all axes of one size empty, for each size in turn."""
    for size in sorted({n for x in sample.inputs for n in x.shape} - {0}):
        inputs = tuple(
            x[tuple(slice(0 if n == size else n) for n in x.shape)] for x in sample.inputs
        )
        yield opdef.Sample(f"{sample.name}, {size} is 0", inputs, sample.attrs)


@pytest.mark.parametrize("op", OPS)
def test_backends_agree_on_empty_axes(op):
    for case in cases(op):
        for sample in emptied(case.sample):
            try:
                program = program_of(graph_of(op, sample))
                inputs = [np.ascontiguousarray(x).reshape(x.shape) for x in sample.inputs]
                bound = make_instance(program.graph, {}).graph
                expected = interp.outputs(bound, inputs, ())
            except (ValueError, IndexError):  # no rule for it, or nothing where an index points
                continue
            for isa in _core.isa_names():
                for fuse in (True, False):
                    result = program.run(*inputs, isa=isa, threads=2, fuse=fuse)
                    for got, want in zip(result.outputs, expected, strict=True):
                        same(got, want, (op, sample.name, isa))


@pytest.mark.parametrize("op", [o for o in OPS if opdef.get(o).row_program])
def test_row_programs_equal_their_composites(op):
    for case in cases(op):
        node = make_instance(case.program.graph, {}).graph
        bound = opdef.bind(op, list(node.inputs), case.sample.attrs, {})
        flat = case.expected[0].reshape(-1)
        for i in {0, flat.size // 2, flat.size - 1} if flat.size else ():
            program = opdef.get(op).row_program(bound)
            got = rowprogram.evaluate(program, case.sample.inputs, i)
            assert got.tobytes() == flat[i].tobytes(), (op, case.sample.name, i)


@pytest.mark.parametrize("op", [o for o in OPS if opdef.get(o).form is Form.CONTRACTION])
def test_index_rules_of_contractions_say_which_products_are_summed(op):
    """The chain spelled by the index rule alone gives the reference's element."""
    from ree.kernels.numerics import contract

    for case in cases(op):
        inputs = case.sample.inputs
        g = graph_of(op, case.sample)
        bound = opdef.bind(op, list(g.inputs), case.sample.attrs, {})
        rule = opdef.get(op).index_rule(bound)
        a, b = (read(rule, i, inputs) for i in range(2))
        got = contract(np.asarray(a, np.float32), np.asarray(b, np.float32))
        same(got.reshape(case.expected[0].shape), case.expected[0], (op, case.sample.name))


@pytest.mark.parametrize("op", [o for o in OPS if opdef.get(o).form is Form.POINTWISE])
def test_index_rules_of_pointwise_operators(op):
    for case in cases(op):
        g = graph_of(op, case.sample)
        bound = opdef.bind(op, list(g.inputs), case.sample.attrs, {})
        rule = opdef.get(op).index_rule(bound)
        moved = tuple(
            read(rule, i, case.sample.inputs).reshape(bound.out.dims)
            for i in range(len(bound.inputs))
        )
        same(opdef.apply(op, moved, case.sample.attrs)[0], case.expected[0], (op, case.sample.name))


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 40), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_random_shapes(seed, m, n, k):
    """Contractions, rows and attention at random sizes, on every instruction set."""
    rng = np.random.default_rng(seed)

    def randn(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    one_axis = {"dim": 1, "keepdim": False}
    attend = {"causal": bool(seed & 1), "scale": 0.5, "window": 0, "q_offset": 0}
    samples = [
        ("linear", (randn(m, k), randn(n, k)), {}),
        ("matmul", (randn(2, m, k), randn(1, k, n)), {}),
        ("softmax", (randn(m, k + 1),), {"dim": 1}),
        ("sum", (randn(m, k, n),), one_axis),
        ("amax", (randn(m, k + 1),), one_axis),
        ("layer_norm", (randn(m, n),), {"eps": 2.0**-20, "weight": False, "bias": False}),
        ("attention", (randn(1, 2, m, 8), randn(1, 1, k, 8), randn(1, 1, k, n)), attend),
    ]
    for op, inputs, attrs in samples:
        sample = opdef.Sample("random", inputs, attrs)
        (want,) = opdef.apply(op, inputs, attrs)
        program = program_of(graph_of(op, sample))
        for isa in _core.isa_names():
            (got,) = program.run(*inputs, isa=isa, threads=1 + seed % 3).outputs
            same(got, want, (op, [x.shape for x in inputs], isa))


def test_golden_digests():
    """The contract's bits do not drift: a digest changes only with a decision to change it."""
    golden = json.loads(GOLDEN.read_text())["operators"]
    assert set(golden) == set(OPS)
    for op in OPS:
        assert reference_digest(op) == golden[op], op


def test_an_incomplete_operator_cannot_be_registered():
    add = opdef.get("add")
    for missing in ("scalar", "reference", "index_rule", "rule", "bound"):
        fields = {f: getattr(add, f) for f in add.__dataclass_fields__}
        fields[missing] = "" if missing in ("rule", "bound") else None
        with pytest.raises(TypeError, match=missing):
            opdef.OpDef(**fields)
    for nothing in (None, "pointwise", opdef.Form.OUTPUT):
        with pytest.raises(TypeError, match="'add' does not say how an element comes about"):
            opdef.OpDef(
                **{f: getattr(add, f) for f in add.__dataclass_fields__} | {"form": nothing}
            )
    with pytest.raises(TypeError, match="form"):
        opdef.OpDef(**{f: getattr(add, f) for f in add.__dataclass_fields__ if f != "form"})
    with pytest.raises(TypeError, match="twice"):
        opdef.register(add)
