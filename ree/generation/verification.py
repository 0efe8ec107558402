"""Checking receipts: what they say of themselves, of the model, of the text, and of every token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from ree.errors import InputError, ReeError
from ree.generation.claim import Text, claim_of, claim_step, header_of
from ree.generation.engine import ROWS, Engine
from ree.generation.grammar import library
from ree.generation.layout import CHUNK
from ree.generation.model import LanguageModel
from ree.generation.receipt import SIGNED, Receipt
from ree.generation.receipt_schema import EIP712, LENGTH, STOP, STOP_STRING
from ree.generation.sampler import Drawing, drawn
from ree.generation.streams import StopStrings, TextStream
from ree.kernels.opdef import Array
from ree.runtime.hashing import hash_array
from ree.runtime.sampler import Sampler
from ree.signing import is_signed
from ree.signing_eip712 import is_signed_by
from ree.traces.history import batch_digest


class Level(IntEnum):
    """How far a check goes; each goes as far as the one before, and on."""

    SIGNATURE = 1  # digests and signatures, without the model
    TEXT = 2  # prompt and answer from the tokens, without computing
    TOKENS = 3  # every token and what is kept of it, by reading the text


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a receipt. position: of the first wrong token, if it is one; chunk 1, 2, ..."""

    what: str
    position: int | None = None
    chunk: int | None = None


def check_receipt(
    receipt: Receipt, model: LanguageModel | None = None, level: Level = Level.TOKENS, *,
    threads: int | None = None, isa: str | None = None, progress: Callable[[int], None] | None = None,
) -> Flaw | None:  # fmt: skip
    """The first thing that is wrong with a receipt, or None.

    model: needed beyond Level.SIGNATURE. progress: called with the number of chunks that were read.
    """
    found = next(_of_itself(receipt), None)
    if found is not None or level is Level.SIGNATURE:
        return found
    if model is None:
        raise InputError("a receipt's text and tokens are checked with its model", "--artifact ART")
    found = next(_of_the_model(receipt, model), None) or next(_of_the_text(receipt, model), None)
    if found is not None:
        return found
    try:
        text = whole_claim(receipt, model)
    except WrongToken as e:
        return Flaw(e.message, e.position, drawn_in(e.position))
    except ReeError as e:
        return Flaw(e.message)
    found = next(_of_the_masks(receipt, text, model), None)
    if found is not None or level is Level.TEXT:
        return found
    return _of_the_tokens(receipt, text, model, threads, isa, progress)


class WrongToken(ReeError):
    """A token, by its position, that a grammar does not allow."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


def whole_claim(receipt: Receipt, model: LanguageModel) -> Text:
    """What a receipt claims, with what its grammar allowed; ReeError where that cannot be."""
    text, grammar = receipt.claimed, receipt.grammar
    if grammar is None:
        return text
    matcher, masks = model.matcher(grammar), []
    for at, token in enumerate(receipt.completion_tokens, text.prompt):
        masks.append(matcher.mask())
        try:
            matcher.took(token)
        except ReeError as e:
            raise WrongToken(at, f"token {at} is not one that the grammar allows") from e
    return replace(text, masks=masks)


def _of_the_masks(r: Receipt, text: Text, m: LanguageModel) -> Iterator[Flaw]:
    if text.masks is None:
        return
    for i, (_, _, stated) in enumerate(r.records, 1):
        _, allowed = text.inputs(i, m.forward.vocabulary)
        if hash_array(allowed).hex() != stated:
            made, here = r.request["grammar"]["library"], library()
            other = "" if made == here else f"; it was made with {made}, here is {here}"
            yield Flaw(f"grammar: in chunk {i} it allows other tokens{other}"[:400], chunk=i)


def _of_itself(r: Receipt) -> Iterator[Flaw]:
    if r.stated != r.digest.hex():
        yield Flaw(f"digest: its parts give {r.digest.hex()}, it states {r.stated}")
    for s in r.signatures:
        key, signature = bytes.fromhex(s.key), bytes.fromhex(s.signature)
        if s.alg == EIP712:
            good = is_signed_by(key, r.digest, signature)
        else:
            good = is_signed(key, SIGNED + r.digest, signature)
        if not good:
            yield Flaw(f"signature: not of key {s.key}")
    claimed = r.claimed
    for i, (_, batch, *masks) in enumerate(r.records, 1):
        parts = [hash_array(claimed.batch(i)), *map(bytes.fromhex, masks)]
        if batch_digest(parts).hex() != batch:
            yield Flaw(f"batch of chunk {i}: its tokens give another digest", chunk=i)
    got = r.history.commitment.hex()
    if got != r.commitment:
        yield Flaw(f"commitment: its history gives {got}, it states {r.commitment}")


def _of_the_model(r: Receipt, m: LanguageModel) -> Iterator[Flaw]:
    program = m.program
    for name, said, got in (
        ("program", r.program, program.program_hash.hex()),
        ("weights", r.weights_root, program.weights_root.hex()),
        ("tokenizer", r.tokenizer, m.tokenizer.id),
        ("template", r.template, m.template_id),
    ):
        if said != got:
            yield Flaw(f"{name}: the receipt is of {said}, the artifact has {got}")
    try:
        r.claimed.check(m.forward.vocabulary, m.settings.context)
    except InputError as e:
        yield Flaw(e.message)


def _of_the_text(r: Receipt, m: LanguageModel) -> Iterator[Flaw]:
    request, prompt = r.request, None
    try:
        if "messages" in request:
            if "date" not in request:
                yield Flaw("date: messages without one")
                return
            prompt = m.chat_prompt(request["messages"], request["date"], request.get("tools"))
        elif "prompt" in request:
            prompt = m.text_prompt(request["prompt"])
    except ReeError as e:
        yield Flaw(f"prompt: {e.message}")
        return
    if prompt is not None and tuple(prompt) != r.prompt_tokens:
        yield Flaw("prompt: the request gives other tokens")
    try:
        text, stopped_at = _text_of(r, m)
    except ReeError as e:
        yield Flaw(f"text: {e.message}")
        return
    if text != r.text:
        yield Flaw("text: the tokens give another one")
    n, last = len(r.completion_tokens), r.completion_tokens[-1:]
    ends = bool(last) and last[0] in request["stop_tokens"]
    full = n >= request["max_tokens"] or len(r.prompt_tokens) + n >= m.settings.context
    if stopped_at is not None and stopped_at < n:
        yield Flaw(f"stop: a stop string ends the answer at token {stopped_at} of {n}")
    matched = stopped_at is not None
    # the order in which an end is seen
    why = STOP_STRING if matched else STOP if ends else LENGTH if full else None
    if n > request["max_tokens"]:
        yield Flaw(f"max_tokens: {n} tokens, at most {request['max_tokens']} were asked for")
    if why is not None and r.finish != why:
        yield Flaw(f"finish: expected {why}, the receipt has {r.finish}")
    if why is None and r.finish in (STOP, LENGTH, STOP_STRING):
        yield Flaw(f"finish: nothing ends the answer, the receipt has {r.finish}")


def _text_of(r: Receipt, m: LanguageModel) -> tuple[str, int | None]:
    """The answer's text, and the number of tokens behind which a stop string ends it."""
    stream, out = TextStream(m.tokenizer), []
    stops = StopStrings(r.request["stop"], r.request["include_stop"])
    for i, token in enumerate(r.completion_tokens, 1):
        text, matched = stops.push(stream.push(token))
        out.append(text)
        if matched:
            return "".join(out), i
    text, matched = stops.push(stream.finish())
    out += [text, "" if matched else stops.finish()]
    return "".join(out), len(r.completion_tokens) if matched else None


