"""Receipts: whatever is changed in one is found, at the first place where it shows."""

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.errors import InputError, ReeError
from ree.generation.engine import Engine
from ree.generation.generator import Completion, Generator, Request
from ree.generation.receipt import Receipt, canonical_json
from ree.generation.receipt_diff import receipt_differences
from ree.generation.request import Sampling
from ree.generation.verification import Level, check_receipt, first_wrong_token
from ree.signing import SigningKey

from .tiny import CONTEXT, STOP, model_of

KEY = SigningKey(bytes(range(32)))
HELLO = [{"role": "user", "content": "hello there"}]
DRAWN = Sampling(temperature=0.9, top_p=0.95, seed=5)
INFORMATIVE = ("created", "made_by")  # outside the digest


def made(**options):
    options = {
        "messages": HELLO,
        "date": "2026-01-31",
        "sampling": DRAWN,
        "max_tokens": 25,
    } | options
    if "prompt" in options or "tokens" in options:
        del options["messages"], options["date"]
    receipt, _ = Generator(model_of()).generate(Request(**options))
    return receipt


@pytest.fixture(scope="module")
def receipt():
    return made().signed(KEY)


def read(m):
    return Receipt.of(json.dumps(m).encode())


def test_a_receipt_is_what_its_file_says(receipt):
    again = Receipt.of(receipt.to_json())
    assert replace(again, stated="") == receipt
    assert again.digest == receipt.digest
    assert again.to_json() == receipt.to_json()
    for level in Level:
        assert check_receipt(again, model_of(), level) is None
    assert check_receipt(again, model_of(), isa="portable", threads=1) is None


@pytest.mark.parametrize(
    "options",
    [{"prompt": "some words"}, {"tokens": [7, 8, 9]}, {"stop": ("zzz", "O^x")},
     {"stop": ("^",), "include_stop": True},
     {"max_tokens": 1}, {"stop_tokens": ()}, {"sampling": replace(DRAWN, bias={STOP: 25.0})},
     {"sampling": Sampling()}, {"max_tokens": 0},
     {"sampling": replace(DRAWN, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.1)}],
)  # fmt: skip
def test_every_kind_of_request_verifies(options):
    receipt = Receipt.of(made(**options).to_json())
    assert check_receipt(receipt, model_of()) is None
    if "stop" in options:
        assert receipt.finish == "stop_string"


def places(value, path=()):
    """Paths of all that is in a JSON value, leaves alone."""
    if isinstance(value, dict):
        for k in value:
            yield from places(value[k], (*path, k))
    elif isinstance(value, list) and value:
        for i in range(len(value)):
            yield from places(value[i], (*path, i))
    else:
        yield path


def changed(x):
    if isinstance(x, bool):
        return not x
    if isinstance(x, int | float):
        return x + 1
    if isinstance(x, str):
        same = len(x) in (64, 128)
        return (("0" if x[0] != "0" else "1") + x[1:]) if same else x + "x"
    return [1] if x == [] else {"1": 1.0}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_is_found(receipt, data):
    """In a receipt that keeps its digest, and in one whose digest is made again."""
    m = json.loads(receipt.to_json())
    path = data.draw(st.sampled_from([p for p in places(m) if p[0] not in INFORMATIVE]))
    at = m
    for k in path[:-1]:
        at = at[k]
    at[path[-1]] = changed(at[path[-1]])
    try:
        other = read(m)
    except ReeError:
        return  # malformed: exit code 2
    assert check_receipt(other, model_of(), Level.SIGNATURE) is not None
    if path[0] in ("digest", "signatures"):
        return
    forged = replace(other, signatures=())
    forged = Receipt.of(forged.to_json())  # its digest fits now
    if path == ("previous",) or path[:2] == ("request", "tools"):
        return  # what only its signer stands for
    if path[:1] == ("request",) and path[1] in ("max_tokens", "date", "stop", "include_stop"):
        return  # they may say something else that is as true
    found = check_receipt(forged, model_of())
    assert found is not None, path


def test_a_wrong_token_is_named(receipt):
    n = len(receipt.prompt_tokens)
    tokens = list(receipt.completion_tokens)
    tokens[7] = (tokens[7] + 1) % 250
    forged = replace(receipt, completion_tokens=tuple(tokens), signatures=())
    forged = honest_but_for_tokens(forged)
    found = check_receipt(forged, model_of())
    assert found.position == n + 7
    assert found.chunk == 1
    assert first_wrong_token(forged.claimed, Engine(model_of().forward, most=512)) == n + 7


