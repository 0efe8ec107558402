"""Claims: that tokens are what a model gives for a request, as the history of a run of chunks.

A chunk is a step of the program that `Forward.claim` builds; its state is the caches and the request, its batch
the tokens, its loss the number of tokens that the request would not have drawn. So a claim is opened, replayed
and disputed as a training run is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from ree.errors import InputError
from ree.generation.claim_program import ClaimForm, first_state
from ree.generation.layout import CHUNK, capacity_for
from ree.generation.programs import Forward
from ree.generation.request import PENALTIES, Sampling, stop_row
from ree.kernels.opdef import Array
from ree.runtime.hashing import hash_array
from ree.traces.history import History, RunHeader, StepRecord, batch_digest, state_root
from ree.training.loop import run_steps
from ree.training.state_hash import StateHasher, unchanged_states
from ree.training.step import Step


@dataclass(frozen=True)
class Text:
    """Tokens with how they came about: the first `prompt` of them were given, the others drawn.

    stop: tokens that end a generation. masks: for each token that was drawn, which ones were allowed: a bit for
    each of the vocabulary, the first in the lowest bit, u8; None where all were.
    """

    tokens: tuple[int, ...]
    prompt: int
    sampling: Sampling
    stop: tuple[int, ...]
    masks: Sequence[Array] | None = field(default=None, compare=False)

    @property
    def form(self) -> ClaimForm:
        return ClaimForm(self.sampling.penalises, self.masks is not None)

    @property
    def chunks(self) -> int:
        return -(-len(self.tokens) // CHUNK)

    def check(self, vocabulary: int, context: int | None = None) -> None:
        """InputError for what no generation can be, or none of a model with so many positions."""
        self.sampling.check(vocabulary)
        if context is not None and len(self.tokens) > context:
            raise InputError(f"{len(self.tokens)} tokens, the model takes {context}")
        if not 1 <= self.prompt <= len(self.tokens):
            raise InputError(f"prompt: expected 1 to {len(self.tokens)} tokens, got {self.prompt}")
        for t in (*self.tokens, *self.stop):
            if type(t) is not int or not 0 <= t < vocabulary:
                raise InputError(f"tokens: expected 0 to {vocabulary - 1}, got {t!r:.40}")

    def batch(self, step: int) -> Array:
        """i64 [129]: the tokens of chunk 1, 2, ... and the first of the next one, 0 where there is none."""
        part = self.tokens[(step - 1) * CHUNK : step * CHUNK + 1]
        return np.array([*part, *[0] * (CHUNK + 1 - len(part))], np.int64)

    def inputs(self, step: int, vocabulary: int) -> tuple[Array, ...]:
        """What a step of the claim takes in: the batch, and what was allowed behind each of its tokens."""
        if self.masks is None:
            return (self.batch(step),)
        allowed = np.ones((CHUNK, vocabulary), np.bool_)
        for row in range(CHUNK):
            at = (step - 1) * CHUNK + row + 1 - self.prompt
            if 0 <= at < len(self.masks):
                allowed[row] = unpacked(self.masks[at], vocabulary)
        return self.batch(step), allowed

    def state(self, step: int, vocabulary: int) -> dict[str, Array | float | int]:
        """The state behind chunk `step` but for the caches; step 0 is the request."""
        s = self.sampling
        assert s.seed is not None
        request: dict[str, Array | float | int] = {
            "bias": s.bias_row(vocabulary), "stop": stop_row(self.stop, vocabulary), "choice": s.choice,
            "min_p": s.min_p, "min_tokens": s.min_tokens, "prompt": self.prompt, "seed": s.seed,
            "temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p, "total": len(self.tokens),
        }  # fmt: skip
        if s.penalises:
            request |= {n: getattr(s, n) for n in PENALTIES}
        return request | self.place(step, vocabulary)

    def place(self, step: int, vocabulary: int) -> dict[str, Array | float | int]:
        """What of the state chunk `step` changes, but for the caches."""
        after = step * CHUNK
        state: dict[str, Array | float | int] = {
            "position": after,
            "next": self.tokens[after] if after < len(self.tokens) else 0,
        }
        if self.sampling.penalises:
            cut = min(after, self.prompt)
            for name, part in (
                ("given", self.tokens[:cut]),
                ("drawn", self.tokens[self.prompt : after]),
            ):
                state[name] = np.bincount(np.array(part, np.int64), minlength=vocabulary)
        return state


def unpacked(mask: Array, vocabulary: int) -> Array:
    """bool [vocabulary] of a mask in bits."""
    row: Array = np.unpackbits(mask.view(np.uint8), count=vocabulary, bitorder="little").view(
        np.bool_
    )
    return row


@dataclass(frozen=True)
class TextClaim:
    """What a claim commits to: what is fixed before the first chunk, and a record for each chunk."""

    header: RunHeader
    records: tuple[StepRecord, ...]
    # the hash of what was allowed in each chunk, where that is an input
    masks: tuple[bytes, ...] = ()

    @property
    def history(self) -> History:
        return History(self.header, self.records)


def claim_step(forward: Forward, text: Text) -> Step:
    """The program of a text's claim, with its first state."""
    capacity = capacity_for(len(text.tokens))
    first = first_state(forward, capacity, text.form, text.state(0, forward.vocabulary))
    return Step(forward.claim(capacity, text.form), first)


