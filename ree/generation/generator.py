"""Generating text: prompts in, tokens and text out one by one, and a receipt at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import PathLike
from typing import Any

from ree import __version__
from ree.errors import InputError
from ree.generation.claim import TextClaim, claim_of
from ree.generation.engine import Engine
from ree.generation.grammar import Grammar, GrammarError
from ree.generation.logprobs import TokenLogProb
from ree.generation.model import LanguageModel
from ree.generation.receipt import NOTHING, Receipt, receipt_problem_of, request_of
from ree.generation.receipt_schema import STOP_STRING
from ree.generation.request import Sampling
from ree.generation.scheduler import Generation, Scheduler
from ree.generation.streams import StopStrings, TextStream

MAX_TOKENS = 256  # that are drawn where nothing else is said
MOST_LOGPROBS = 20


@dataclass(frozen=True)
class Request:
    """What to generate: one of messages, prompt and tokens, and how.

    date: what the template sees as today, ISO 8601, by default today (UTC). stop: texts that end the answer.
    stop_tokens: by default the model's own. grammar: what the answer may be. logprobs: how many of the
    likeliest tokens to give beside the log-probability of each token drawn, None for nothing; prompt_logprobs:
    of the prompt's tokens too. max_tokens may be 0, to read the prompt alone. previous: digest of the receipt
    that this one's is to name as the one before it, hexadecimal. salt: only requests of the same may share what
    was read before; it changes no token and is in no receipt.
    """

    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | None = None
    tokens: Sequence[int] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    date: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = MAX_TOKENS
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    stop_tokens: tuple[int, ...] | None = None
    grammar: Grammar | None = None
    logprobs: int | None = None
    prompt_logprobs: bool = False
    previous: str = NOTHING
    salt: str = ""

    def complete(self, model: LanguageModel) -> Request:
        """With everything said that was left open. InputError for what does not go together."""
        given = [n for n in ("messages", "prompt", "tokens") if getattr(self, n) is not None]
        if len(given) != 1:
            raise InputError(
                f"expected messages, a prompt or tokens, got {' and '.join(given) or 'none'}"
            )
        if self.messages is None and (self.tools or self.date is not None):
            raise InputError("tools and date go with messages")
        date = self.date
        if self.messages is not None and date is None:
            date = datetime.now(UTC).date().isoformat()
        stop = model.settings.stop if self.stop_tokens is None else self.stop_tokens
        sampling = self.sampling
        if self.grammar is not None and (
            not set(model.settings.stop) <= set(stop) or sampling.min_tokens
        ):
            raise GrammarError("grammar: it says where the answer ends; min_tokens, and leaving out the "
                               "model's stop tokens, do not go with it")  # fmt: skip
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise InputError(f"logprobs: expected 0 to {MOST_LOGPROBS}, got {self.logprobs}")
        if sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(63))
        return replace(self, date=date, stop_tokens=tuple(stop), sampling=sampling)

    def prompt_tokens(self, model: LanguageModel) -> list[int]:
        """The tokens that the model is given first; InputError for none."""
        if self.messages is not None:
            assert self.date is not None
            return model.chat_prompt(self.messages, self.date, self.tools)
        if self.prompt is not None:
            return model.text_prompt(self.prompt)
        return [int(t) for t in self.tokens or ()]

    def kept(self) -> dict[str, Any]:
        """As a receipt keeps it."""
        return request_of(
            self.sampling, messages=None if self.messages is None else [dict(m) for m in self.messages],
            prompt=self.prompt, tools=None if self.tools is None else [dict(t) for t in self.tools],
            date=self.date, max_tokens=self.max_tokens, stop=list(self.stop), include_stop=self.include_stop,
            stop_tokens=list(self.stop_tokens or ()),
            grammar=None if self.grammar is None else self.grammar.kept(),
        )  # fmt: skip


@dataclass(frozen=True)
class TextPiece:
    """What one drawn token adds: its id, and the text that is final with it."""

    token: int | None  # None: there was no token, or none in the place of one
    text: str
    logprob: TokenLogProb | None = None  # where it was asked for


class Completion:
    """One answer under way: its tokens and text so far; `finish` says why it ended."""

    def __init__(self, model: LanguageModel, request: Request) -> None:
        self.model, self.request = model, request.complete(model)
        r = self.request
        prompt = tuple(r.prompt_tokens(model))
        r.sampling.check(model.forward.vocabulary)
        if problem := receipt_problem_of(r.kept()):
            raise InputError(problem)
        matcher = None if r.grammar is None else model.matcher(r.grammar)
        self.generation = Generation(prompt, r.sampling, r.stop_tokens or (), r.max_tokens, matcher, r.logprobs,
                                     r.prompt_logprobs, r.salt)  # fmt: skip
        self._stream = TextStream(model.tokenizer)
        self._stops = StopStrings(r.stop, r.include_stop)
        self._pieces: list[str] = []
        self.finish: str | None = None

    @property
    def text(self) -> str:
        """The text so far, as far as it is final."""
        return "".join(self._pieces)

    @property
    def completion(self) -> tuple[int, ...]:
        """The tokens that were drawn."""
        return tuple(self.generation.tokens[len(self.generation.prompt) :])

    @property
    def matched(self) -> str | None:
        """The stop string that ended it, or None."""
        return self._stops.matched

    def take(self, token: int | None) -> TextPiece:
        """Take in a drawn token; at the end `finish` is set, and the piece has the rest of the text.

        Raises the generation's failure, if it has one.
        """
        if self.generation.failure is not None:
            raise self.generation.failure
        text, matched = ("", False) if token is None else self._stops.push(self._stream.push(token))
        logprobs = self.generation.drawn_logprobs
        if matched:
            self.finish = STOP_STRING
        elif self.generation.finish is not None:
            rest, matched = self._stops.push(self._stream.finish())
            text += rest + self._stops.finish()
            self.finish = STOP_STRING if matched else self.generation.finish
        self._pieces.append(text)
        return TextPiece(token, text, logprobs[-1] if logprobs else None)

    def claim(self, scheduler: Scheduler, threads: int | None = None) -> TextClaim:
        """The claim of the answer, while it has its slot."""
        g = self.generation
        return claim_of(self.model.forward, g.text(), scheduler.caches(g), threads)

    def receipt(self, claim: TextClaim) -> Receipt:
        """The receipt of an answer that has ended, unsigned."""
        assert self.finish is not None
        model, h = self.model, claim.header
        return Receipt(
            numeric_id=h.numeric_id.hex(),
            program=model.program.program_hash.hex(), instance=h.instance.hex(),
            weights_root=h.weights_root.hex(), tokenizer=model.tokenizer.id, template=model.template_id,
            request=self.request.kept(), prompt_tokens=self.generation.prompt,
            completion_tokens=self.completion, text=self.text, finish=self.finish,
            initial_root=h.initial_root.hex(),
            records=tuple(
                (r.state_root.hex(), r.batch.hex(), *(m.hex() for m in claim.masks[i : i + 1]))
                for i, r in enumerate(claim.records)
            ),
            commitment=claim.history.commitment.hex(), previous=self.request.previous,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            made_by={"ree": __version__, "contract": model.program.graph.contract},
        )  # fmt: skip


class Generator:
    """Answers one request after the other on one engine.

    model: a LanguageModel, or the path of an artifact. positions: of the caches from the start.
    """

    def __init__(
        self, model: LanguageModel | str | PathLike[str], *, positions: int = 1, threads: int | None = None,
        isa: str | None = None,
    ) -> None:  # fmt: skip
        self.model = model if isinstance(model, LanguageModel) else LanguageModel.load(model)
        most = self.model.settings.context
        self.engine = Engine(
            self.model.forward, positions=positions, most=most, threads=threads, isa=isa
        )
        self.scheduler = Scheduler(self.engine)

    def stream(
        self, request: Request, receive: Callable[[Receipt], None] | None = None
    ) -> Iterator[TextPiece]:
        """The pieces of an answer as they come; at the end `receive` is given its receipt. InputError."""
        answer = Completion(self.model, request)
        g = answer.generation
        self.scheduler.submit(g)
        try:
            while answer.finish is None:
                for _, token in self.scheduler.step():
                    yield answer.take(token)
                    if answer.finish is not None:  # by a stop string: nothing more may be drawn
                        break
            if receive is not None:
                receive(answer.receipt(answer.claim(self.scheduler, self.engine.threads)))
        finally:
            self.scheduler.abort(g)

    def generate(self, request: Request) -> tuple[Receipt, list[TextPiece]]:
        """A whole answer: its receipt, unsigned, and its pieces."""
        got: list[Receipt] = []
        pieces = list(self.stream(request, got.append))
        return got[0], pieces
