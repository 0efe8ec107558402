"""The byte form of moves: one form each, nothing else is read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.verde import moves as m
from ree.verde.messages import (
    KINDS,
    MAX_MESSAGE,
    MOVES,
    MessageError,
    Parties,
    Signed,
    Terms,
    canonical,
    decode_move,
    decode_request,
    decode_signed,
    decode_terms,
    encode_move,
    encode_request,
    encode_signed,
    encode_terms,
)
from ree.verde.signing import process_signer

digest = st.binary(min_size=32, max_size=32)
leaf = st.binary(min_size=512, max_size=512)
proof = st.lists(digest, max_size=12).map(tuple)
index = st.integers(0, 2**32 - 1)
step = st.tuples(digest, digest | st.just(b""))
opening = st.builds(m.Opening, proof, digest, leaf, proof)
entry = st.builds(m.EntryOpening, leaf, proof)
MOVE = st.one_of(
    st.builds(m.OpenStep, step, digest, proof, step, proof),
    st.builds(m.Open, digest),
    st.builds(m.Point, index),
    st.builds(m.Reveal, st.lists(digest, max_size=16).map(tuple)),
    st.builds(m.Tensor, digest, digest),
    st.builds(m.Leaf, leaf),
    st.builds(m.Derive, digest, entry),
    st.builds(m.Rows, digest, opening),
    st.builds(m.Prove, st.lists(opening | entry, max_size=4).map(tuple)),
)
STATEMENT = st.one_of(
    st.builds(m.Statement, digest, digest, digest, digest, digest, digest | st.just(b"")),
    st.builds(m.RunStatement, digest, digest, digest, st.integers(1, 2**40 - 1), digest, digest),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
    max_leaves=8,
)


def test_every_move_has_a_kind():
    assert set(KINDS) == set(m.MOVE_OF.values())


@settings(max_examples=60, deadline=None)
@given(MOVE)
def test_a_move_comes_back(move):
    data = encode_move(move)
    assert decode_move(data) == move
    assert len(data) <= MOVES[KINDS[type(move)]].limit


@settings(max_examples=40, deadline=None)
@given(
    STATEMENT,
    digest,
    st.integers(0, 2**64 - 1),
    st.dictionaries(st.text(max_size=9), index, max_size=3),
)
def test_terms_come_back(statement, program, seed, symbols):
    terms = Terms(statement, program, tuple(sorted(symbols.items())), program, seed)
    for t in (terms, process_signer().terms(terms)):
        assert decode_terms(encode_terms(t)) == t


@settings(max_examples=20, deadline=None)
@given(STATEMENT, st.lists(MOVE, max_size=4), st.sampled_from([b"", bytes(64)]))
def test_a_request_comes_back(statement, moves, signature):
    terms = Terms(statement, bytes(32), (), bytes(32))
    dispute = Parties(process_signer().terms(terms), terms)
    signed = [Signed(x, signature) for x in moves]
    assert decode_request(encode_request(dispute, signed)) == (dispute, signed)
    for x in signed:
        assert decode_signed(encode_signed(x)) == x
    if moves:
        value = json.loads(encode_request(dispute, signed))
        value["signatures"].pop()
        with pytest.raises(MessageError, match=f"signatures: expected {len(moves)}"):
            decode_request(canonical(value))


@settings(max_examples=300, deadline=None)
@given(MOVE, st.data())
def test_a_damaged_message_is_refused_or_another_move(move, data):
    raw = bytearray(encode_move(move))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_move(bytes(raw))
    except MessageError:
        return
    assert other != move
    assert encode_move(other) == bytes(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64) | ANY_JSON.map(lambda x: json.dumps(x).encode()))
def test_garbage_is_refused(data):
    for decode in (decode_move, decode_signed, decode_request, decode_terms):
        with pytest.raises(MessageError):
            decode(data)


POINT = {"kind": "point", "v": 1, "index": 3}


@pytest.mark.parametrize(
    "value",
    [
        {**POINT, "v": 2},
        {**POINT, "v": True},
        {**POINT, "v": 1.0},
        {**POINT, "kind": "vote"},
        {**POINT, "kind": ["point"]},
        {**POINT, "more": 0},
        {"kind": "point", "v": 1},
        {"kind": "point", "index": 3},
        {**POINT, "index": -1},
        {**POINT, "index": True},
        {**POINT, "index": 3.0},
        {**POINT, "index": "3"},
        {**POINT, "index": 2**32},
        {**POINT, "index": None},
        [POINT],
        {"kind": "open", "v": 1, "values": "AB" * 32},
        {"kind": "open", "v": 1, "values": "ab" * 31},
        {"kind": "open", "v": 1, "values": "ab" * 33},
        {"kind": "open", "v": 1, "values": "zz" * 32},
        {"kind": "open", "v": 1, "values": "٠٠" * 32},
        {"kind": "leaf", "v": 1, "data": "00" * 511},
        {"kind": "reveal", "v": 1, "nodes": ["00" * 32] * 17},
        {"kind": "reveal", "v": 1, "nodes": {}},
        {"kind": "prove", "v": 1, "openings": [{}]},
        {
            "kind": "prove",
            "v": 1,
            "openings": [{"leaf": "00" * 512, "proof": [], "body": "00" * 32}],
        },
    ],
)
def test_what_is_no_move(value):
    with pytest.raises(MessageError):
        decode_move(canonical(value))


@pytest.mark.parametrize(
    "data",
    [
        b'{"index":3, "kind":"point","v":1}',
        b'{"kind":"point","index":3,"v":1}',
        b'{"index":2,"index":3,"kind":"point","v":1}',
        b'{"index":3,"kind":"point","v":1}\n',
        b'\xef\xbb\xbf{"index":3,"kind":"point","v":1}',
        b'{"index":3,"kind":"p\\u006fint","v":1}',
        b'{"index":03,"kind":"point","v":1}',
        b'{"index":NaN,"kind":"point","v":1}',
        b"[" * 100_000,
        b"9" * 10_000,
        b"\xff",
        b"",
    ],
)
def test_another_form_of_a_move_is_refused(data):
    assert decode_move(b'{"index":3,"kind":"point","v":1}') == m.Point(3)
    with pytest.raises(MessageError):
        decode_move(data)


def test_sizes_are_bounded():
    zero = bytes(32)
    deepest = m.Opening((zero,) * 40, zero, bytes(512), (zero,) * 40)
    assert decode_move(encode_move(m.Prove((deepest,) * 16)))
    assert len(encode_move(m.Rows(zero, deepest))) <= MOVES["rows"].limit
    with pytest.raises(MessageError):
        encode_move(m.Prove((deepest,) * 17))
    with pytest.raises(MessageError):
        encode_move(m.Open(bytes(31)))
    with pytest.raises(MessageError):
        decode_move(b" " * (MAX_MESSAGE + 1))
