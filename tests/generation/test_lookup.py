"""Guesses: what a text is made of does not depend on them, however right or wrong they are."""

from dataclasses import replace

import numpy as np
import pytest

from ree.generation.claim import claim_of
from ree.generation.engine import Engine
from ree.generation.generator import Completion, Request
from ree.generation.grammar import Grammar
from ree.generation.lookup import LEAST, LONGEST, PATIENCE, PAUSE, Lookup
from ree.generation.request import Sampling
from ree.generation.scheduler import Scheduler

from .tiny import STOP, model_of

DRAWN = Sampling(temperature=0.8, top_k=3, seed=-7)
AGAIN = replace(DRAWN, repetition_penalty=0.2)  # what occurred is likelier
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0, seed=0), "drawn": DRAWN, "again": AGAIN,
    "late": replace(AGAIN, min_tokens=90), "rare": replace(DRAWN, frequency_penalty=0.4, presence_penalty=-1.0),
}  # fmt: skip
CYCLE = tuple(range(40, 60)) * 4


def answered(request, speculate=True, guess=None):
    """The answer with its claim, and how many guessed tokens were right."""
    scheduler = Scheduler(Engine(model_of().forward, most=512), speculate=speculate)
    answer = Completion(model_of(), request)
    g = answer.generation
    learnt = []
    if guess is not None:
        g.lookup = guess
    learn = g.lookup.learn
    g.lookup.learn = lambda right, length: (learnt.append(right), learn(right, length))
    scheduler.submit(g)
    while answer.finish is None:
        for _, token in scheduler.step():
            answer.take(token)
            if answer.finish is not None:
                break
    claim = claim_of(model_of().forward, g.text(), scheduler.caches(g))
    return (
        tuple(g.tokens),
        answer.text,
        answer.finish,
        claim,
        g.drawn_logprobs,
        len(g.masks),
    ), learnt


@pytest.mark.parametrize("name", SAMPLINGS)
def test_guesses_change_nothing(name):
    request = Request(
        tokens=CYCLE, sampling=SAMPLINGS[name], max_tokens=200, stop_tokens=(STOP,), logprobs=2
    )
    want, none = answered(request, speculate=False)
    got, learnt = answered(request)
    assert got == want
    assert not none
    assert learnt or name == "rare"


def test_guesses_are_right_where_a_text_repeats_itself():
    """Fewer calls than tokens: what occurred is drawn again."""
    request = Request(tokens=CYCLE, sampling=replace(AGAIN, seed=1), max_tokens=200, stop_tokens=())
    _, learnt = answered(request)
    assert sum(learnt) > 20


class Any(Lookup):
    """Guesses without reason, of every length, many of them right by `known`."""

    def __init__(self, known):
        super().__init__()
        self._rng, self._text = np.random.default_rng(0), known

    def guess(self, tokens, most):
        n = int(self._rng.integers(0, min(most, LONGEST) + 1))
        out = list(self._text[len(tokens) : len(tokens) + n])
        if out and self._rng.random() < 0.5:
            out[int(self._rng.integers(len(out)))] = int(self._rng.integers(256))
        return out


@pytest.mark.parametrize("stop", [(), ("a",), ("zz", "b")])
def test_any_guess_is_as_good(stop):
    request = Request(
        tokens=(5, 6, 7), sampling=DRAWN, max_tokens=300, stop_tokens=(STOP,), stop=stop, logprobs=0
    )
    want, _ = answered(request, speculate=False)
    got, learnt = answered(request, guess=Any(want[0]))
    assert got == want
    assert sum(learnt) > 20 or len(want[0]) < 60


def test_within_a_grammar():
    grammar = Grammar("regex", "(abcdefgh|xyz){10,40}")
    request = Request(tokens=(97, 98), sampling=DRAWN, max_tokens=300, grammar=grammar)
    want, _ = answered(request, speculate=False)
    got, _ = answered(request, guess=Any(want[0]))
    assert got == want


@pytest.mark.parametrize("length", [500, 505, 508, 511])
def test_at_the_end_of_the_context(length):
    request = Request(tokens=(CYCLE * 8)[:length], sampling=AGAIN, max_tokens=100, stop_tokens=())
    want, _ = answered(request, speculate=False)
    got, _ = answered(request)
    assert got == want
    assert len(want[0]) == 512


def test_what_a_lookup_guesses():
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3]
    assert Lookup().guess(text, 100) == [4, 5, 6, 7, 8, 9, 10]
    assert Lookup().guess(text, LEAST) == [4, 5, 6, 7]
    assert Lookup().guess(text, LEAST - 1) == []
    assert Lookup().guess(text[:-1], 100) == []
    later = [1, 2, 3, 0, 0, 0, 0, *text]
    assert Lookup().guess(later, 4) == [4, 5, 6, 7]  # the last place counts


def test_wrong_guesses_make_it_quiet_for_a_while():
    look, text = Lookup(), [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3]
    for _ in range(PATIENCE):
        assert look.guess(text, 10)
        look.learn(0, len(text))
    assert not look.guess(text, 10)
    later = text + [50 + i for i in range(PAUSE - 3)] + [1, 2, 3]
    assert look.guess(later, 10)
