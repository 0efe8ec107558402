"""Vectors of texts: the requests of OpenAI's embeddings endpoint, and the encoder that answers them."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from ree.embedding.model import EmbeddingModel, TooLong, parts_of_lengths
from ree.errors import InternalError, ReeError
from ree.kernels.opdef import Array
from ree.serving.errors import ApiError
from ree.serving.fields import Fields, is_token, is_unicode, read_object, shown
from ree.serving.metrics import ServerMetrics
from ree.serving.schema import INFORMATION
from ree.serving.service import Readiness

MAX_INPUTS = 2048
# what asks for nothing: any other value is refused
NEUTRAL_IN_EMBEDDINGS: dict[str, tuple[Any, ...]] = {
    "truncate_prompt_tokens": (), "priority": (0,), "add_special_tokens": (True,), "normalize": (),
}  # fmt: skip


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request of /v1/embeddings. inputs: texts, or token ids. dimensions: None is what the model has."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    base64: bool
    dimensions: int | None
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, raw: bytes, *, strict: bool = False) -> EmbeddingRequest:
        """The request in a body; ApiError."""
        f = Fields(read_object(raw))
        model = f.text("model", None)
        if model is None:
            raise ApiError("model is missing", "model", code="missing_required_parameter")
        inputs, form = _inputs(f), f.text("encoding_format", "float")
        if form not in ("float", "base64"):
            raise f.wrong("encoding_format", "float or base64")
        dimensions = f.integer("dimensions", 1, 1 << 20, None)
        for key in INFORMATION:
            f.raw(key)
        for key, allowed in NEUTRAL_IN_EMBEDDINGS.items():
            f.only(key, allowed, "this is not supported")
        if strict and f.rest():
            raise ApiError(f"there is no field {shown(f.rest()[0])}", f.rest()[0][:60],
                           code="unknown_parameter")  # fmt: skip
        return cls(model, inputs, form == "base64", dimensions, f.rest())


def _inputs(f: Fields) -> tuple[str | tuple[int, ...], ...]:
    given = f.raw("input")
    listed = [given] if isinstance(given, str) else given
    expected = f"a text, token ids, or a list of 1 to {MAX_INPUTS} of one of them"
    if not isinstance(listed, list) or not listed:
        raise f.wrong("input", expected)
    if all(map(is_token, listed)):
        return (tuple(listed),)
    if len(listed) > MAX_INPUTS:
        raise ApiError(f"input has {len(listed)} texts, expected at most {MAX_INPUTS}", "input")
    if all(isinstance(x, str) and is_unicode(x) for x in listed):
        return tuple(listed)
    if all(isinstance(x, list) and all(map(is_token, x)) for x in listed):
        return tuple(map(tuple, listed))
    raise f.wrong("input", expected)


class EncoderService:
    """A sentence encoder that several requests share: each call computes some texts of one of them.

    load: gives the model, in a thread of its own. queue: requests that may wait.
    """

    def __init__(
        self, name: str, load: Callable[[], EmbeddingModel], *, queue: int = 64,
        metrics: ServerMetrics | None = None,
    ) -> None:  # fmt: skip
        self.name, self.queue = name, queue
        self.state, self.failure = Readiness.LOADING, ""
        self.on_failure: Callable[[ReeError], None] = lambda e: None
        self._metrics = metrics or ServerMetrics()
        self._load = load
        self._turn, self._under_way = asyncio.Lock(), 0
        self._loaded: EmbeddingModel | None = None

    def start(self) -> None:
        """Begin to load."""
        threading.Thread(target=self._main, name=f"ree-embed-{self.name}", daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self.state = Readiness.CLOSED

    def _main(self) -> None:
        try:
            model = self._load()
            model.warm_up()
        except Exception as e:
            error = (
                e if isinstance(e, ReeError) else InternalError(f"{type(e).__name__}: {e}"[:300])
            )
            self.failure, self.state = error.message, Readiness.FAILED
            self.on_failure(error)
            return
        self._loaded = model
        self.state = Readiness.READY if self.state is Readiness.LOADING else self.state

    @property
    def model(self) -> EmbeddingModel:
        """The model; ApiError while there is none."""
        if self.state is not Readiness.READY or self._loaded is None:
            why = f": {self.failure}" if self.failure else ""
            raise ApiError(f"model '{self.name}' is {self.state}{why}", "model", status=503)
        return self._loaded

    def card(self) -> dict[str, Any]:
        """What a list of models says of it."""
        if self.state is not Readiness.READY:
            return {"kind": "embedding", "state": str(self.state)}
        m = self.model
        return {"kind": "embedding", "max_model_len": m.settings.context, "dimensions": m.dimensions,
                "program": m.program.program_hash.hex(), "weights_root": m.program.weights_root.hex(),
                "tokenizer": m.tokenizer.id}  # fmt: skip

    async def answer(self, wanted: EmbeddingRequest) -> dict[str, Any]:
        """The JSON of an answer. ApiError for what is not served, and 429 where too many wait."""
        model = self.model
        if wanted.dimensions not in (None, model.dimensions):
            raise ApiError(f"dimensions is {wanted.dimensions}, the model's vectors have {model.dimensions}",
                           "dimensions", code="unsupported_value")  # fmt: skip
        if self._under_way > self.queue:
            raise ApiError(f"{self._under_way} requests are under way or wait already", status=429)
        self._under_way += 1
        try:
            rows = await run_in_threadpool(_rows, model, wanted)
            vectors = await self._vectors(model, rows)
        finally:
            self._under_way -= 1
        count = sum(map(len, rows))
        self._metrics.prompt_tokens += count
        data = [{"object": "embedding", "index": i, "embedding": _encoded(v, wanted.base64)}
                for i, v in enumerate(vectors)]  # fmt: skip
        return {"object": "list", "data": data, "model": wanted.model,
                "usage": {"prompt_tokens": count, "total_tokens": count}}  # fmt: skip

    async def _vectors(self, model: EmbeddingModel, rows: list[list[int]]) -> Array:
        out = np.empty((len(rows), model.dimensions), np.float32)
        for part in parts_of_lengths(rows):
            async with self._turn:  # requests take turns call by call
                out[part] = await run_in_threadpool(model.call, [rows[i] for i in part])
        return out


def _rows(model: EmbeddingModel, wanted: EmbeddingRequest) -> list[list[int]]:
    """The tokens of every input; ApiError for the first that the model does not take."""
    out = []
    for i, text in enumerate(wanted.inputs):
        try:
            out.append(model.tokens(text))
        except ReeError as e:
            where = f"input {i}: " if len(wanted.inputs) > 1 else ""
            code = "context_length_exceeded" if isinstance(e, TooLong) else None
            raise ApiError(f"{where}{e.message}", "input", hint=e.hint, code=code) from e
    return out


def _encoded(vector: Array, as_base64: bool) -> str | list[float]:
    """A vector as numbers that are its float32 values exactly, or their bytes, little end first."""
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
