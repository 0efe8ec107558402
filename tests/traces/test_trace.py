"""Traces: what changes the root, what does not, and what is refused."""

import dataclasses

import pytest

from ree.traces.encoding import ZERO, sha256
from ree.traces.merkle import verify
from ree.traces.trace import Trace, ValueInfo, make_trace, ops_root, tensor_leaf, tensors_root


def h(text: str) -> bytes:
    return sha256(text.encode())


def ops_trace(**changes: object) -> Trace:
    fields = {
        "numeric_id": h("numeric"), "program": h("program"), "instance": h("instance"),
        "weights_root": h("weights"), "inputs": (h("i0"), h("i1")), "outputs": (h("o0"),),
        "values": (h("v0"), ZERO, h("v2")),
    }  # fmt: skip
    return make_trace(**{**fields, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"numeric_id": h("x")}, {"program": h("x")}, {"instance": h("x")}, {"weights_root": h("x")},
        {"inputs": (h("i1"), h("i0"))}, {"inputs": (h("i0"),)}, {"inputs": ()},
        {"outputs": (h("x"),)}, {"outputs": (h("o0"), ZERO)},
    ],
    ids=lambda c: next(iter(c)),
)  # fmt: skip
def test_root_depends_on_every_field(change: dict) -> None:
    assert ops_trace(**change).root != ops_trace().root
    assert ops_trace(**change).io_root != ops_trace().io_root


@pytest.mark.parametrize(
    "values", [(h("x"), ZERO, h("v2")), (h("v0"), h("v2"), ZERO), (h("v0"), ZERO), ()]
)
def test_values_change_the_ops_root_alone(values: tuple[bytes, ...]) -> None:
    assert ops_trace(values=values).root != ops_trace().root
    assert ops_trace(values=values).io_root == ops_trace().io_root


def test_levels() -> None:
    ops = ops_trace()
    io = ops.at_io_level()
    assert (ops.level, io.level) == ("ops", "io")
    assert io.root == io.io_root == ops.io_root != ops.root
    assert ops.root == ops_root(io.root, 3, tensors_root(ops.values))
    assert ops_trace(values=()).root != io.root  # no values is not the same as not said


def test_sidecar_is_outside() -> None:
    plain = ops_trace()
    told = ops_trace(infos=[ValueInfo("add", name="a")] * 3, environment=[("device", "cpu")])
    assert told == plain
    assert told.root == plain.root
    assert told.sidecar.value(1) == ValueInfo("add", name="a")
    assert told.sidecar.value(3) is None


def test_values_are_provable() -> None:
    trace = ops_trace()
    tree = trace.value_tree()
    for v, x in enumerate(trace.values):
        verify(tensors_root(trace.values), 3, v, tensor_leaf(v, x), tree.prove(v))


def test_refusals() -> None:
    trace = ops_trace()
    with pytest.raises(ValueError, match="program: expected 32 bytes, got 2 bytes"):
        ops_trace(program=b"12")
    with pytest.raises(ValueError, match=r"values\[1\]: expected 32 bytes, got str"):
        ops_trace(values=(h("a"), "b"))
    with pytest.raises(ValueError, match="expected 0 at level io, got 3"):
        dataclasses.replace(trace, level="io")
    with pytest.raises(ValueError, match="expected io or ops, got 'all'"):
        dataclasses.replace(trace, level="all")
    with pytest.raises(ValueError, match="version: expected 1, got 2"):
        dataclasses.replace(trace, version=2)
    with pytest.raises(ValueError, match="sidecar: expected 0 or 3 values, got 1"):
        ops_trace(infos=[ValueInfo("add")])
