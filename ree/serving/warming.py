"""Warming up: what the first requests would wait for is prepared before a model is called ready."""

from __future__ import annotations

from contextlib import suppress

from ree.errors import ReeError
from ree.generation.engine import BATCHES, QUERIES
from ree.generation.generator import Completion, Request
from ree.generation.model import LanguageModel
from ree.generation.request import Sampling
from ree.generation.scheduler import Scheduler

POSITIONS = 512  # that every slot has room for from the start


def warm_up(model: LanguageModel, scheduler: Scheduler, threads: int | None = None) -> None:
    """Prepare code and memory for prompts of every width, for every number of slots, for claims, and for the
    template. The scheduler has run nothing yet; what is computed on the way is thrown away."""
    engine = scheduler.engine
    engine.reserve(min(POSITIONS, engine.most))
    widths = [sum(QUERIES[:i]) for i in range(1, len(QUERIES) + 1)]
    longest = max(w for w in widths if w == 1 or w < engine.most)
    engine.read(0, [0] * longest, 0)  # the most memory first: what is prepared lies in it
    for n in sorted({engine.width(n) for n in BATCHES if n <= engine.slots} | {engine.slots}):
        engine.step([0] * n, [0] * n, [False] * n)
    for length in {1, longest}:
        _answer(model, scheduler, length, threads)
    with suppress(ReeError):  # one that does not take this is no worse for it
        model.chat_prompt([{"role": "user", "content": "hi"}], "2000-01-01")


def _answer(model: LanguageModel, scheduler: Scheduler, length: int, threads: int | None) -> None:
    """One text with a prompt of `length` tokens, to its receipt."""
    asked = Request(
        tokens=[0] * length,
        sampling=Sampling(temperature=1.0, seed=0),
        max_tokens=1,
        stop_tokens=(),
    )
    answer = Completion(model, asked)
    scheduler.submit(answer.generation)
    while answer.finish is None:
        for _, token in scheduler.step():
            answer.take(token)
    answer.receipt(answer.claim(scheduler, threads))
    scheduler.abort(answer.generation)
