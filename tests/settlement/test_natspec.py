"""NatSpec: every external function of a contract says what it does, takes and returns."""

import re
from pathlib import Path

import pytest
from vyper import ast as vy
from vyper.ast import parse_to_ast

CONTRACTS = Path(__file__).parents[2] / "settlement" / "contracts"
FILES = sorted(p for p in CONTRACTS.rglob("*.vy*") if p.parent.name != "testing")


def missing(text, interface=False):
    """Tags that the external functions of a source lack, and those they have too much, as `function: tag`."""
    for function in parse_to_ast(text, is_interface=interface).get_children(vy.FunctionDef):
        if "external" not in {getattr(d, "id", "") for d in function.decorator_list}:
            continue
        doc = getattr(function, "doc_string", None)
        said = doc.value if doc else ""
        tags = re.findall(r"^\s*@(notice|return|param \w+)", said, re.M)
        wanted = ["notice", *(f"param {a.arg}" for a in function.args.args)]
        wanted += ["return"] if function.returns else []
        yield from (f"{function.name}: {t}" for t in wanted if tags.count(t) != 1)
        yield from (f"{function.name}: no {t}" for t in tags if t not in wanted)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_external_functions_are_documented(path):
    assert list(missing(path.read_text(), path.suffix == ".vyi")) == []


def test_what_is_missing_is_seen():
    text = (
        "@external\ndef f(a: uint256, b: uint256) -> uint256:\n    '''\n    @notice {}\n    '''\n"
    )
    assert list(missing(text.format("x"))) == ["f: param a", "f: param b", "f: return"]
    assert list(missing(text.format("x\n    @param a y\n    @param b z\n    @return w"))) == []
    assert list(missing(text.format("x\n    @param c y"))) == [
        "f: param a",
        "f: param b",
        "f: return",
        "f: no param c",
    ]
    assert list(missing("@external\ndef f():\n    pass\n")) == ["f: notice"]
    assert list(missing("@internal\ndef f():\n    pass\n")) == []
