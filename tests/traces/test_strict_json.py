"""JSON from another party: what is refused, and that no text can exhaust the stack."""

import sys
import time

import pytest

from ree.traces.strict_json import MAX_DEPTH, strict_json


@pytest.fixture
def deep_recursion_allowed():
    """Some libraries raise the recursion limit beyond what the C stack holds."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(200_000)
    yield
    sys.setrecursionlimit(before)


def test_values():
    text = '{"a": [1, -2.5, true, null, "é [{ \\" ]}"], "b": {}}'
    assert strict_json(text.encode()) == {
        "a": [1, -2.5, True, None, 'é [{ " ]}'],
        "b": {},
    }


def test_depth():
    assert strict_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert strict_json(b'["' + b"[" * 1000 + b'"]') == ["[" * 1000]
    with pytest.raises(ValueError, match="deep"):
        strict_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "unit", [b"[", b'{"a":', b"[[]", b'["",[', b'[{"\\"":'], ids=lambda x: x.decode()
)
@pytest.mark.usefixtures("deep_recursion_allowed")
def test_no_text_exhausts_the_stack(unit):
    with pytest.raises(ValueError, match="deep"):
        strict_json(unit * 200_000)


def test_scanning_is_linear():
    def seconds(n):
        start = time.perf_counter()
        with pytest.raises(ValueError, match="."):
            strict_json(b'"\\' * n)
        with pytest.raises(ValueError, match="."):
            strict_json(b'"' + b'\\"' * n)
        return time.perf_counter() - start

    seconds(1000)
    assert seconds(400_000) < 5  # quadratic would be hours


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe[\x00", b"NaN", b"[Infinity]", b'{"a":1,"a":2}', b"1" * 5000, b"[1,]"],
    ids=lambda x: repr(x[:12]),
)
def test_refused(raw):
    with pytest.raises(ValueError, match="."):
        strict_json(raw)
