"""JSON from another party: what is refused, and that no text can exhaust the stack."""

import sys

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


@pytest.mark.timeout(60)
@pytest.mark.parametrize("raw", [b'"\\' * 400_000, b'"' + b'\\"' * 400_000], ids=["starts", "ends"])
def test_scanning_is_linear(raw):
    """Strings that do not end; a scan that went back would take hours."""
    with pytest.raises(ValueError, match=r"control character|Unterminated|Invalid|Expecting"):
        strict_json(raw)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe[\x00", b"NaN", b"[Infinity]", b'{"a":1,"a":2}', b"1" * 5000, b"[1,]"],
    ids=lambda x: repr(x[:12]),
)
def test_refused(raw):
    with pytest.raises(ValueError):  # noqa: PT011 (of several kinds)
        strict_json(raw)