def _of_the_tokens(
    r: Receipt,
    text: Text,
    m: LanguageModel,
    threads: int | None,
    isa: str | None,
    progress: Callable[[int], None] | None,
) -> Flaw | None:
    step = claim_step(m.forward, text)
    header = header_of(step)
    for name in ("numeric_id", "instance", "initial_root"):
        said, got = getattr(r, name), getattr(header, name).hex()
        if said != got:
            return Flaw(
                f"{name.replace('_', ' ')}: the receipt has {said}, its request gives {got}"
            )
    # the caches and the draws are those of the claim's step, without logits that nobody draws from
    engine = Engine(m.forward, positions=len(text.tokens), most=max(len(text.tokens), CHUNK) * 2,
                    threads=threads, isa=isa)  # fmt: skip
    at = first_wrong_token(text, engine, progress)
    if at is not None:
        chunk = drawn_in(at)
        return Flaw(f"token {at} in chunk {chunk} is not the one that the request draws", at, chunk)
    claim = claim_of(m.forward, text, [c[0] for c in engine.caches], threads, step)
    for i, (record, (stated, *_)) in enumerate(zip(claim.records, r.records, strict=True), 1):
        if record.state_root.hex() != stated:
            return Flaw(f"chunk {i}: the keys and values after it are not those that the receipt commits to",
                        chunk=i)  # fmt: skip
    return None


def drawn_in(position: int) -> int:
    """The chunk in which the token at a position is drawn."""
    return (position - 1) // CHUNK + 1


def first_wrong_token(
    text: Text, engine: Engine, progress: Callable[[int], None] | None = None
) -> int | None:
    """Read a text into an engine's first slot; the position of the first token that is not the one its request
    draws, or that a generation would have stopped before."""
    forward, tokens = engine.forward, text.tokens
    drawing = Drawing(replace(text, tokens=tokens[: text.prompt]), forward.vocabulary)
    sampler = Sampler(ROWS, forward.vocabulary, threads=engine.threads, isa=engine.isa)
    for chunk in range(text.chunks):
        start, end = chunk * CHUNK, min((chunk + 1) * CHUNK, len(tokens) - 1)
        part, first = tokens[start:end], max(text.prompt - 1 - start, 0)
        if part:
            logits = engine.read(0, part, start, first=first if first < len(part) else None)
        for i in range(first, len(part), ROWS):
            places = range(start + i + 1, min(start + i + 1 + ROWS, end + 1))
            found = _wrong_among(text, places, logits[i - first :], drawing, sampler)
            if found is not None:
                return found
        if progress is not None:
            progress(chunk + 1)
    return None


def _wrong_among(
    text: Text, places: range, logits: Array, drawing: Drawing, sampler: Sampler
) -> int | None:
    """The first wrong token of some, whose logits are given, a row each."""
    rows = []
    for at, row in zip(places, logits, strict=False):
        mask = None if text.masks is None else text.masks[at - text.prompt]
        rows.append(drawing.adjusted(row, mask))
        drawing.took(text.tokens[at])
    for at, token in zip(
        places, drawn(sampler, [text.sampling] * len(rows), rows, places), strict=True
    ):
        early = token in text.stop and at + 1 < len(text.tokens)
        if token != text.tokens[at] or early:
            return at
    return None
