"""The JSON of answers, in the form of OpenAI's API: whole, and in chunks as tokens come.

Beside OpenAI's fields an answer has those of vLLM that were asked for (token_ids, prompt_token_ids),
`stop_reason`, and `ree`: the seed that was used and the digest of the receipt of every choice.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ree.generation.generator import Completion, TextPiece
from ree.generation.logprobs import TokenLogProb
from ree.generation.receipt_schema import LENGTH, STOP_STRING
from ree.serving.logprobs_json import in_chat, in_completion
from ree.serving.schema import ChatRequest, Wanted
from ree.serving.tool_calls import BeforeCalls, as_json, find_calls


@dataclass
class Reply:
    """What is said to one request.

    `echoed` stands before the text of each choice (completions alone); `tools` are those that it may call, if
    the model calls them in a form that is known.
    """

    wanted: Wanted
    answers: Sequence[Completion]
    fingerprint: str
    seed: int
    echoed: Sequence[str] = ()
    tools: frozenset[str] = frozenset()
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    receipts: dict[int, str] = field(default_factory=dict)
    # of a stream: characters of each choice that were given out; choices whose prompt's log-probabilities were
    _told: dict[int, int] = field(default_factory=dict)
    _prompts_told: set[int] = field(default_factory=set)

    @property
    def chat(self) -> bool:
        return isinstance(self.wanted, ChatRequest)

    def whole(self) -> dict[str, Any]:
        """The answer to a request that does not stream, when every choice has ended."""
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": [self._choice(i, a) for i, a in enumerate(self.answers)],
            "usage": self.usage(),
            "ree": {
                "seed": self.seed,
                "receipts": [self.receipts[i] for i in range(len(self.answers))],
            },
        }

    def usage(self) -> dict[str, Any]:
        """Prompts count once, however many choices they have; `cached_tokens` were not read again."""
        given = sum(len(a.generation.prompt) for a in self.answers[:: self.wanted.choices])
        drawn = sum(len(a.completion) for a in self.answers)
        reused = sum(a.generation.reused for a in self.answers[:: self.wanted.choices])
        return {"prompt_tokens": given, "completion_tokens": drawn, "total_tokens": given + drawn,
                "prompt_tokens_details": {"cached_tokens": reused}}  # fmt: skip

    def opening(self) -> list[dict[str, Any]]:
        """The chunks of a stream before the first token."""
        out = []
        for i, a in enumerate(self.answers):
            extra = (
                {"prompt_token_ids": list(a.generation.prompt)} if self.wanted.return_tokens else {}
            )
            if self.chat:
                out.append(
                    self._chunk(
                        {
                            "index": i,
                            "delta": {"role": "assistant", "content": ""},
                            **_OPEN,
                            **extra,
                        }
                    )
                )
            elif self.echoed or extra:
                text = self.echoed[i] if self.echoed else ""
                out.append(self._chunk({"index": i, "text": text, **_OPEN, **extra}))
                self._told[i] = len(text)
        return out

    def piece(self, index: int, text: str, pieces: Sequence[TextPiece]) -> dict[str, Any]:
        """The chunk of some tokens and the text that became final with them."""
        said: dict[str, Any] = {"delta": {"content": text}} if self.chat else {"text": text}
        if self.wanted.return_tokens:
            said["token_ids"] = [p.token for p in pieces if p.token is not None]
        known = [p.logprob for p in pieces if p.logprob is not None]
        if self.echoed and self.wanted.logprobs is not None and index not in self._prompts_told:
            self._prompts_told.add(index)
            logprobs = self._logprobs(index, known, with_prompt=True)
        else:
            logprobs = self._logprobs(index, known, self._told.get(index, 0))
        self._told[index] = self._told.get(index, 0) + len(text)
        return self._chunk({"index": index, **said, **_OPEN, "logprobs": logprobs})

    def _logprobs(
        self, index: int, found: Sequence[TokenLogProb] | None = None, at: int = 0, *, with_prompt: bool = False
    ) -> dict[str, Any] | None:  # fmt: skip
        """Log-probabilities of some of a choice's tokens, by default of all, if they were asked for. at: where
        the text of the first token begins."""
        if self.wanted.logprobs is None:
            return None
        answer = self.answers[index]
        tokenizer, g = answer.model.tokenizer, answer.generation
        found = g.drawn_logprobs if found is None else found
        if self.chat:
            return in_chat(tokenizer, found)
        if not with_prompt:
            return in_completion(tokenizer, found, at)
        return in_completion(tokenizer, [*g.prompt_logprobs, *found], 0, g.prompt[0])

    def ending(self, index: int, told: int | None = None) -> list[dict[str, Any]]:
        """The last chunks of a choice. told: how many characters of its text were given out, if some were held
        back as they may be calls of tools."""
        chunks, end = [], _end(self.answers[index])
        if told is not None:
            text, calls = self._said(index)
            if len(text) > told:
                chunks.append(self.piece(index, text[told:], ()))
            if calls:
                listed = [{"index": i, **c} for i, c in enumerate(calls)]
                chunks.append(
                    self._chunk({"index": index, "delta": {"tool_calls": listed}, **_OPEN})
                )
                end = _called(end)
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        last = self._chunk({"index": index, **said, **_OPEN, **end})
        return [*chunks, last | {"ree": {"seed": self.seed, "receipts": [self.receipts[index]]}}]

    def _said(self, index: int) -> tuple[str, list[dict[str, Any]]]:
        """The text of a choice, and the calls of tools behind it."""
        text = self.answers[index].text
        if not self.tools:
            return text, []
        text, calls = find_calls(text, self.tools)
        return text, as_json(calls, self.receipts[index])

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk after the last one, where usage was asked for."""
        return {**self._chunk(None), "usage": self.usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created,
                "model": self.wanted.model, "system_fingerprint": self.fingerprint}  # fmt: skip

    def _chunk(self, choice: dict[str, Any] | None) -> dict[str, Any]:
        head = self._head("chat.completion.chunk" if self.chat else "text_completion")
        usage = {"usage": None} if self.wanted.include_usage else {}
        return {**head, "choices": [] if choice is None else [choice], **usage}

    def _choice(self, index: int, answer: Completion) -> dict[str, Any]:
        end = _end(answer)
        if self.chat:
            text, calls = self._said(index)
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
            if calls:
                message |= {"content": text or None, "tool_calls": calls}
                end = _called(end)
            said: dict[str, Any] = {"message": message}
        else:
            said = {"text": (self.echoed[index] if self.echoed else "") + answer.text}
        if self.wanted.return_tokens:
            said["token_ids"] = list(answer.completion)
            said["prompt_token_ids"] = list(answer.generation.prompt)
        logprobs = self._logprobs(index, with_prompt=bool(self.echoed))
        return {"index": index, **said, "logprobs": logprobs, **end}