def honest_but_for_tokens(r):
    """The receipt with text, batches and commitment made again for its tokens."""
    from ree.generation.verification import _text_of
    from ree.runtime.hashing import hash_array
    from ree.traces.history import batch_digest

    batches = [
        batch_digest([hash_array(r.claimed.batch(i))]).hex() for i in range(1, len(r.records) + 1)
    ]
    r = replace(r, records=tuple((s, b) for (s, _), b in zip(r.records, batches, strict=True)))
    r = replace(r, text=_text_of(r, model_of())[0])
    return Receipt.of(replace(r, commitment=r.history.commitment.hex()).to_json())


@pytest.mark.parametrize("drawn", [25, 150])
def test_other_keys_and_values_are_named(drawn):
    """Of the last chunk, in a receipt whose commitment is that of its records."""
    receipt = made(max_tokens=drawn, stop_tokens=())
    *before, (root, batch) = receipt.records
    false = ("0" if root[0] != "0" else "1") + root[1:]
    r = replace(receipt, records=(*before, (false, batch)))
    r = Receipt.of(replace(r, commitment=r.history.commitment.hex()).to_json())
    found = check_receipt(r, model_of())
    assert found.what.startswith(f"chunk {len(r.records)}: the keys and values")
    assert check_receipt(r, model_of(), Level.TEXT) is None


@pytest.mark.parametrize("at", [0, 1, 31, 32, 33, 100, 127, 128, 149])
def test_a_wrong_token_at_the_borders_of_blocks(at):
    receipt = made(prompt="x" * 100, max_tokens=150, stop_tokens=())
    tokens = list(receipt.completion_tokens)
    tokens[at] = (tokens[at] + 1) % 250
    forged = honest_but_for_tokens(replace(receipt, completion_tokens=tuple(tokens)))
    found = check_receipt(forged, model_of(), isa="portable")
    assert found.position == len(receipt.prompt_tokens) + at


def test_a_stop_token_within_an_answer_is_named():
    receipt = made(max_tokens=60, stop_tokens=())
    n, inner = len(receipt.prompt_tokens), receipt.completion_tokens[40]
    at = receipt.completion_tokens.index(inner)
    forged = replace(receipt, request={**receipt.request, "stop_tokens": [inner]})
    engine = Engine(model_of().forward, most=512)
    assert first_wrong_token(forged.claimed, engine) == n + at


def test_other_models_and_texts_are_named(receipt):
    other = model_of("mistral")
    assert check_receipt(Receipt.of(receipt.to_json()), other).what.startswith("program: ")
    again = copy.copy(model_of())
    again.template_id = "0" * 64
    assert check_receipt(Receipt.of(receipt.to_json()), again).what.startswith("template: ")
    again = copy.copy(model_of())
    again.tokenizer = copy.copy(again.tokenizer)
    again.tokenizer.id = "0" * 64
    assert check_receipt(Receipt.of(receipt.to_json()), again).what.startswith("tokenizer: ")


def test_a_text_longer_than_the_context_is_not_executed(receipt):
    """Its caches could be larger than any memory."""
    tokens = (*receipt.completion_tokens, *[1] * CONTEXT)
    records = receipt.records * (-(-(len(receipt.prompt_tokens) + len(tokens)) // 128))
    long = replace(receipt, completion_tokens=tokens, records=records, signatures=())
    assert "the model takes 512" in check_receipt(honest_but_for_tokens(long), model_of()).what


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"nul", b'{"a":NaN}', b"[" * 100000, b"\xff\xfe", b"1e999"]
)
def test_what_is_no_receipt_is_said_in_a_line(raw):
    with pytest.raises(ReeError, match="not a receipt") as e:
        Receipt.of(raw)
    assert "\n" not in str(e.value.message)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)),
       st.data())  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_anything_in_place_of_a_part_is_refused_or_found(receipt, junk, data):
    m = json.loads(receipt.to_json())
    path = data.draw(st.sampled_from([p for p in places(m) if p[0] not in INFORMATIVE]))
    at = m
    for k in path[:-1]:
        at = at[k]
    if type(at[path[-1]]) is type(junk) and at[path[-1]] == junk:
        return
    at[path[-1]] = junk
    try:
        other = read(m)
    except ReeError:
        return
    assert (
        check_receipt(other, model_of(), Level.SIGNATURE) is not None
        or other.digest == receipt.digest
    )


