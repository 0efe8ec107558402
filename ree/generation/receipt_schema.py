"""What a receipt's JSON must look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ree import signing, signing_eip712
from ree.errors import InputError
from ree.generation.grammar import Grammar
from ree.generation.layout import CHUNK
from ree.generation.request import NUMBERS, Sampling

REQUEST = {
    "sampling": dict,
    "max_tokens": int,
    "stop": list,
    "stop_tokens": list,
    "include_stop": bool,
}
OPTIONAL = {"messages": list, "prompt": str, "tools": list, "date": str, "grammar": dict}
DIGESTS = ("numeric_id", "program", "instance", "weights_root", "tokenizer", "template", "initial_root",
           "commitment", "previous", "digest")  # fmt: skip
TEXTS = ("text", "finish", "created")
# why a generation ended; the place is its number in a digest
FINISHES = (STOP, LENGTH, ABORTED, STOP_STRING) = ("stop", "length", "aborted", "stop_string")
KEYS = {*DIGESTS, *TEXTS, "request", "prompt_tokens", "completion_tokens", "records", "signatures", "made_by",
        "version", "chunk"}  # fmt: skip
VERSION = 2
ED25519, EIP712 = "ed25519", "eip712"
# bytes of a key (an account's address) and of a signature
ALGORITHMS = {
    ED25519: (signing.KEY_BYTES, signing.SIGNATURE_BYTES),
    EIP712: (signing_eip712.ADDRESS_BYTES, signing_eip712.SIGNATURE_BYTES),
}
MOST_ID = 2**31  # no token's number is as great
MOST_TOKENS, MOST_SIGNATURES, MOST_STOPS = 1 << 20, 16, 128


def receipt_problem(m: Any) -> str:
    """What is wrong with a receipt, or nothing."""
    if not isinstance(m, dict) or set(m) != KEYS:
        odd = sorted(set(m) ^ KEYS)[:4] if isinstance(m, dict) else []
        return f"its keys are not those of a receipt ({', '.join(map(str, odd))[:100]})"
    if m["version"] != VERSION or m["chunk"] != CHUNK:
        return f"expected version {VERSION} with chunks of {CHUNK}"
    for name in DIGESTS:
        if not is_hex(m[name], 32):
            return f"{name}: expected 64 hexadecimal digits"
    for name in TEXTS:
        if not _is_text(m[name]):
            return f"{name}: expected text"
    if m["finish"] not in FINISHES:
        return f"finish: expected one of {', '.join(FINISHES)}"
    for name in ("prompt_tokens", "completion_tokens"):
        if not is_tokens(m[name], MOST_TOKENS):
            return f"{name}: expected token ids"
    count = len(m["prompt_tokens"]) + len(m["completion_tokens"])
    if not m["prompt_tokens"] or count > MOST_TOKENS:
        return f"tokens: expected a prompt, and at most {MOST_TOKENS}"
    records = m["records"]
    if not isinstance(records, list) or len(records) != -(-count // CHUNK):
        return f"records: expected one for every {CHUNK} tokens"
    masked = isinstance(m["request"], dict) and "grammar" in m["request"]
    if not all(
        isinstance(r, list) and len(r) == 2 + masked and all(is_hex(x, 32) for x in r)
        for r in records
    ):
        return f"records: expected {'three' if masked else 'two'} digests each"
    if not isinstance(m["made_by"], dict) or not all(
        map(_is_text, (*m["made_by"], *m["made_by"].values()))
    ):
        return "made_by: expected texts by name"
    signatures = m["signatures"]
    if not isinstance(signatures, list) or len(signatures) > MOST_SIGNATURES:
        return f"signatures: expected at most {MOST_SIGNATURES}"
    for s in signatures:
        if (
            not isinstance(s, dict)
            or set(s) != {"alg", "key", "signature"}
            or not isinstance(s["alg"], str)
            or s["alg"] not in ALGORITHMS
        ):
            return f"signatures: expected alg {' or '.join(ALGORITHMS)}, key and signature"
        key, signature = ALGORITHMS[s["alg"]]
        if not is_hex(s["key"], key) or not is_hex(s["signature"], signature):
            return f"signatures: of {s['alg']}, expected {key} and {signature} bytes in hexadecimal"
    return request_problem(m["request"])


def request_problem(r: Any) -> str:
    """What is wrong with a receipt's request, or nothing."""
    if not isinstance(r, dict) or set(r) - set(OPTIONAL) != set(REQUEST):
        return f"request: expected {', '.join(sorted(REQUEST))}"
    for name, kind in (REQUEST | OPTIONAL).items():
        if name in r and type(r[name]) is not kind:
            return f"request: {name}: expected {kind.__name__}"
    if "messages" in r and "prompt" in r:
        return "request: expected messages or a prompt, got both"
    if "messages" not in r and ("tools" in r or "date" in r):
        return "request: tools and date go with messages"  # without a template nobody reads them
    if not 0 <= r["max_tokens"] < 2**31:
        return "request: max_tokens: expected 0 to 2^31 - 1"
    if len(r["stop"]) > MOST_STOPS or not all(isinstance(s, str) and s for s in r["stop"]):
        return "request: stop: expected texts"
    if not is_tokens(r["stop_tokens"], MOST_STOPS):
        return "request: stop_tokens: expected token ids"
    try:
        if "grammar" in r:
            g = r["grammar"]
            if set(g) != {"kind", "text", "library"} or not all(map(_is_text, g.values())):
                return "request: grammar: expected kind, text and library"
            Grammar(g["kind"], g["text"])
    except InputError as e:
        return f"request: {e.message}"
    s = r["sampling"]
    if set(s) != {*NUMBERS, "bias"}:
        return f"request: sampling: expected {', '.join(NUMBERS)}, bias"
    bias = s["bias"]
    if not isinstance(bias, dict) or not all(
        t.isascii() and t.isdecimal() and len(t) < 11 and t == str(int(t)) for t in bias
    ):
        return "request: bias: expected numbers by token"
    try:
        sampling_of(s).check(MOST_ID)
    except InputError as e:
        return f"request: sampling: {e.message}"
    return ""


def sampling_of(s: Mapping[str, Any]) -> Sampling:
    """The sampling of a request as receipts keep it."""
    return Sampling(**{n: s[n] for n in NUMBERS}, bias={int(t): b for t, b in s["bias"].items()})


def is_hex(v: Any, nbytes: int) -> bool:
    """Whether a value is so many bytes in lower-case hexadecimal."""
    return isinstance(v, str) and len(v) == 2 * nbytes and all(c in "0123456789abcdef" for c in v)


def is_tokens(v: Any, most: int) -> bool:
    """Whether a value is a list of at most so many token ids."""
    return (
        isinstance(v, list)
        and len(v) <= most
        and all(type(t) is int and 0 <= t < MOST_ID for t in v)
    )


def _is_text(v: Any) -> bool:
    try:
        return isinstance(v, str) and bool(v.encode() or True)
    except UnicodeEncodeError:
        return False
