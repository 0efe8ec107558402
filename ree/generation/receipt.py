"""Receipts: what was asked, what a model answered, and the claim that anyone can check.

    digest = SHA-256(0x07 || version u32 || commitment || program || tokenizer id || template id
                     || SHA-256(request) || SHA-256(text) || finish u8 || prompt tokens u32 || drawn tokens u32
                     || previous digest)

`commitment` is that of the claim's history (traces/history.py), whose S0 and batches hold the request's
sampling and every token; the request is its canonical JSON: keys in order, no spaces. Who signs, signs
`ree.generation.receipt` NUL digest, or as an Ethereum account the typed data Receipt(bytes32 digest)
(EIP-712). Parts outside the digest (created, made_by) say what nobody can check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ree.errors import ReeError
from ree.generation.claim import Text
from ree.generation.grammar import Grammar
from ree.generation.layout import CHUNK
from ree.generation.receipt_schema import (
    EIP712,
    FINISHES,
    VERSION,
    receipt_problem,
    request_problem,
    sampling_of,
)
from ree.generation.request import NUMBERS, Sampling
from ree.signing_eip712 import typed
from ree.traces.encoding import RECEIPT, sha256, u8, u32
from ree.traces.history import History, RunHeader, StepRecord
from ree.traces.strict_json import strict_json

MAX_RECEIPT = 64 << 20
MAX_DEPTH = 80  # messages.MAX_DEPTH, and what calls and tools stand in
SIGNED = b"ree.generation.receipt\0"
NOTHING = bytes(32).hex()


@dataclass(frozen=True)
class ReceiptSignature:
    """Who stands for a receipt. alg: ed25519, by a key, or eip712, by the account of an address."""

    key: str
    signature: str
    alg: str = "ed25519"


@dataclass(frozen=True)
class Receipt:
    """A receipt; digests, keys and signatures in hexadecimal.

    request: messages or prompt (neither where tokens were given), tools, date, sampling, max_tokens, stop, ...
    records: (state root, batch digest) of every chunk, which lead to the roots; with a grammar also the hash
    of what it allowed, which is part of the batch.
    """

    numeric_id: str
    program: str  # the forward program
    instance: str  # the claim's step
    weights_root: str
    tokenizer: str
    template: str
    request: Mapping[str, Any]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    text: str
    finish: str
    initial_root: str
    records: tuple[tuple[str, ...], ...]
    commitment: str
    previous: str = NOTHING
    signatures: tuple[ReceiptSignature, ...] = ()
    created: str = ""
    made_by: Mapping[str, str] = field(default_factory=dict)
    stated: str = ""  # the digest that its file states

    @property
    def sampling(self) -> Sampling:
        return sampling_of(self.request["sampling"])

    @property
    def claimed(self) -> Text:
        """The tokens, and how they are claimed to have come about, but for what a grammar allowed."""
        tokens = (*self.prompt_tokens, *self.completion_tokens)
        return Text(
            tokens, len(self.prompt_tokens), self.sampling, tuple(self.request["stop_tokens"])
        )

    @property
    def grammar(self) -> Grammar | None:
        """What the answer was allowed to be."""
        g = self.request.get("grammar")
        return None if g is None else Grammar(g["kind"], g["text"])

    @property
    def history(self) -> History:
        """The history that the receipt says it commits to."""
        hexes = bytes.fromhex
        seed = self.sampling.seed
        assert seed is not None
        header = RunHeader(hexes(self.numeric_id), hexes(self.instance), hexes(self.weights_root),
                           hexes(self.initial_root), seed)  # fmt: skip
        return History(header, (StepRecord(hexes(s), 0, hexes(b)) for s, b, *_ in self.records))

    @property
    def digest(self) -> bytes:
        hexes = bytes.fromhex
        return sha256(
            RECEIPT, u32(VERSION), hexes(self.commitment), hexes(self.program),
            hexes(self.tokenizer), hexes(self.template),
            hashlib.sha256(canonical_json(self.request)).digest(),
            hashlib.sha256(self.text.encode()).digest(), u8(FINISHES.index(self.finish)),
            u32(len(self.prompt_tokens)), u32(len(self.completion_tokens)), hexes(self.previous),
        )  # fmt: skip

    def signed(self, key: Any) -> Receipt:
        """The receipt with the signature of a ree.signing.SigningKey."""
        return self._with(ReceiptSignature(key.key.hex(), key.sign(SIGNED + self.digest).hex()))

    def signed_by_account(self, key: Any) -> Receipt:
        """The receipt with the signature of a ree.settlement.keys.Key, which contracts can check."""
        address = key.address.lower().removeprefix("0x")
        signature = key.sign_typed(typed(self.digest)).hex()
        return self._with(ReceiptSignature(address, signature, EIP712))

    def _with(self, signature: ReceiptSignature) -> Receipt:
        return replace(self, signatures=(*self.signatures, signature))

    def to_json(self) -> bytes:
        """The receipt as a file holds it."""
        out = {
            k: getattr(self, k)
            for k in self.__dataclass_fields__
            if k not in ("signatures", "stated")
        }
        out["signatures"] = [vars(s) for s in self.signatures]
        out |= {"version": VERSION, "chunk": CHUNK, "digest": self.digest.hex()}
        return (
            json.dumps(out, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        ).encode()

    @classmethod
    def of(cls, raw: bytes) -> Receipt:
        """The receipt in a file, schema-checked; ReeError. Its digest is not checked here."""
        if len(raw) > MAX_RECEIPT:
            raise ReeError(f"a receipt has {len(raw)} bytes, expected at most {MAX_RECEIPT}")
        try:
            m = strict_json(raw, MAX_DEPTH)
            problem = receipt_problem(m)
            if not problem:
                canonical_json(m["request"])  # half a surrogate pair and infinities have none
        except (ValueError, RecursionError) as e:
            problem = f"not JSON: {str(e)[:80]}"
        if problem:
            raise ReeError(f"not a receipt: {problem}")
        m["signatures"] = tuple(ReceiptSignature(**s) for s in m["signatures"])
        m["records"] = tuple(map(tuple, m["records"]))
        for name in ("prompt_tokens", "completion_tokens"):
            m[name] = tuple(m[name])
        for name in ("version", "chunk"):
            del m[name]
        return cls(stated=m.pop("digest"), **m)


def canonical_json(value: Any) -> bytes:
    """JSON with keys in order and no spaces, UTF-8."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def receipt_problem_of(request: Any) -> str:
    """Why no receipt can hold a request, or nothing."""
    try:
        problem = request_problem(request)
        if not problem:
            canonical_json(request)
        return problem
    except (TypeError, ValueError, RecursionError) as e:
        return f"request: {str(e)[:200]}"


def request_of(sampling: Sampling, **rest: Any) -> dict[str, Any]:
    """A request as receipts keep it."""
    s: dict[str, Any] = {n: getattr(sampling, n) for n in NUMBERS}
    s["bias"] = {str(t): b for t, b in sorted(sampling.bias.items())}
    return {"sampling": s, **{k: v for k, v in rest.items() if v is not None}}
