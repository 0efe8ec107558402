"""A sentence encoder as an artifact holds it, and the vectors that it gives."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike

import numpy as np

from ree.artifact import load
from ree.artifact.format import EMBEDDING, TOKENIZER
from ree.errors import ArtifactError, InputError
from ree.generation.tokenizer import Tokenizer
from ree.kernels.opdef import Array
from ree.kernels.types import DType
from ree.program import Program
from ree.runtime.session import Session
from ree.traces.strict_json import strict_json

VERSION = 1
MAX_NAME = 200
INPUTS, OUTPUT = ("tokens", "lengths"), "embedding"
BATCH = 16  # texts of one call
WIDTHS = tuple(8 << i for i in range(18))  # tokens of a call: few shapes are prepared
WARM = 128  # widths up to it are prepared by warm_up
EXPECTED = "expected one that ree compile made of a sentence encoder's directory"


@dataclass(frozen=True)
class EmbeddingSettings:
    """What an artifact says of an encoder beside its program. context: tokens of a text, at most."""

    name: str
    context: int
    version: int = VERSION

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def of(cls, raw: bytes) -> EmbeddingSettings:
        """The settings of an artifact's file; ArtifactError."""
        try:
            m = strict_json(raw)
        except ValueError as e:
            raise ArtifactError(f"{EMBEDDING}: {e}") from e
        if not isinstance(m, dict) or set(m) != set(cls.__dataclass_fields__):
            raise ArtifactError(
                f"{EMBEDDING}: expected {', '.join(sorted(cls.__dataclass_fields__))}"
            )
        if m["version"] != VERSION:
            raise ArtifactError(
                f"{EMBEDDING}: version: expected {VERSION}, got {m['version']!r:.20}"
            )
        if not isinstance(m["name"], str) or len(m["name"]) > MAX_NAME:
            raise ArtifactError(
                f"{EMBEDDING}: name: expected text of at most {MAX_NAME} characters"
            )
        if type(m["context"]) is not int or not 1 < m["context"] <= 1 << 20:
            raise ArtifactError(f"{EMBEDDING}: context: expected 2 to 2^20")
        return cls(m["name"], m["context"])


class TooLong(InputError):
    """A text of more tokens than a model takes, or of none."""


class EmbeddingModel:
    """A sentence encoder, ready to run. ArtifactError for an artifact of anything else."""

    def __init__(self, program: Program, threads: int | None = None) -> None:
        self.program = program
        missing = [f for f in (EMBEDDING, TOKENIZER) if f not in program.files]
        if missing:
            raise ArtifactError(
                f"the artifact is no sentence encoder's: it has no {missing[0]}", EXPECTED
            )
        self.settings = EmbeddingSettings.of(program.files[EMBEDDING])
        self.tokenizer = Tokenizer(program.files[TOKENIZER])
        self.dimensions = _dimensions(program)
        self._session = Session(program, threads=threads)

    @classmethod
    def load(cls, path: str | PathLike[str], threads: int | None = None) -> EmbeddingModel:
        """The model of the artifact `path`; ArtifactError."""
        return cls(load(path), threads)

    def tokens(self, text: str | Sequence[int]) -> list[int]:
        """The tokens of a text, with those that the tokenizer adds; ids are taken as they are. InputError for
        ids that are none, for nothing, and for more than the model takes: nothing is cut."""
        given = (
            self.tokenizer.encode(text, add_special=True) if isinstance(text, str) else list(text)
        )
        most = self.settings.context
        if not 1 <= len(given) <= most:
            raise TooLong(f"the text has {len(given)} tokens, the model takes 1 to {most}")
        self.tokenizer.check(given)
        return given

    def embed(self, texts: Sequence[str | Sequence[int]]) -> Array:
        """f32 [texts, dimensions]: the vector of each text or list of tokens. Which of them are computed in one
        call changes no bit. One thread at a time."""
        given = [self.tokens(t) for t in texts]
        out = np.empty((len(given), self.dimensions), np.float32)
        for part in parts_of_lengths(given):
            out[part] = self.call([given[i] for i in part])
        return out

    def warm_up(self) -> None:
        """Prepare calls of one text of the usual widths, so that the first ones do not wait for it."""
        for width in WIDTHS:
            if width <= WARM:
                self.call([[0] * min(width, self.settings.context)])

    def call(self, rows: Sequence[Sequence[int]]) -> Array:
        """f32 [rows, dimensions] of up to BATCH lists of tokens, in one call."""
        width = min(WIDTHS[bisect_left(WIDTHS, max(map(len, rows)))], self.settings.context)
        count = 1 << (len(rows) - 1).bit_length()
        tokens, lengths = np.zeros((count, width), np.int64), np.ones(count, np.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row)], lengths[i] = row, len(row)
        found: Array = self._session.run(tokens, lengths).outputs[0]
        return found[: len(rows)]


def parts_of_lengths(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Which rows to compute together: up to BATCH of about one length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for at in range(0, len(order), BATCH):
        yield order[at : at + BATCH]


def _dimensions(program: Program) -> int:
    """How long an encoder's vectors are; ArtifactError if its program has not the form of one."""
    g, wrong = program.graph, ArtifactError("the artifact is no sentence encoder's", EXPECTED)
    if (program.names.inputs, program.names.outputs) != (INPUTS, (OUTPUT,)) or g.states:
        raise wrong
    tokens, lengths = g.inputs
    (vector,) = map(g.typer(), g.outputs)
    if (
        tokens.dtype is not DType.I64
        or lengths.dtype is not DType.I64
        or vector.dtype is not DType.F32
    ):
        raise wrong
    if tokens.rank != 2 or lengths.shape != tokens.shape[:1] or vector.shape[:1] != lengths.shape:
        raise wrong
    if vector.rank != 2 or not isinstance(vector.shape[1], int):
        raise wrong
    return vector.shape[1]
