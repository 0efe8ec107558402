"""Comparing traces: which value, which element, how far."""

import numpy as np
import pytest

from ree.kernels.types import DType
from ree.traces.diff import compare, first_element, number, ulp_distance
from ree.traces.encoding import ZERO, sha256
from ree.traces.tensor import tensor_hash
from ree.traces.trace import Trace, ValueInfo, make_trace

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def bits(*values: int) -> np.ndarray:
    return np.array(values, np.uint32).view(np.float32)


def traced(*arrays: np.ndarray | None, **changes: object) -> Trace:
    fields = {
        "numeric_id": sha256(b"n"), "program": sha256(b"p"), "instance": sha256(b"i"),
        "weights_root": ZERO, "inputs": [tensor_hash(X)], "outputs": [tensor_hash(arrays[-1])],
        "values": [ZERO if a is None else tensor_hash(a) for a in arrays],
        "infos": [ValueInfo("add", "f32[3,4]", f"v{i}", f"model.py:{i}")
                  for i in range(len(arrays))],
        "input_names": ["x"], "output_names": ["y"],
    }  # fmt: skip
    return make_trace(**{**fields, **changes})


def test_equal_traces_do_not_differ() -> None:
    assert compare(traced(X, None, X), traced(X, None, X)) == ()


def test_first_value_element_and_output() -> None:
    y, z = X.copy(), X.copy()
    y.view(np.uint32)[1, 2] += 3
    y[2, 0] = -1
    z[0, 0] = 7
    left = {("value", 1): X, ("value", 2): X, ("output", 0): X}
    right = {("value", 1): y, ("value", 2): z, ("output", 0): z}
    value, output = compare(traced(X, X, X), traced(X, y, z), left, right)
    assert (value.kind, value.index, value.also) == ("value", 1, 1)
    assert value.info == ValueInfo("add", "f32[3,4]", "v1", "model.py:1")
    assert value.left == tensor_hash(X).hex()
    assert value.right == tensor_hash(y).hex()
    e = value.element
    assert e is not None
    assert (e.index, e.flat_index, e.ulps, e.differing, e.count) == ((1, 2), 6, 3, 2, 12)
    assert (e.left_bits, e.right_bits, e.left) == ("40c00000", "40c00003", 6.0)
    assert (output.kind, output.index, output.name) == ("output", 0, "y")
    assert "element [1, 2]: 6 (0x40c00000) and 6.00000143 (0x40c00003), 3 ulp apart" in str(value)
    assert "model.py:1" in str(value)
    assert "1 further values differ" in str(value)


def test_without_tensors_the_value_is_still_named() -> None:
    (value,) = compare(traced(X, X, X), traced(X, X + 1, X))
    assert (value.kind, value.index, value.element) == ("value", 1, None)


def test_moved_on_one_side_only_is_a_difference() -> None:
    (value,) = compare(traced(X, None, X), traced(X, X, X))
    assert (value.index, value.left) == (1, ZERO.hex())


@pytest.mark.parametrize("name", ["numeric_id", "program", "weights_root"])
def test_header_fields(name: str) -> None:
    (found,) = compare(traced(X), traced(X, **{name: sha256(b"other")}))
    assert (found.kind, found.right) == (name, sha256(b"other").hex())


def test_values_of_different_instances_are_not_compared() -> None:
    found = compare(traced(X, X), traced(X + 1, X, instance=sha256(b"j")))
    assert [d.kind for d in found] == ["instance"]


def test_inputs_and_counts() -> None:
    found = compare(traced(X), traced(X, inputs=[tensor_hash(X + 1)]))
    assert [(d.kind, d.index, d.name) for d in found] == [("input", 0, "x")]
    found = compare(traced(X), traced(X, X, inputs=[]))
    assert [(d.kind, d.left, d.right) for d in found] == [
        ("inputs", "1", "0"),
        ("values", "1", "2"),
    ]


def test_levels_share_what_they_share() -> None:
    ops = traced(X + 1, X)
    assert compare(ops, traced(X, X).at_io_level()) == ()
    found = compare(ops, traced(X + 1).at_io_level())
    assert [d.kind for d in found] == ["output"]


@pytest.mark.parametrize(
    ("a", "b", "ulps"),
    [
        (0x3F800000, 0x3F800000, 0),
        (0x3F800000, 0x3F800001, 1),
        (0x00000000, 0x80000000, 1),  # signs of zero
        (0x00000001, 0x80000001, 3),
        (0x7F7FFFFF, 0x7F800000, 1),  # largest finite, infinity
        (0x7F800000, 0xFF800000, 2 * 0x7F800000 + 1),
        (0x7FC00000, 0x7FC00000, 0),
        (0x7FC00000, 0x7FC00001, None),
        (0x7FC00000, 0xFFC00000, None),
        (0x7FC00000, 0x3F800000, None),
        (0x7F800001, 0x7F800000, None),
    ],
)
def test_ulp_distance(a: int, b: int, ulps: int | None) -> None:
    assert ulp_distance(a, b) == ulp_distance(b, a) == ulps


def test_ulp_distance_is_steps_of_nextafter() -> None:
    x = np.float32(-3e-45)
    for steps in range(1, 6):
        x = np.nextafter(x, np.float32(1), dtype=np.float32)
        got = ulp_distance(int(np.float32(-3e-45).view(np.uint32)), int(x.view(np.uint32)))
        assert got == steps + (not np.signbit(x))  # nextafter knows one zero


def test_ulp_distance_of_half_precision() -> None:
    assert ulp_distance(0x7BFF, 0x7C00, DType.F16) == 1
    assert ulp_distance(0x7C01, 0x7C00, DType.F16) is None
    assert ulp_distance(0x3F80, 0x3F82, DType.BF16) == 2
    assert ulp_distance(0x7F81, 0x7F80, DType.BF16) is None


def test_numbers() -> None:
    assert number(0x3F800000, DType.F32) == 1.0
    assert number(0x3C00, DType.F16) == 1.0
    assert number(0x3F80, DType.BF16) == 1.0
    assert number(2**64 - 1, DType.I64) == -1
    assert number(255, DType.I8) == -1
    assert number(255, DType.U8) == 255
    assert number(1, DType.BOOL) == 1


def test_elements_compare_by_bits() -> None:
    nan = bits(0x7FC00000, 0x00000000)
    assert first_element(nan, nan.copy()) is None
    e = first_element(nan, bits(0x7FC00000, 0x80000000))
    assert e is not None
    assert (e.flat_index, e.ulps) == (1, 1)
    e = first_element(np.array([1, -2]), np.array([1, 5]))
    assert e is not None
    assert (e.left, e.right, e.ulps) == (-2, 5, None)
    assert first_element(X, X.reshape(4, 3)) is None
    e = first_element(np.zeros((), np.float32), np.ones((), np.float32))
    assert e is not None
    assert e.index == ()
