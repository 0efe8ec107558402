"""Beginnings that were read before: taken over or not, a text's claim is the same; memory has a bound."""

from dataclasses import replace

import numpy as np
import pytest

from ree.generation.claim import claim_of
from ree.generation.engine import Engine
from ree.generation.layout import CHUNK
from ree.generation.pages import Pages
from ree.generation.request import Sampling
from ree.generation.scheduler import Generation, Scheduler

from .tiny import model_of

SAMPLING = Sampling(temperature=0.8, top_k=40, seed=3)
PAGE = 4 * sum(CHUNK * h * w for h, w in model_of().forward.cache_shapes)  # bytes


def text(n, seed=0):
    return tuple(np.random.default_rng(seed).integers(0, 250, n).tolist())


def said(scheduler, prompt, drawn=5, salt="", sampling=SAMPLING):
    """The claim of a text, and how much of it was taken over."""
    g = Generation(prompt, sampling, (), drawn, salt=salt)
    scheduler.submit(g)
    while g.finish is None:
        list(scheduler.step())
    claim = claim_of(model_of().forward, g.text(), scheduler.caches(g))
    scheduler.release(g)
    return claim, g.reused


def scheduler_of(most, slots=1):
    return Scheduler(Engine(model_of().forward, slots, most=512), pages=Pages(most))


def alone(prompt, **options):
    return said(Scheduler(Engine(model_of().forward, most=512), reuse=False), prompt, **options)[0]


@pytest.mark.parametrize("length", [128, 129, 200, 256, 257, 300])
def test_cold_warm_and_evicted_are_the_same(length):
    s, prompt, other = scheduler_of(3 * PAGE), text(length), text(400, 1)
    want = alone(prompt)
    cold = said(s, prompt)
    assert cold == (want, 0)
    said(s, text(130, 7))  # the slot itself holds something else now
    warm = said(s, prompt)
    pages = length // CHUNK
    assert warm == (want, min(pages * CHUNK, length - 1))
    said(s, other)  # three pages: all others go
    assert said(s, prompt) == (want, 0)


def test_pages_of_what_was_drawn_too():
    """The next turn of a conversation begins with the answer before."""
    s = scheduler_of(8 * PAGE)
    g = Generation(text(100), SAMPLING, (), 100)
    s.submit(g)
    while g.finish is None:
        list(s.step())
    turn = (*g.tokens, 1, 2, 3)
    s.release(g)
    said(s, text(130, 7))
    assert said(s, turn) == (alone(turn), CHUNK)


def test_other_beginnings_and_other_salts_are_not_taken_over():
    s, prompt = scheduler_of(8 * PAGE), text(300)
    said(s, prompt)
    first = (prompt[0] + 1, *prompt[1:])
    assert said(s, first) == (alone(first), 0)  # the same last tokens behind another first one
    said(s, text(130, 7))
    assert said(s, prompt, salt="mine")[1] == 0
    assert said(s, prompt, salt="yours")[1] == 0  # in the same slot, that holds it
    assert said(s, prompt, salt="yours")[1] == 299
    assert said(s, text(130, 7))[1] > 0
    assert said(s, prompt, salt="mine")[1] == 256


def test_a_page_is_that_of_all_before_it():
    one, other, second = text(CHUNK), text(CHUNK, 1), text(CHUNK, 2)
    s = scheduler_of(8 * PAGE)
    said(s, (*one, *second, 5))
    said(s, (*other, *text(CHUNK, 3), 5))
    mixed = (*other, *second, 5)
    said(s, text(130, 7))
    assert said(s, mixed) == (alone(mixed), CHUNK)


def test_a_store_has_a_bound():
    pages, forward = Pages(5 * PAGE), model_of().forward
    caches = [np.zeros((512, *shape), np.float32) for shape in forward.cache_shapes]
    for seed in range(10):
        pages.keep("", text(300, seed), caches)
        assert pages.nbytes == len(pages) * PAGE <= 5 * PAGE
    assert len(pages.find("", text(300, 9))) == 2
    assert len(pages.find("", text(300, 0))) == 0
    none = Pages(0)
    none.keep("", text(300), caches)
    assert len(none) == 0


def test_the_end_of_a_beginning_goes_before_its_start():
    pages, forward = Pages(3 * PAGE), model_of().forward
    caches = [np.zeros((512, *shape), np.float32) for shape in forward.cache_shapes]
    long, short = text(256), text(256, 1)
    pages.keep("", long, caches)
    pages.find("", long)
    pages.keep("", short, caches)
    assert len(pages.find("", short)) == 2
    assert len(pages.find("", long)) == 1


def test_many_texts_that_share_beginnings():
    """Forks of few texts in two slots, a small store: every claim is that of the text alone."""
    rng, s = np.random.default_rng(5), scheduler_of(4 * PAGE, 2)
    base, made, claims = [text(300, i) for i in range(3)], [], {}
    for i in range(16):
        cut = int(rng.integers(100, 300))
        prompt = (*base[i % 3][:cut], *rng.integers(0, 250, int(rng.integers(1, 30))).tolist())
        made.append(Generation(prompt, replace(SAMPLING, seed=i), (), int(rng.integers(1, 20))))
    left = list(made)
    while left or not s.idle:
        if left and rng.integers(3) == 0:
            s.submit(left.pop(0))
        for g, _ in s.step():
            if g.finish is not None:
                claims[g] = claim_of(model_of().forward, g.text(), s.caches(g))
                s.release(g)
    assert sum(g.reused for g in made) > 500
    for g in made:
        assert claims[g] == alone(g.prompt, drawn=g.max_tokens, sampling=g.sampling)


def test_texts_are_computed_beside_no_empty_slots():
    """One text after the other takes another slot, and each step still has one row; two texts apart have the
    rows between them."""
    s, widths = scheduler_of(0, slots=4), []
    step = s.engine.step
    s.engine.step = lambda tokens, *rest: widths.append(len(tokens)) or step(tokens, *rest)
    places = set()
    for seed in range(4):
        g = Generation(text(20, seed), SAMPLING, (), 6)
        s.submit(g)
        while g.finish is None:
            list(s.step())
            places.add(g.slot)
        s.release(g)
        assert g.tokens[20:] == s_alone(text(20, seed))
    assert len(places) == 4
    assert set(widths) == {1}
    several = [Generation(text(20, seed), SAMPLING, (), 6) for seed in range(4)]
    for g in several:
        s.submit(g)
    list(s.step())
    for g in several[1:3]:  # those in the middle go
        s.release(g)
    widths.clear()
    ends = several[0], several[3]
    while any(g.finish is None for g in ends):
        list(s.step())
    assert set(widths) == {4}
    assert [g.tokens[20:] for g in ends] == [s_alone(text(20, seed)) for seed in (0, 3)]


def s_alone(prompt):
    g = Generation(prompt, SAMPLING, (), 6)
    s = Scheduler(Engine(model_of().forward, most=512), reuse=False)
    s.submit(g)
    while g.finish is None:
        list(s.step())
    return g.tokens[20:]
