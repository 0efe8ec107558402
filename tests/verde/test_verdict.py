"""Verdict files: replayed offline; altered ones are refused."""

import copy
import json
from contextlib import suppress
from dataclasses import replace

import pytest

from ree.errors import DisputeError
from ree.program import Names, Program
from ree.verde import moves as m
from ree.verde.messages import canonical
from ree.verde.verdict import (
    Verdict,
    check_verdict,
    check_verdict_file,
    decode_verdict,
    encode_verdict,
    write_verdict,
)


def leaves(x, at=()):
    """Paths of a JSON value's leaves."""
    items = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ()
    if not isinstance(x, dict | list) or not x:
        yield at
    for k, v in items:
        yield from leaves(v, (*at, k))


def altered(x):
    if isinstance(x, int):
        return x + 1
    if isinstance(x, str):
        return (("1" if x[0] != "1" else "2") + x[1:]) if x else "1"
    return 1 if x is None else None


def test_a_verdict_that_was_altered(program, honest, liars, verdict_of, tmp_path):
    v = verdict_of(liars["linear"], honest)
    path = tmp_path / "v"
    write_verdict(path, v)
    assert check_verdict_file(path, program).follows
    value = json.loads(path.read_bytes())
    paths = list(leaves(value))
    assert len(paths) > 80
    for where in paths:
        changed = copy.deepcopy(value)
        parent = changed
        for k in where[:-1]:
            parent = parent[k]
        parent[where[-1]] = altered(parent[where[-1]])
        path.write_bytes(canonical(changed))
        with suppress(DisputeError):
            assert not check_verdict_file(path, program).follows, where


def test_a_verdict_that_was_altered_and_sealed_again(program, honest, liars, verdict_of):
    """The digest is no secret: moves, winner, reason and terms are checked for themselves."""
    v = verdict_of(liars["linear"], honest)

    def follows(**change):
        w = Verdict(**{**vars(v), **change})
        again, same = decode_verdict(encode_verdict(w))
        assert same
        return check_verdict(again, program).follows

    assert follows()
    assert not follows(winner="defender")
    assert not follows(reason="timeout")
    assert not follows(moves=())
    for i, move in enumerate(v.moves):
        assert not follows(moves=v.moves[:i])
        assert not follows(moves=v.moves[:i] + v.moves[i + 1 :])
        if isinstance(move, m.Point):
            assert not follows(moves=(*v.moves[:i], m.Point(move.index + 1), *v.moves[i + 1 :]))
    assert not follows(moves=(*v.moves, m.Point(0)))
    assert not follows(signatures=())
    assert not follows(challenger=None)
    terms = copy.copy(v.terms)
    object.__setattr__(terms, "commitment", bytes(32))
    assert not follows(terms=terms)
    for name in ("inputs", "outputs"):  # both are in the commitment
        statement = copy.copy(v.terms.statement)
        object.__setattr__(statement, name, bytes(32))
        terms = copy.copy(v.terms)
        object.__setattr__(terms, "statement", statement)
        assert not follows(terms=terms)


def test_a_verdict_about_something_else(program, honest, liars, verdict_of, tmp_path):
    v = verdict_of(honest, liars["gelu"])
    assert check_verdict(v, program, honest.terms.statement.inputs).follows
    with pytest.raises(DisputeError, match="inputs are not the dispute's"):
        check_verdict(v, program, bytes(32))
    names = Names(("x",), ("s",), ("w",))
    less = Program(
        replace(program.graph, outputs=program.graph.outputs[:1]), names, program.weights
    )
    with pytest.raises(DisputeError, match="artifact is not the dispute's"):
        check_verdict(v, less)
    for data in (b"", b"{}", b"\xff" * 9, b"[" * 9999, b" " * (9 << 20)):
        (tmp_path / "v").write_bytes(data)
        with pytest.raises(DisputeError, match="malformed"):
            check_verdict_file(tmp_path / "v", program)
    with pytest.raises(DisputeError, match="no verdict"):
        check_verdict_file(tmp_path / "w", program)