def header_of(step: Step) -> RunHeader:
    """What is fixed before the first chunk."""
    seed = step.initial[step.names.states.index("seed")]
    instance = step.instance
    return RunHeader(instance.numeric_id, instance.digest, step.weights_root,
                     step.state_root(step.initial), int(seed))  # fmt: skip


def claim_of(
    forward: Forward, text: Text, caches: Sequence[Array], threads: int | None = None,
    step: Step | None = None,
) -> TextClaim:  # fmt: skip
    """The claim of a text whose caches are at hand, [positions, heads, width] each. step: its own, if there is
    one already."""
    step = step or claim_step(forward, text)
    hashes = [_hashes(text, s, forward) for s in range(1, text.chunks + 1)]
    records = tuple(_records(step, forward, text, caches, hashes, threads))
    masks = () if text.masks is None else tuple(h[1] for h in hashes)
    return TextClaim(header_of(step), records, masks)


def _records(
    step: Step, forward: Forward, text: Text, caches: Sequence[Array], hashes: Sequence[list[bytes]],
    threads: int | None,
) -> Iterator[StepRecord]:  # fmt: skip
    unchanged = unchanged_states(step.graph)
    hasher = StateHasher(step.graph.states, unchanged=unchanged, threads=threads)
    now = dict(zip(step.names.states, map(np.array, step.initial), strict=True))
    for s in range(1, text.chunks + 1):
        start, end = (s - 1) * CHUNK, min(s * CHUNK, len(text.tokens) - 1)
        for name, cache in zip(forward.caches, caches, strict=True):
            now[name][0, start:end] = cache[start:end]
        for name, value in text.place(s, forward.vocabulary).items():
            now[name] = np.asarray(value).astype(now[name].dtype)
        root = state_root(hasher([now[n] for n in step.names.states]))
        yield StepRecord(root, 0, batch_digest(hashes[s - 1]))


def _hashes(text: Text, step: int, forward: Forward) -> list[bytes]:
    return [hash_array(x) for x in text.inputs(step, forward.vocabulary)]


def replay(
    forward: Forward, text: Text, step: Step, threads: int | None = None, isa: str | None = None
) -> Iterator[StepRecord]:
    """The records of a text's chunks as execution of its step gives them, one after the other."""
    runner = step.runner(threads=threads, isa=isa)
    hasher = StateHasher(
        step.graph.states, unchanged=unchanged_states(step.graph), threads=threads, isa=isa
    )
    for s in range(1, text.chunks + 1):
        loss = runner.run(text.inputs(s, forward.vocabulary))
        root = state_root(hasher(runner.state))
        yield StepRecord(root, int(loss.view(np.uint32)), batch_digest(_hashes(text, s, forward)))


def write_run(
    forward: Forward,
    text: Text,
    path: str | PathLike[str],
    *,
    threads: int | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> History:
    """Execute a text's claim as a run in the new directory `path`, which party, dispute and job take; its
    history. RunError."""
    step = claim_step(forward, text)
    result = run_steps(step, lambda s: text.inputs(s, forward.vocabulary), text.chunks, run=path,
                       checkpoint_every=1, threads=threads, progress=progress)  # fmt: skip
    assert result.history is not None
    return result.history