@pytest.mark.parametrize(
    ("where", "value"),
    [(("sampling", "seed"), 1.5), (("sampling", "seed"), 2**70), (("sampling", "seed"), True),
     (("sampling", "top_k"), 1.5), (("sampling", "temperature"), 10**400), (("sampling", "top_p"), -0.5),
     (("sampling", "bias"), {"3": 10**400}), (("messages", 0, "content"), "\ud800"),
     (("messages", 0, "content"), 1e999), (("max_tokens",), True), (("sampling", "bias"), {"07": 1.0}),
     (("sampling", "bias"), {"7": 1.0, "07": -1.0})],
)  # fmt: skip
def test_a_request_that_nobody_can_make_is_no_receipt(receipt, where, value):
    """Numbers without a place in a commitment, text without bytes: one line, at any level."""
    m = json.loads(receipt.to_json())
    at = m["request"]
    for k in where[:-1]:
        at = at[k]
    at[where[-1]] = value
    with pytest.raises(ReeError, match="not a receipt"):
        Receipt.of(json.dumps(m).encode())


def test_an_account_signs_what_contracts_can_check(receipt):
    pytest.importorskip("eth_account", reason="needs the extra settlement")
    from eth_account import Account

    from ree.settlement.keys import role_key
    from ree.signing_eip712 import MOST_S

    key = role_key("provider")
    signed = Receipt.of(receipt.signed_by_account(key).to_json())
    assert [s.alg for s in signed.signatures] == ["ed25519", "eip712"]
    assert check_receipt(signed, model_of(), Level.TEXT) is None
    mine = signed.signatures[1]
    # by the library's other door: EIP-712 in one dictionary, as wallets take it
    types = {"EIP712Domain": [{"name": n, "type": "string"} for n in ("name", "version")],
             "Receipt": [{"name": "digest", "type": "bytes32"}]}  # fmt: skip
    whole = {"domain": {"name": "REE", "version": "1"}, "primaryType": "Receipt", "types": types,
             "message": {"digest": signed.digest}}  # fmt: skip
    from eth_account.messages import encode_typed_data

    recovered = Account.recover_message(
        encode_typed_data(full_message=whole), signature=bytes.fromhex(mine.signature)
    )
    assert recovered.lower() == f"0x{mine.key}"
    raw = bytes.fromhex(mine.signature)
    order = 2 * MOST_S + 1
    other_s = raw[:32] + (order - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big")
    forged = [
        replace(mine, key="00" * 20), replace(mine, signature="00" * 65),
        replace(mine, signature=(other_s + bytes([55 - raw[64]])).hex()),
        replace(mine, signature=(raw[:64] + bytes([raw[64] - 27])).hex()),
        replace(mine, signature=receipt.signed_by_account(role_key("other")).signatures[1].signature),
    ]  # fmt: skip
    for wrong in forged:
        found = check_receipt(
            Receipt.of(replace(signed, signatures=(wrong,)).to_json()), None, Level.SIGNATURE
        )
        assert found.what == f"signature: not of key {wrong.key}"
    for alg, key in (("ed25519", mine.key), ("eip712", "00" * 32), ("rsa", mine.key)):
        with pytest.raises(ReeError, match="signatures: "):
            Receipt.of(replace(signed, signatures=(replace(mine, alg=alg, key=key),)).to_json())


def test_receipts_name_the_one_before(receipt):
    second = made(previous=receipt.digest.hex())
    assert second.previous == receipt.digest.hex()
    assert second.digest != made().digest
    assert check_receipt(Receipt.of(second.to_json()), model_of()) is None


def test_tools_that_no_template_saw_are_in_no_receipt():
    """With a prompt nobody would read them, and a reader would believe that the model did."""
    m = json.loads(made(prompt="x", max_tokens=1).to_json())
    for more in (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"date": "2026-01-31"},
    ):
        with pytest.raises(ReeError, match="go with messages"):
            read(m | {"request": m["request"] | more})
        with pytest.raises(ReeError, match="go with messages"):
            Completion(model_of(), Request(prompt="x", **more))


def test_what_is_answered_has_a_receipt_that_can_be_read():
    """At the bounds of stop tokens and nesting; beyond them nothing is answered."""
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": json.loads('{"a":' * 60 + "1" + "}" * 60)},
    }
    receipt = made(stop_tokens=tuple(range(128)), tools=[tool], max_tokens=2)
    assert check_receipt(Receipt.of(receipt.to_json()), model_of()) is None
    with pytest.raises(InputError, match="stop_tokens"):
        made(stop_tokens=tuple(range(129)))


def test_receipts_with_numbers_written_otherwise_are_told_apart():
    one, other = (made(sampling=replace(DRAWN, temperature=t), max_tokens=2) for t in (1, 1.0))
    assert one.digest != other.digest
    assert [d.what[:7] for d in receipt_differences(one, other)] == ["digest:"]
    forged = replace(one, commitment="0" * 64)
    assert receipt_differences(one, forged)[0].what.startswith("commitment")
    assert receipt_differences(one, one) == []


def test_canonical_json_is_one_text():
    assert canonical_json({"b": [1, 0.1], "a": "é"}) == '{"a":"é","b":[1,0.1]}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
