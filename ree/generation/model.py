"""A language model as an artifact holds it: the forward program, its tokenizer, template and settings."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

from ree.artifact import load
from ree.artifact.format import SETTINGS, TEMPLATE, TOKENIZER
from ree.errors import ArtifactError, InputError
from ree.generation.grammar import Grammar, GrammarTokens, Matcher
from ree.generation.layout import EXPECTED, NO_MODEL
from ree.generation.narrow import WEIGHTS, by_name, narrowed
from ree.generation.programs import Forward
from ree.generation.template import render, template_id
from ree.generation.tokenizer import Tokenizer
from ree.program import Program
from ree.traces.strict_json import strict_json

VERSION = 1
MAX_NAME, MAX_STOP_TOKENS = 200, 64
NO_TEMPLATE = bytes(32).hex()


@dataclass(frozen=True)
class Settings:
    """What an artifact says of a model beside its program.

    context: positions it was made for. stop: tokens that end a generation. special: texts of special tokens by
    the names that templates know them by (bos_token, ...).
    """

    name: str
    context: int
    stop: tuple[int, ...]
    special: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def of(cls, raw: bytes) -> Settings:
        """The settings of an artifact's file; ArtifactError."""
        try:
            m = strict_json(raw)
            problem = _problem(m)
        except ValueError as e:
            problem = str(e)
        if problem:
            raise ArtifactError(f"{SETTINGS}: {problem}")
        return cls(m["name"], m["context"], tuple(m["stop"]), m["special"])


def _problem(m: Any) -> str:
    """What is wrong with settings, or nothing."""
    if not isinstance(m, dict) or set(m) != set(Settings.__dataclass_fields__):
        return f"expected {', '.join(sorted(Settings.__dataclass_fields__))}"
    if m["version"] != VERSION:
        return f"version: expected {VERSION}, got {m['version']!r:.20}; compile the model again"
    if not isinstance(m["name"], str) or len(m["name"]) > MAX_NAME:
        return f"name: expected text of at most {MAX_NAME} characters"
    if type(m["context"]) is not int or not 1 < m["context"] <= 1 << 20:
        return "context: expected 2 to 2^20"
    stop = m["stop"]
    if (
        not isinstance(stop, list)
        or len(stop) > MAX_STOP_TOKENS
        or any(type(t) is not int for t in stop)
    ):
        return f"stop: expected at most {MAX_STOP_TOKENS} tokens"
    special = m["special"]
    if not isinstance(special, dict) or not all(isinstance(t, str) and len(t) <= MAX_NAME
                                                for t in (*special, *special.values())):  # fmt: skip
        return "special: expected texts by name"
    return ""


class LanguageModel:
    """A language model, ready to be run by an engine. ArtifactError for an artifact of anything else."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._lock = threading.Lock()
        self._read: tuple[Grammar, Matcher] | None = None  # the last grammar
        missing = [f for f in (SETTINGS, TOKENIZER) if f not in program.files]
        if missing:
            raise ArtifactError(f"{NO_MODEL}: it has no {missing[0]}", EXPECTED)
        self.forward = Forward(program)
        self.settings = Settings.of(program.files[SETTINGS])
        self.tokenizer = Tokenizer(program.files[TOKENIZER])
        template = program.files.get(TEMPLATE)
        try:
            self.template = None if template is None else template.decode()
        except UnicodeDecodeError as e:
            raise ArtifactError(f"{TEMPLATE} is not UTF-8") from e
        self.template_id = NO_TEMPLATE if self.template is None else template_id(self.template)
        if self.tokenizer.size > self.forward.vocabulary:
            raise ArtifactError(f"the tokenizer has {self.tokenizer.size} tokens, the model "
                                f"{self.forward.vocabulary}")  # fmt: skip
        if any(not 0 <= t < self.forward.vocabulary for t in self.settings.stop):
            raise ArtifactError(f"{SETTINGS}: stop: expected tokens of the vocabulary")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> LanguageModel:
        """The model of the artifact `path`; ArtifactError."""
        return cls(load(path))

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        date: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """The tokens of a conversation by the model's template, up to where the model's answer begins."""
        if self.template is None:
            raise InputError(
                f"'{self.settings.name}' has no chat template", "give it a prompt instead"
            )
        text = render(
            self.template, messages, date=date, tools=tools, special=self.settings.special
        )
        return self.tokenizer.encode(text)

    @cached_property
    def _grammar_tokens(self) -> GrammarTokens:
        raw = self.program.files[TOKENIZER]
        return GrammarTokens(raw, self.forward.vocabulary, self.settings.stop)

    def matcher(self, grammar: Grammar) -> Matcher:
        """What follows an answer through a grammar; ReeError for a grammar that allows nothing."""
        with (
            self._lock
        ):  # many answers of one request have one grammar, which may take seconds to read
            if self._read is None or self._read[0] != grammar:
                self._read = grammar, Matcher(grammar, self._grammar_tokens)
            return self._read[1].copy()

    def text_prompt(self, prompt: str) -> list[int]:
        """The tokens of a text, with those that the tokenizer puts first."""
        return self.tokenizer.encode(prompt, add_special=True)


def compile_model(path: str | PathLike[str], weights: str = "stored") -> Program:
    """The program of a Hugging Face directory or a GGUF file, with its tokenizer, template and settings.

    weights: "stored", as the files keep them, or "f32"; the bits of what it computes are the same.

    ReeError, one line, for a source that is malformed or of a family that is not known; CaptureError and
    UnsupportedError as `ree.compile` raises them.
    """
    from ree.generation.forward import compile_forward
    from ree.generation.source import load_source

    if weights not in WEIGHTS:
        raise InputError(f"weights: expected {' or '.join(WEIGHTS)}, got {weights!r:.40}")
    source = load_source(path)  # type: ignore[arg-type]
    special = {n: getattr(source.special, n) for n in ("bos_token", "eos_token", "pad_token")}
    settings = Settings(source.name[:MAX_NAME], source.context_length, source.special.stop,
                        {n: t for n, t in special.items() if t})  # fmt: skip
    Settings.of(settings.to_json())  # and the tokenizer, before what takes minutes
    Tokenizer(source.tokenizer_json)
    files = {SETTINGS: settings.to_json(), TOKENIZER: source.tokenizer_json}
    if source.chat_template is not None:
        files[TEMPLATE] = source.chat_template.encode()
    matrices = by_name(source.module, source.matrices, "model.") if weights == "stored" else {}
    return narrowed(compile_forward(source.module, source.context_length, files), matrices)
