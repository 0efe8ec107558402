"""tokenizer.json read without trust: only parts whose time and growth are known are admitted.

The library that runs a tokenizer takes what it is given: a regular expression may take for ever, a chain of
replacements may blow a text up without end, dropout draws random numbers. Each is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ree.errors import ReeError
from ree.generation.patterns import ADMITTED
from ree.traces.strict_json import strict_json

MAX_BYTES = 64 << 20
MAX_IDS = 1 << 22
MAX_ADDED = 1 << 17
MAX_TOKEN = 1 << 12
MAX_PIECE = 64  # characters of a token of Unigram, which are all tried at every place of a text
MAX_WORD = 256  # characters of a word that WordPiece cuts, in time that grows as their square
MAX_PARTS = 16
MAX_SCORE = 1e6
MAX_GROWTH = 64  # how much longer, in characters, normalising may make a text

Json = Mapping[str, Any]

_TOP = {
    "version",
    "truncation",
    "padding",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "model",
}
_ADDED = {
    "id": "int",
    "content": "str",
    "single_word": "bool",
    "lstrip": "bool",
    "rstrip": "bool",
    "normalized": "bool",
    "special": "bool",
}
# fields of each part, and of what kind; "?" after a kind: null is allowed too
_NORMALIZERS = {
    "NFC": {},
    "NFD": {},
    "NFKC": {},
    "NFKD": {},
    "Lowercase": {},
    "StripAccents": {},
    "Nmt": {},
    "ByteLevel": {},
    "Strip": {"strip_left": "bool", "strip_right": "bool"},
    "Prepend": {"prepend": "str"},
    "Replace": {"pattern": "pattern", "content": "str"},
    "BertNormalizer": {
        "clean_text": "bool",
        "handle_chinese_chars": "bool",
        "strip_accents": "bool?",
        "lowercase": "bool",
    },
    "Sequence": {"normalizers": "parts"},
}
_PRE_TOKENIZERS = {
    "Whitespace": {},
    "WhitespaceSplit": {},
    "BertPreTokenizer": {},
    "UnicodeScripts": {},
    "ByteLevel": {"add_prefix_space": "bool", "trim_offsets": "bool", "use_regex": "bool"},
    "Digits": {"individual_digits": "bool"},
    "Punctuation": {"behavior": "str"},
    "CharDelimiterSplit": {"delimiter": "char"},
    "Metaspace": {
        "replacement": "char",
        "prepend_scheme": "str",
        "split": "bool",
        "add_prefix_space": "bool?",
        "str_rep": "str?",
    },
    "Split": {"pattern": "pattern", "behavior": "str", "invert": "bool"},
    "Sequence": {"pretokenizers": "parts"},
}
_PAIR = {"sep": "pair", "cls": "pair"}
_POST_PROCESSORS = {
    "ByteLevel": _PRE_TOKENIZERS["ByteLevel"],
    "BertProcessing": _PAIR,
    "RobertaProcessing": {**_PAIR, "trim_offsets": "bool", "add_prefix_space": "bool"},
    "TemplateProcessing": {"single": "pieces", "pair": "pieces", "special_tokens": "specials"},
    "Sequence": {"processors": "parts"},
}
_DECODERS = {
    "ByteLevel": _PRE_TOKENIZERS["ByteLevel"],
    "ByteFallback": {},
    "Fuse": {},
    "Metaspace": _PRE_TOKENIZERS["Metaspace"],
    "Replace": {"pattern": "pattern", "content": "str"},
    "Strip": {"content": "char", "start": "int", "stop": "int"},
    "WordPiece": {"prefix": "str", "cleanup": "bool"},
    "Sequence": {"decoders": "parts"},
}
_MODELS = {
    "BPE": {
        "dropout": "null",
        "unk_token": "str?",
        "continuing_subword_prefix": "str?",
        "end_of_word_suffix": "str?",
        "fuse_unk": "bool",
        "byte_fallback": "bool",
        "ignore_merges": "bool",
        "vocab": "vocab",
        "merges": "merges",
    },
    "Unigram": {"vocab": "scored", "unk_id": "int?", "byte_fallback": "bool"},
    "WordLevel": {"vocab": "vocab", "unk_token": "str"},
    "WordPiece": {
        "unk_token": "str",
        "continuing_subword_prefix": "str",
        "max_input_chars_per_word": "short",
        "vocab": "vocab",
    },
}
# what stands for a field that a file leaves out, as the library reads it
_LEFT_OUT = {
    "use_regex",
    "trim_offsets",
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "unk_id",
    "ignore_merges",
    "add_prefix_space",
    "str_rep",
    "prepend_scheme",
    "split",
    "replacement",
    "strip_accents",
    "invert",
    "single_word",
    "lstrip",
    "rstrip",
    "normalized",
    "special",
    "special_tokens",
    "pair",
}


def read_tokenizer(raw: bytes) -> dict[str, Any]:
    """The parts of a tokenizer.json, each checked; ReeError, one line, for the first that is not admitted."""
    if len(raw) > MAX_BYTES:
        raise ReeError(f"tokenizer.json has {len(raw)} bytes, expected at most {MAX_BYTES}")
    try:
        whole = strict_json(raw)
    except (ValueError, RecursionError) as e:
        raise ReeError(f"tokenizer.json is not JSON: {e}") from e
    if (
        not isinstance(whole, dict)
        or not {"added_tokens", "model", "decoder"} <= whole.keys() <= _TOP
    ):
        raise ReeError(f"tokenizer.json has other parts than {', '.join(sorted(_TOP))}")
    if whole.get("version", "1.0") != "1.0":
        raise ReeError("tokenizer.json is of another version than 1.0")
    for name, kinds in (
        ("normalizer", _NORMALIZERS),
        ("pre_tokenizer", _PRE_TOKENIZERS),
        ("post_processor", _POST_PROCESSORS),
        ("decoder", _DECODERS),
        ("model", _MODELS),
    ):
        if whole.get(name) is not None:
            _part(whole[name], kinds, name, 0)
    if whole["decoder"] is None or whole["model"] is None:
        raise ReeError("tokenizer.json has no model or no decoder")
    _added(whole["added_tokens"])
    growth = 1
    for part in parts_of(whole.get("normalizer")):
        growth *= _growth(part)
    if growth > MAX_GROWTH:
        raise ReeError(
            f"tokenizer.json: its normalizer can make a text over {MAX_GROWTH} times longer"
        )
    return whole


def parts_of(part: Json | None) -> list[Json]:
    """A part's own parts if it is a sequence, else itself alone."""
    if part is None:
        return []
    inner = next(
        (part[k] for k in ("normalizers", "pretokenizers", "processors", "decoders") if k in part),
        None,
    )
    return [part] if inner is None else [p for x in inner for p in parts_of(x)]


