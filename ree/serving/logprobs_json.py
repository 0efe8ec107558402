"""Log-probabilities in the form of OpenAI's API, of chats and of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ree.generation.logprobs import TokenLogProb
from ree.generation.tokenizer import Tokenizer

LEAST = -9999.0  # what stands for minus infinity and NaN, which JSON has not (as in vLLM)


def number(x: float) -> float:
    """An f32 as the shortest decimal that gives it back."""
    return float(str(np.float32(x))) if np.isfinite(x) else LEAST


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; its bytes, written out, where they are not UTF-8."""
    raw = tokenizer.text.raw(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{b:02x}" for b in raw)


def in_chat(tokenizer: Tokenizer, found: Sequence[TokenLogProb]) -> dict[str, Any]:
    """Of the tokens of a chat's answer."""

    def one(token: int, x: float) -> dict[str, Any]:
        return {"token": token_text(tokenizer, token), "logprob": number(x),
                "bytes": list(tokenizer.text.raw(token))}  # fmt: skip

    content = [one(p.token, p.logprob) | {"top_logprobs": [one(*t) for t in p.top]} for p in found]
    return {"content": content, "refusal": None}


def in_completion(
    tokenizer: Tokenizer, found: Sequence[TokenLogProb], at: int = 0, first: int | None = None
) -> dict[str, Any]:
    """Of the tokens of a completion whose text begins at character `at`; `first`: a token before them, of which
    nothing is known, as nothing stands before it."""
    tokens = [*([] if first is None else [first]), *(p.token for p in found)]
    texts, offsets = [token_text(tokenizer, t) for t in tokens], []
    for text in texts:
        offsets.append(at)
        at += len(text)
    top: list[dict[str, float] | None] = []
    for p in found:
        named: dict[str, float] = {}
        for t, x in (*p.top, (p.token, p.logprob)):
            named.setdefault(token_text(tokenizer, t), number(x))
        top.append(named)
    none = [] if first is None else [None]
    return {"tokens": texts, "token_logprobs": [*none, *(number(p.logprob) for p in found)],
            "top_logprobs": [*none, *top], "text_offset": offsets}  # fmt: skip
