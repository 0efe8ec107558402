"""Structured output on SmolLM2-135M: python benchmarks/json_schemas.py [ART.ree].

Twenty schemas as applications write them, each asked for in a chat at temperature 0 and once at temperature 1,
within MOST tokens. Every answer has to be JSON that its schema allows, by a check of its own (`wrong`) and not
by the library that guided it. Writes benchmarks/results/json_schemas.json.
"""

import json
import re
import sys
from pathlib import Path

from ree.generation import grammar
from ree.generation.generator import Generator, Request
from ree.generation.grammar import Grammar
from ree.generation.model import LanguageModel, compile_model
from ree.generation.models import smollm2_path
from ree.generation.request import Sampling

RESULTS = Path(__file__).parent / "results" / "json_schemas.json"
MOST = 300  # tokens of an answer
NAME = {"type": "string", "maxLength": 24}
WORD = {"type": "string", "pattern": "^[a-z]{2,12}$"}
LEVEL = {"enum": ["low", "medium", "high"]}


def of(*optional, **properties):
    """A schema of an object; `optional` are names of properties that may be left out."""
    return {"type": "object", "properties": properties, "additionalProperties": False,
            "required": [k for k in properties if k not in optional]}  # fmt: skip


def listed(items, low, high, **more):
    return {"type": "array", "items": items, "minItems": low, "maxItems": high} | more


def whole(low, high):
    return {"type": "integer", "minimum": low, "maximum": high}


PLACE = of(lat={"type": "number", "minimum": -90, "maximum": 90},
           lon={"type": "number", "minimum": -180, "maximum": 180})  # fmt: skip
# not a schema that names itself: a small model goes deeper until its tokens end
NODES = {
    "leaf": of(name=WORD),
    "branch": of(name=WORD, leaves=listed({"$ref": "#/$defs/leaf"}, 1, 2)),
}
SCHEMAS = {
    "the mood of a review": of(mood={"enum": ["positive", "negative", "neutral"]}),
    "a person": of(name=NAME, age=whole(0, 120),
                   email={"type": "string", "pattern": "^[a-z]{1,9}@[a-z]{1,9}\\.com$"}),
    "a list of fruits": listed(WORD, 2, 5),
    "a yes or a no with its reason": of(answer={"type": "boolean"}, reason={"type": "string", "maxLength": 60}),
    "a date": of(date={"type": "string", "pattern": "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"}),
    "an order": of(id=whole(1, 99999), items=listed(of(name=NAME, count=whole(1, 9)), 1, 3),
                   paid={"type": "boolean"}),
    "a number or a text": {"anyOf": [whole(0, 9), of(text=WORD)]},
    "a shape": {"anyOf": [of(kind={"const": "circle"}, radius=whole(1, 99)),
                          of(kind={"const": "square"}, side=whole(1, 99))]},
    "a tree": {"$defs": NODES, **of(root=WORD, branches=listed({"$ref": "#/$defs/branch"}, 1, 2))},
    "a city": of(name=NAME, country={"type": "string", "pattern": "^[A-Z]{2}$"}, place=PLACE),
    "a call of a function": of(name={"const": "get_weather"}, arguments=of(
        "unit", city=NAME, unit={"enum": ["celsius", "fahrenheit"]})),
    "a task": of("due", title=NAME, priority=LEVEL, due={"type": ["string", "null"], "maxLength": 10},
                 tags=listed(WORD, 0, 3)),
    "a matrix": listed(listed(whole(-9, 9), 2, 2), 2, 2),
    "colours": listed({"type": "string", "pattern": "^#[0-9a-f]{6}$"}, 1, 3),
    "a quiz": of(question={"type": "string", "maxLength": 60}, options=listed(NAME, 4, 4), right=whole(0, 3)),
    "an address": {"$defs": {"street": of(name=NAME, number=whole(1, 999))},
                   **of(street={"$ref": "#/$defs/street"}, zip={"type": "string", "pattern": "^[0-9]{5}$"})},
    "a nothing or a level": of(level={"anyOf": [LEVEL, {"type": "null"}]}, score={"enum": [0, 0.5, 1]}),
    "deep objects": of(a=of(b=of(c=of(d=of(e={"type": "boolean"}))))),
    "a pair": {"type": "array", "prefixItems": [WORD, whole(0, 9)], "items": False,
               "minItems": 2, "maxItems": 2},
    "entities": of(entities=listed(of(text=NAME, type={"enum": ["person", "place", "date"]},
                                      begin=whole(0, 500)), 1, 3), language={"enum": ["en", "de", "fr"]}),
}  # fmt: skip
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def has_type(x, kind):
    if kind in ("integer", "number"):
        number = isinstance(x, int | float) and not isinstance(x, bool)
        return number and (kind == "number" or x == int(x))
    return isinstance(x, TYPES[kind])


