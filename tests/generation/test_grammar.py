"""Grammars: answers are of their form, the masks are part of the claim and are made again to check it."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from ree.errors import InputError, ReeError
from ree.generation.claim import claim_step, replay, unpacked
from ree.generation.engine import Engine
from ree.generation.generator import Completion, Generator, Request
from ree.generation.grammar import MAX_GRAMMAR, Grammar
from ree.generation.receipt import Receipt
from ree.generation.request import Sampling
from ree.generation.scheduler import Scheduler
from ree.generation.verification import Level, check_receipt, whole_claim

from .tiny import STOP, model_of

DRAWN = Sampling(temperature=1.5, seed=5)
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y", 3]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
FORMS = {
    "schema": Grammar.json_schema(SCHEMA), "regex": Grammar("regex", "[ab]{3,9}c"),
    "choice": Grammar.choice(['one "two"', "three\n"]), "lark": Grammar("lark", 'start: "x"+ "."'),
}  # fmt: skip


def made(grammar, **options):
    options = {"prompt": "hello", "sampling": DRAWN, "max_tokens": 60} | options
    receipt, _ = Generator(model_of()).generate(Request(grammar=grammar, **options))
    return Receipt.of(receipt.to_json())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("seed", [1, 2])
def test_answers_are_of_their_form_and_verify(name, seed):
    receipt = made(FORMS[name], sampling=replace(DRAWN, seed=seed))
    for level in Level:
        assert check_receipt(receipt, model_of(), level) is None
    assert check_receipt(receipt, model_of(), isa="portable", threads=1) is None
    if receipt.finish == "length":
        return
    assert receipt.completion_tokens[-1] == STOP
    if name == "schema":
        value = json.loads(receipt.text)
        assert value.keys() == {"a", "b"}
        assert value["b"] in ("x", "y", 3)
    elif name == "choice":
        assert receipt.text in ('one "two"', "three\n")
    elif name == "lark":
        assert receipt.text.strip("x") == "."
    else:
        assert receipt.text.strip("ab") == "c"


def test_without_the_grammar_the_answer_is_another():
    """Of a model with random weights no answer is JSON by itself."""
    receipt, _ = Generator(model_of()).generate(
        Request(prompt="hello", sampling=DRAWN, max_tokens=60)
    )
    with pytest.raises(json.JSONDecodeError):
        json.loads(receipt.text)


@pytest.mark.parametrize(
    ("before", "after"), [("<tool_call>", "</tool_call>"), ("<tool>", "<tool>")]
)
def test_a_call_of_a_tool(before, after):
    """<tool> is one token of the vocabulary."""
    tools = [
        {"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in ("f", "g")
    ]
    grammar = Grammar.calls(before, after, tools, model_of().tokenizer.encode)
    receipt = made(grammar, max_tokens=150)
    assert receipt.finish == "stop"
    call = json.loads(receipt.text.removeprefix(f"{before}\n").removesuffix(f"\n{after}"))
    assert call["name"] in ("f", "g")
    assert call["arguments"].keys() == {"a", "b"}
    assert check_receipt(receipt, model_of()) is None


def test_a_token_that_is_not_allowed_is_named():
    receipt = made(FORMS["schema"])
    tokens = list(receipt.completion_tokens)
    tokens[4] = 7
    forged = replace(receipt, completion_tokens=tuple(tokens), text=receipt.text)
    with pytest.raises(ReeError, match="is not one that the grammar allows") as e:
        whole_claim(forged, model_of())
    assert e.value.position == len(receipt.prompt_tokens) + 4


def remade(receipt, **changes):
    """The receipt with its commitment and digest made again."""
    r = replace(receipt, signatures=(), **changes)
    return Receipt.of(replace(r, commitment=r.history.commitment.hex()).to_json())


def test_masks_and_grammars_that_do_not_fit():
    receipt = made(FORMS["schema"])
    none = tuple((s, b, "0" * 64) for s, b, _ in receipt.records)
    found = check_receipt(remade(receipt, records=none), model_of(), Level.SIGNATURE)
    assert "batch of chunk 1" in found.what
    wider = Grammar.json_schema({**SCHEMA, "additionalProperties": True}).kept()
    request = {**receipt.request, "grammar": wider}
    found = check_receipt(remade(receipt, request=request), model_of(), Level.TEXT)
    assert found.what.startswith("grammar: in chunk 1 it allows other tokens")
    other = {**wider, "library": "llguidance 0.0.1"}
    found = check_receipt(remade(receipt, request={**request, "grammar": other}), model_of())
    assert "made with llguidance 0.0.1" in found.what
    without = {k: v for k, v in receipt.request.items() if k != "grammar"}
    with pytest.raises(ReeError, match="two digests"):
        remade(receipt, request=without)


def test_a_draw_that_is_not_from_the_mask_is_counted():
    """The step itself reads the masks: with all tokens allowed others would have been drawn."""
    receipt, forward = made(FORMS["regex"]), model_of().forward
    text = whole_claim(receipt, model_of())
    assert [r.loss for r in replay(forward, text, claim_step(forward, text))] == [0]
    free = replace(text, masks=[np.full_like(m, 255) for m in text.masks])
    assert [r.loss for r in replay(forward, free, claim_step(forward, free))] != [0]
    later = replace(text, masks=[*text.masks[1:], text.masks[0]])
    assert [r.loss for r in replay(forward, later, claim_step(forward, later))] != [0]


def test_masks_are_rows_behind_the_prompt():
    text = whole_claim(made(FORMS["regex"], prompt="a" * 126), model_of())
    assert (text.prompt, text.chunks) == (126, 2)
    (_, one), (_, two) = (text.inputs(s, 260) for s in (1, 2))
    first, third = (unpacked(text.masks[i], 260) for i in (0, 2))
    assert one[:125].all()
    assert (one[125] == first).all()
    assert set(np.flatnonzero(first)) == {ord("a"), ord("b")} or first.sum() >= 2
    assert (two[0] == unpacked(text.masks[3], 260)).all()
    assert (one[127] == third).all()


@pytest.mark.parametrize(
    ("kind", "text"),
    [("json_schema", '{"type": "strin"}'), ("json_schema", "false"), ("json_schema", "{"),
     ("json_schema", '{"$ref": "#"}'), ("json_schema", '{"type":"string","pattern":"(a+$("}'),
     ("json_schema", '{"unknownKeyword": 1, "type": "object", "if": {}}'),
     ("regex", "(a"), ("lark", "start: y"), ("lark", "\0"), ("json_schema", "[" * 20000)],
)  # fmt: skip
def test_grammars_without_a_text_are_refused_in_a_line(kind, text):
    begin = time.perf_counter()
    with pytest.raises(ReeError, match="grammar: ") as e:
        Completion(model_of(), Request(prompt="a", grammar=Grammar(kind, text)))
    assert "\n" not in e.value.message
    assert len(e.value.message) < 300
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("regex", "(a", "unclosed group"),
        ("regex", "x" * 9000 + r"\1", "backreferences are not supported"),
        ("lark", "start: /[z-a]/", "invalid character class range, the start must be <= the end"),
        ("json_schema", '{"pattern": "a\\nerror: b\\n("}', "unclosed group"),
        ("json_schema", '{"type": "strin\\u001b[31m\\u202e"}', r"Invalid type: strin\x1b[31m\u202e"),
        ("regex", r"[^\x00-\U0010FFFF]", "no text has its form"),
    ],
)  # fmt: skip
def test_the_library_s_reason_is_handed_on(kind, text, expected):
    with pytest.raises(ReeError) as e:
        Completion(model_of(), Request(prompt="a", grammar=Grammar(kind, text)))
    assert e.value.message == f"grammar: {expected}"


@pytest.mark.parametrize(
    ("kind", "text"), [("ebnf", "x"), ("lark", ""), ("lark", "x" * (MAX_GRAMMAR + 1))]
)
def test_what_is_no_grammar(kind, text):
    with pytest.raises(InputError, match="grammar: expected"):
        Grammar(kind, text)


@pytest.mark.parametrize("text", [
    '{"multipleOf": 9999991}', '{"allOf": [{"multipleOf": 997}, {"multipleOf" : 0.991}]}',
    '{"multiple\\u004ff": 99999999999999999999999999999999}'])  # fmt: skip
def test_remainders_that_would_take_gigabytes_are_not_counted(text):
    for kind, whole in (("json_schema", text), ("lark", f"start: %json {text}")):
        with pytest.raises(InputError, match="grammar: multipleOf"):
            Grammar(kind, whole)


def test_multiples_of_usual_numbers_are_taken():
    schema = {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.01},
                                               "b": {"type": "integer", "multipleOf": 60}}}  # fmt: skip
    assert model_of().matcher(Grammar.json_schema(schema)).mask().any()


def test_matchers_of_one_grammar_do_not_share_their_place():
    first, other = (model_of().matcher(FORMS["regex"]) for _ in range(2))
    start = first.mask()
    token = int(np.flatnonzero(unpacked(start, 260))[0])
    first.took(token)
    assert (other.mask() == start).all()
    assert (model_of().matcher(FORMS["regex"]).mask() == start).all()
    other.took(token)
    assert (first.mask() == other.mask()).all()


def test_what_does_not_go_with_a_grammar():
    for changes in ({"stop_tokens": ()}, {"sampling": replace(DRAWN, min_tokens=2)}):
        with pytest.raises(InputError, match="where the answer ends"):
            Completion(model_of(), Request(prompt="a", grammar=FORMS["regex"], **changes))


def test_one_that_becomes_too_complex_fails_alone():
    """Others that are under way go on to the same answers."""
    scheduler = Scheduler(Engine(model_of().forward, 2, most=512))
    other = Completion(model_of(), Request(prompt="b", sampling=DRAWN, max_tokens=20))
    broken = Completion(model_of(), Request(prompt="a", sampling=DRAWN, grammar=FORMS["regex"]))
    matcher, calls = broken.generation.matcher, []

    class Failing:
        def mask(self):
            calls.append(1)
            if len(calls) == 4:
                raise ReeError("grammar: too complex")
            return matcher.mask()

        took = matcher.took

    broken.generation.matcher = Failing()
    for a in (other, broken):
        scheduler.submit(a.generation)
    failed = None
    while other.finish is None:
        for g, token in scheduler.step():
            if g is other.generation:
                other.take(token)
                continue
            try:
                broken.take(token)
            except ReeError as e:
                failed = e.message
                scheduler.abort(g)
    assert failed == "grammar: too complex"
    alone, _ = Generator(model_of()).generate(Request(prompt="b", sampling=DRAWN, max_tokens=20))
    assert other.completion == alone.completion_tokens