_OPEN = {"logprobs": None, "finish_reason": None}


def _end(answer: Completion) -> dict[str, Any]:
    """Why a choice ended; stop_reason is the stop string or token that was asked for, as in vLLM."""
    reason: str | int | None = None
    if answer.finish == STOP_STRING:
        reason = answer.matched
    elif answer.finish != LENGTH and answer.completion:
        last = answer.completion[-1]
        reason = None if last in answer.model.settings.stop else last
    return {"finish_reason": "length" if answer.finish == LENGTH else "stop", "stop_reason": reason}


def _called(end: dict[str, Any]) -> dict[str, Any]:
    """The end of a choice that calls tools."""
    return end | {"finish_reason": "tool_calls"} if end["finish_reason"] == "stop" else end


class TextSoFar:
    """Tokens of one choice whose text is not final yet, to be told with the next text. calls: from where it may
    call tools on, its text is held back; `told` counts what was given out."""

    def __init__(self, calls: bool = False) -> None:
        self._pieces: list[TextPiece] = []
        self._before = BeforeCalls() if calls else None

    @property
    def told(self) -> int | None:
        return None if self._before is None else self._before.told

    def take(self, piece: TextPiece, every: bool) -> tuple[str, list[TextPiece]] | None:
        """(text, pieces) to tell now; None to wait. every: tokens are told even without text."""
        self._pieces.append(piece)
        text = piece.text if self._before is None else self._before.push(piece.text)
        if not text and not every:
            return None
        told, self._pieces = self._pieces, []
        return text, told