def wrong(x, s, root):
    """What a schema does not allow of a value, or None; KeyError for a keyword that is not known here."""
    if isinstance(s, bool):
        return None if s else "nothing may be here"
    checks = {
        "$defs": lambda d: True,
        "$ref": lambda r: not wrong(x, root["$defs"][r.removeprefix("#/$defs/")], root),
        "additionalProperties": lambda a: a is False and x.keys() <= s["properties"].keys(),
        "anyOf": lambda each: any(not wrong(x, e, root) for e in each),
        "const": lambda c: x == c and type(x) is type(c),
        "enum": lambda each: any(x == e and isinstance(x, str) == isinstance(e, str) for e in each),
        "items": lambda i: not any(wrong(e, i, root) for e in x[len(s.get("prefixItems", ())) :]),
        "maximum": lambda m: x <= m,
        "maxItems": lambda n: len(x) <= n,
        "maxLength": lambda n: x is None or len(x) <= n,
        "minimum": lambda m: x >= m,
        "minItems": lambda n: len(x) >= n,
        "pattern": lambda p: re.search(p, x) is not None,
        "prefixItems": lambda each: not any(wrong(e, i, root) for e, i in zip(x, each, strict=False)),
        "properties": lambda p: not any(wrong(x[k], v, root) for k, v in p.items() if k in x),
        "required": lambda names: x.keys() >= set(names),
    }  # fmt: skip
    kinds = s.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(has_type(x, k) for k in kinds):
        return f"{x!r} is none of {kinds}"
    return next((k for k in s if k != "type" and not checks[k](s[k])), None)


def checked_to_fail():
    """The check can fail: each of these is not allowed."""
    bad = [("a list of fruits", ["a"]), ("a list of fruits", ["ok", "No"]), ("a person", {"name": "x"}),
           ("the mood of a review", {"mood": "good"}), ("a matrix", [[1, 2], [3, 10]]),
           ("a shape", {"kind": "circle"}),
           ("a tree", {"root": "ab", "branches": [{"name": "ab", "leaves": [{"name": 1}]}]}),
           ("a pair", ["ab", 1, 2]),
           ("deep objects", {"a": {"b": {"c": {"d": {"e": 1}}}}}), ("a date", {"date": "2024-13-01"}),
           ("a yes or a no with its reason", {"answer": True, "reason": "", "more": 1})]  # fmt: skip
    for name, value in bad:
        assert wrong(value, SCHEMAS[name], SCHEMAS[name]), (name, value)


def main():
    checked_to_fail()
    path = sys.argv[1] if len(sys.argv) > 1 else None
    model = LanguageModel.load(path) if path else LanguageModel(compile_model(smollm2_path()))
    generator, failed, answers = Generator(model), [], {}
    for name, schema in SCHEMAS.items():
        said = [{"role": "user", "content": f"Give me {name} as JSON."}]
        for temperature in (0.0, 1.0):
            sampling = Sampling(temperature=temperature, seed=1)
            request = Request(messages=said, sampling=sampling, max_tokens=MOST,
                              grammar=Grammar.json_schema(schema), date="2026-01-31")  # fmt: skip
            receipt, _ = generator.generate(request)
            try:
                problem = wrong(json.loads(receipt.text), schema, schema)
            except ValueError as e:
                problem = str(e)
            if problem is not None or receipt.finish != "stop":
                failed.append(f"{name}, temperature {temperature}: {problem}: {receipt.text[:80]}")
            if not temperature:
                answers[name] = receipt.text
    out = {"model": model.settings.name, "library": grammar.library(), "schemas": len(SCHEMAS),
           "passed": 2 * len(SCHEMAS) - len(failed), "failed": len(failed), "answers": answers}  # fmt: skip
    print(json.dumps(out, indent=1, ensure_ascii=False))
    print(*failed, sep="\n", file=sys.stderr)
    if failed:
        raise SystemExit(1)
    RESULTS.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