def _growth(part: Json) -> int:
    kind = part["type"]
    if kind == "Replace":
        least = len(part["pattern"].get("String", "x"))
        return max(1, -(-len(part["content"]) // least))
    if kind == "Prepend":
        return 1 + len(part["prepend"]) // 8 if len(part["prepend"]) > 8 else 1
    return {
        "NFKC": 18,
        "NFKD": 18,
        "NFD": 4,
        "NFC": 3,
        "BertNormalizer": 4,
        "Lowercase": 3,
        "ByteLevel": 4,
        "StripAccents": 1,
    }.get(kind, 1)


def _part(part: Any, kinds: Mapping[str, Mapping[str, str]], where: str, depth: int) -> None:
    kind = part.get("type", "BPE" if where == "model" else None) if isinstance(part, dict) else None
    fields = kinds.get(kind) if isinstance(kind, str) else None
    if fields is None or depth > 2:
        raise ReeError(
            f"tokenizer.json: a {where} of type {str(kind)[:40]} is not supported",
            f"supported: {', '.join(kinds)}",
        )
    if extra := part.keys() - fields.keys() - {"type"}:
        raise ReeError(f"tokenizer.json: {where} {kind} has an unknown field {min(extra)[:40]}")
    for name, of in fields.items():
        if name not in part and name in _LEFT_OUT:
            continue
        value = part.get(name)
        if of == "parts":
            if not isinstance(value, list) or len(value) > MAX_PARTS:
                raise ReeError(
                    f"tokenizer.json: {where} {kind} has no list of at most {MAX_PARTS} parts"
                )
            for x in value:
                _part(x, kinds, where, depth + 1)
        elif not (value is None and of.endswith("?")) and not _KINDS[of.rstrip("?")](value):
            raise ReeError(
                f"tokenizer.json: {where} {kind}: {name} is not supported: {str(value)[:60]!r}"
            )


def _text(x: Any) -> bool:
    return _texts((x,))


def _texts(xs: Collection[Any]) -> bool:
    """Whether all are text of scalar values, not too long. As a whole: there may be a million of them."""
    if not all(type(x) is str for x in xs) or max(map(len, xs), default=0) > MAX_TOKEN:
        return False
    try:
        "\n".join(xs).encode()  # not side by side: two halves of a pair would be one character
    except UnicodeEncodeError:
        return False
    return True


def _id(x: Any) -> bool:
    return type(x) is int and 0 <= x < MAX_IDS


def _pattern(x: Any) -> bool:
    """Text as it is, or one of the expressions that are known."""
    if not isinstance(x, dict) or len(x) != 1:
        return False
    return (_text(x.get("String")) and x["String"] != "") or (
        isinstance(x.get("Regex"), str) and x["Regex"] in ADMITTED
    )


def _pieces(x: Any) -> bool:
    if not isinstance(x, list) or len(x) > MAX_PARTS:
        return False
    inner = [(k, v) for p in x if isinstance(p, dict) and len(p) == 1 for k, v in p.items()]
    return len(inner) == len(x) and all(
        k in ("SpecialToken", "Sequence")
        and isinstance(v, dict)
        and v.keys() == {"id", "type_id"}
        and _text(v["id"])
        and (k == "SpecialToken" or v["id"] in ("A", "B"))
        and _id(v["type_id"])
        for k, v in inner
    )


def _specials(x: Any) -> bool:
    return (
        isinstance(x, dict)
        and len(x) <= MAX_PARTS
        and all(
            isinstance(v, dict)
            and v.keys() == {"id", "ids", "tokens"}
            and v["id"] == k
            and isinstance(v["ids"], list)
            and isinstance(v["tokens"], list)
            and len(v["ids"]) == len(v["tokens"]) <= MAX_PARTS
            and all(map(_id, v["ids"]))
            and all(map(_text, v["tokens"]))
            for k, v in x.items()
        )
    )


def _scored(x: Any) -> bool:
    """Tokens with the logarithm of how likely each is, in the order of their ids."""
    if not isinstance(x, list) or not 0 < len(x) <= MAX_IDS:
        return False
    if not all(isinstance(p, list) and len(p) == 2 for p in x):
        return False
    tokens, scores = zip(*x, strict=True)
    return (
        _texts(tokens)
        and max(map(len, tokens)) <= MAX_PIECE
        and len(set(tokens)) == len(tokens)
        and all(type(y) in (int, float) and abs(y) < MAX_SCORE for y in scores)
    )


def _merges(x: Any) -> bool:
    if not isinstance(x, list) or len(x) > MAX_IDS:
        return False
    joined = [m for m in x if isinstance(m, str)]
    pairs = [m for m in x if not isinstance(m, str)]
    return (
        all(m.count(" ") == 1 for m in joined)
        and all(isinstance(m, list) and len(m) == 2 for m in pairs)
        and _texts(joined)
        and _texts([t for m in pairs for t in m])
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda x: x is None,
    "bool": lambda x: isinstance(x, bool),
    "int": _id,
    "short": lambda x: _id(x) and x <= MAX_WORD,
    "str": _text,
    "char": lambda x: _text(x) and len(x) == 1,
    "pattern": _pattern,
    "pair": lambda x: isinstance(x, list) and len(x) == 2 and _text(x[0]) and _id(x[1]),
    "pieces": _pieces,
    "specials": _specials,
    "vocab": lambda x: (
        isinstance(x, dict)
        and len(x) <= MAX_IDS
        and _texts(x)
        and all(map(_id, x.values()))
        and len(set(x.values())) == len(x)
    ),
    "scored": _scored,
    "merges": _merges,
}


def _added(tokens: Any) -> None:
    if not isinstance(tokens, list) or len(tokens) > MAX_ADDED:
        raise ReeError(f"tokenizer.json has no list of at most {MAX_ADDED} added tokens")
    seen: set[str] = set()
    for t in tokens:
        if (
            not isinstance(t, dict)
            or not {"id", "content"} <= t.keys() <= _ADDED.keys()
            or not all(_KINDS[_ADDED[k]](x) for k, x in t.items())
            or not t["content"]
            or t["content"] in seen
        ):
            raise ReeError(
                f"tokenizer.json: an added token is malformed, empty or there twice: {str(t)[:80]!r}"
            )
        seen.add(t["content"])
