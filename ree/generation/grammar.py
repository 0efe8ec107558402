"""Structured output: which tokens a grammar allows next, by the library llguidance.

A grammar is a function of tokens and stands outside of the numeric contract: what it allowed is an input of a
claim, and `ree verify` makes it again. Grammars come from strangers: their size is bounded here, the work for
a mask by the library's own limits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.errors import InputError, PlatformError
from ree.printable import printable

if TYPE_CHECKING:
    from ree.kernels.opdef import Array

JSON_SCHEMA, REGEX, LARK = KINDS = ("json_schema", "regex", "lark")
MAX_GRAMMAR = 1 << 16  # bytes of its text
LEXER_FUEL = 200_000  # of the work before the first token: some seconds, and some hundred megabytes
MAX_MULTIPLE = 1 << 16
MAX_DIGITS = 20
# no spaces where JSON needs none: a weak model could write them without end
JSON_OPTIONS = {"whitespace_flexible": False}


class GrammarError(InputError):
    """A grammar that is none, or that this model cannot follow."""


@dataclass(frozen=True)
class Grammar:
    """A grammar: kind is one of KINDS, text a JSON schema, a regular expression, or llguidance's form of Lark.

    GrammarError for another kind, and for a text that is empty or over MAX_GRAMMAR bytes.
    """

    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise GrammarError(
                f"grammar: expected one of {', '.join(KINDS)}, got {self.kind!r:.40}"
            )
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError as e:
            raise GrammarError(f"grammar: half a surrogate pair at {e.start}") from e
        if not 0 < size <= MAX_GRAMMAR:
            raise GrammarError(f"grammar: expected 1 to {MAX_GRAMMAR} bytes, got {size}")
        if _common_multiple(self.text) > MAX_MULTIPLE:
            raise GrammarError(f"grammar: multipleOf, all of them together: expected digits whose least common "
                             f"multiple is at most {MAX_MULTIPLE}")  # fmt: skip

    @classmethod
    def json_schema(cls, schema: Any) -> Grammar:
        """The JSON documents of a schema, their keys in its order."""
        return cls(JSON_SCHEMA, json.dumps(schema, ensure_ascii=False, separators=(",", ":")))

    @classmethod
    def choice(cls, texts: Iterable[str]) -> Grammar:
        """One of some texts."""
        return cls(LARK, f"start: {' | '.join(map(_literal, texts))}")

    @classmethod
    def calls(
        cls,
        before: str,
        after: str,
        tools: Iterable[Mapping[str, Any]],
        encode: Callable[[str], Sequence[int]],
    ) -> Grammar:
        """One call of one of some tools between two texts, on lines of their own; tools: messages.py.

        encode: a text's tokens. A text that the vocabulary holds as one token is that token: models were
        trained on it, and the library takes its letters for other tokens.
        """
        each = [
            _object(name={"const": f["name"]}, arguments=f.get("parameters") or {"type": "object"})
            for f in (t["function"] for t in tools)
        ]
        schema = each[0] if len(each) == 1 else {"anyOf": each}
        options = {"x-guidance": JSON_OPTIONS}
        first, last = (_of_tokens(t, encode(t)) for t in (before, after))
        text = f'start: {first} "\\n" call "\\n" {last}\ncall: %json {json.dumps(options | schema)}'
        return cls(LARK, text)

    def kept(self) -> dict[str, str]:
        """As a receipt keeps it, with the library that reads it."""
        return {"kind": self.kind, "text": self.text, "library": library()}


def _common_multiple(text: str) -> int:
    """Of the digits of each number that a schema, wherever it stands, wants multiples of: the library counts
    remainders, so that time and memory grow with it, and nothing bounds them."""
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
    out = 1
    for number in re.findall(r'"multipleOf"\s*:\s*-?([0-9.]+)', plain):
        out = math.lcm(out, int(number.replace(".", "").strip("0")[:MAX_DIGITS] or 1))
        if out > MAX_MULTIPLE:
            break
    return out


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties),
            "additionalProperties": False}  # fmt: skip


def _literal(text: str) -> str:
    """A text as a literal of Lark."""
    return json.dumps(text)


def _of_tokens(text: str, tokens: Sequence[int]) -> str:
    """A text in Lark, by its token if it is one."""
    return f"<[{tokens[0]}]>" if len(tokens) == 1 else _literal(text)


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as e:
        raise PlatformError("grammars need llguidance", "pip install 'ree-ml[generate]'") from e
    return llguidance


def library() -> str:
    """Name and version of the library."""
    return f"llguidance {_llguidance().__version__}"


class GrammarTokens:
    """A tokenizer as the library wants it; stop: the tokens that end an answer, GrammarError for none."""

    def __init__(self, tokenizer_json: bytes, vocabulary: int, stop: Sequence[int]) -> None:
        if not stop:
            raise GrammarError("the model has no token that ends an answer, which a grammar needs")
        self.vocabulary = vocabulary
        try:
            self.of_library = _llguidance().LLTokenizer(
                tokenizer_json.decode(), n_vocab=vocabulary, eos_token=list(stop)
            )
        except (ValueError, TypeError, RuntimeError, OverflowError) as e:
            raise GrammarError(f"grammars do not take this tokenizer: {str(e)[:200]!r}") from e


class Matcher:
    """Follows one answer. ReeError, one line, for a grammar that has no text, or is too complex."""

    def __init__(self, grammar: Grammar, tokens: GrammarTokens) -> None:
        make, text = _llguidance().LLMatcher, grammar.text
        try:
            if grammar.kind == JSON_SCHEMA:
                text = make.grammar_from_json_schema(text, overrides=JSON_OPTIONS)
            elif grammar.kind == REGEX:
                text = make.grammar_from_regex(text)
            else:
                text = make.grammar_from_lark(text)
        except ValueError as e:
            raise GrammarError(f"grammar: {_line(str(e))}") from e
        limits = _llguidance().LLParserLimits(initial_lexer_fuel=LEXER_FUEL)
        self._matcher = make(tokens.of_library, text, log_level=0, limits=limits)
        self._bytes = -(-tokens.vocabulary // 8)
        if not self.mask().any():
            raise GrammarError("grammar: no text has its form")

    def copy(self) -> Matcher:
        """Another one at the same place."""
        out = copy(self)
        out._matcher = self._matcher.deep_copy()
        return out

    def mask(self) -> Array:
        """u8: a bit for each token of the vocabulary, set where the grammar allows it."""
        raw = self._matcher.compute_bitmask()
        self._check()
        return np.frombuffer(raw, np.uint8)[: self._bytes].copy()

    def took(self, token: int) -> None:
        """A token was drawn."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"grammar: {_line(self._matcher.get_error())}")


def _line(text: str) -> str:
    """The reason in what the library says, on one line, bounded, of signs that print."""
    lines = [x for x in text.splitlines() if x.strip()] or ["no reason given"]
    # of a regular expression the reason stands behind a picture of the place, which is indented
    said = next((x for x in reversed(lines) if x.startswith("error: ")), lines[0])
    said = said.strip().removeprefix("error: ")
    if said == "NoExtensionBias":
        said = "no text has its form"
    return printable(said[:200])
