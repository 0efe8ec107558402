"""Claims of texts: honest ones replay to the bit and lose nothing; any other token or setting shows."""

from dataclasses import replace

import numpy as np
import pytest

from ree.generation.claim import Text, claim_of, claim_step, replay, write_run
from ree.generation.engine import Engine
from ree.generation.generator import Generator, Request
from ree.generation.request import Sampling
from ree.generation.scheduler import Generation, Scheduler
from ree.training.directory import RunReader
from ree.training.replay import verify_run

from .tiny import STOP, model_of

DRAWN = Sampling(temperature=0.8, top_p=0.9, top_k=50, min_p=0.01, seed=-7, choice=2)
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0, seed=0), "drawn": DRAWN, "all": Sampling(seed=2**63 - 1),
    "biased": replace(DRAWN, bias={STOP: -100.0, 7: 3.5}), "late": replace(DRAWN, min_tokens=20),
    "not again": replace(DRAWN, repetition_penalty=1.4), "again": replace(DRAWN, repetition_penalty=0.6),
    "fresh": replace(DRAWN, presence_penalty=1.1), "rare": replace(DRAWN, frequency_penalty=0.3),
    "penalties": Sampling(0.0, seed=3, repetition_penalty=1.2, presence_penalty=-0.4, frequency_penalty=0.25,
                          bias={9: 2.0}, min_tokens=9),
}  # fmt: skip


def generation(sampling, prompt=20, drawn=150, stop=(STOP,), seed=0):
    tokens = np.random.default_rng(seed).integers(0, 256, prompt).tolist()
    return Generation(tuple(tokens), sampling, stop, drawn)


def finished(*generations, slots=1, **options):
    """The generations after a scheduler ended them all, with the claim of each."""
    forward = model_of().forward
    scheduler = Scheduler(Engine(forward, slots, most=512, **options))
    for g in generations:
        scheduler.submit(g)
    claims = {}
    while not scheduler.idle:
        for g, _ in scheduler.step():
            if g.finish is not None:
                claims[g] = claim_of(forward, g.text(), scheduler.caches(g))
                scheduler.release(g)
    return [claims[g] for g in generations]


def replayed(text, **options):
    forward = model_of().forward
    return tuple(replay(forward, text, claim_step(forward, text), **options))


@pytest.mark.parametrize("name", SAMPLINGS)
def test_an_honest_claim_replays(name):
    g = generation(SAMPLINGS[name])
    (claim,) = finished(g)
    assert claim.records == replayed(g.text())
    assert all(r.loss == 0 for r in claim.records)
    assert g.drawn >= SAMPLINGS[name].min_tokens
    assert len(g.tokens) == 170 or g.tokens[-1] == STOP


@pytest.mark.parametrize("total", [1, 2, 127, 128, 129, 256, 257])
def test_texts_that_end_at_the_borders_of_chunks(total):
    g = generation(SAMPLINGS["drawn"], max(total - 5, 1), max(min(5, total - 1), 1), stop=())
    (claim,) = finished(g)
    assert len(claim.records) == -(-len(g.tokens) // 128)
    assert claim.records == replayed(g.text(), isa="portable", threads=1)


def test_a_prompt_without_an_answer_is_a_claim():
    text = Text((1, 2, 3), 3, SAMPLINGS["greedy"], ())
    (record,) = replayed(text)
    assert record.loss == 0


def counted(text):
    return [np.uint32(r.loss).view(np.float32) for r in replayed(text)]


def honest():
    g = generation(DRAWN, stop=())
    finished(g)
    return g.text()


@pytest.mark.parametrize("at", [20, 21, 100, 127, 128, 129, 169])
def test_another_token_is_counted_in_its_chunk(at):
    text = honest()
    tokens = list(text.tokens)
    tokens[at] = (tokens[at] + 1) % 250
    found = counted(replace(text, tokens=tuple(tokens)))
    assert found[(at - 1) // 128] >= 1
    assert not any(found[: (at - 1) // 128])


@pytest.mark.parametrize("changed", [{"seed": -6}, {"temperature": 0.81}, {"top_p": 0.2}, {"top_k": 2},
                                     {"min_p": 0.9}, {"choice": 3}, {"bias": {3: 9.0}},
                                     {"repetition_penalty": 1.5}, {"presence_penalty": 2.0},
                                     {"frequency_penalty": -1.0}])  # fmt: skip
def test_another_sampling_is_counted(changed):
    text = honest()
    assert sum(counted(replace(text, sampling=replace(text.sampling, **changed)))) >= 1


def test_a_stop_token_within_an_answer_is_counted():
    text = honest()
    inner = text.tokens[60]
    assert sum(counted(replace(text, stop=(inner,)))) == text.tokens[20:-1].count(inner)


def test_too_early_a_stop_is_counted():
    g = generation(replace(DRAWN, bias={STOP: 30.0}))
    finished(g)
    assert g.finish == "stop"
    assert g.drawn < 20
    text = g.text()
    assert sum(counted(replace(text, sampling=replace(text.sampling, min_tokens=20)))) >= 1


def test_a_prompt_that_is_longer_hides_no_token():
    text = honest()
    tokens = list(text.tokens)
    tokens[60] = (tokens[60] + 1) % 250
    # the tokens before 70 are now said to be given: another S0, so another claim
    other = replace(text, tokens=tuple(tokens), prompt=70)
    forward = model_of().forward
    roots = [
        claim_step(forward, t).state_root(claim_step(forward, t).initial) for t in (text, other)
    ]
    assert roots[0] != roots[1]


def test_batches_that_do_not_meet_are_counted():
    """The last token of a chunk's batch is the first of the next one's."""
    text, forward = honest(), model_of().forward
    step = claim_step(forward, text)
    runner = step.runner()
    runner.run([text.batch(1)])
    batch = text.batch(2)
    batch[0] = (batch[0] + 1) % 250
    assert runner.run([batch]) >= 1


def test_what_stands_behind_the_end_is_counted():
    text, forward = Text((1, 2, 3), 3, SAMPLINGS["greedy"], ()), model_of().forward
    runner = claim_step(forward, text).runner()
    batch = text.batch(1)
    batch[100] = 5
    assert runner.run([batch]) == 1


def test_together_apart_and_late_are_the_same_claims():
    def some():
        return [generation(replace(DRAWN, seed=i), 3 + 41 * i, 30 + i, seed=i) for i in range(5)]

    alone = [finished(g)[0] for g in some()]
    assert finished(*some(), slots=8) == alone
    assert finished(*some(), slots=2, threads=1, isa="portable") == alone  # three of them wait


def test_others_that_leave_change_nothing():
    forward = model_of().forward
    (want,) = finished(generation(DRAWN))
    scheduler = Scheduler(Engine(forward, 3, most=512))
    others = [generation(replace(DRAWN, seed=i), 60, 200, (), seed=i) for i in range(4)]
    mine = generation(DRAWN)
    for g in (others[0], mine, *others[1:]):
        scheduler.submit(g)
    steps, claim = 0, None
    while claim is None:
        for g, _ in scheduler.step():
            if g is mine and g.finish is not None:
                claim = claim_of(forward, g.text(), scheduler.caches(g))
        steps += 1
        if steps % 7 == 0 and others:
            scheduler.abort(others.pop(0))
    assert claim == want


def test_a_claim_is_a_run(tmp_path):
    g = generation(DRAWN)
    (claim,) = finished(g)
    history = write_run(model_of().forward, g.text(), tmp_path / "run")
    assert history.commitment == claim.history.commitment
    run = RunReader(tmp_path / "run")
    assert run.records == list(claim.records)
    assert verify_run(run).same


def test_a_generator_gives_what_its_receipt_claims():
    generator = Generator(model_of())
    receipt, pieces = generator.generate(
        Request(
            messages=[{"role": "user", "content": "hello there"}], sampling=DRAWN, max_tokens=40
        )
    )
    assert "".join(p.text for p in pieces) == receipt.text
    assert tuple(p.token for p in pieces) == receipt.completion_tokens
    assert [r.state_root.hex() for r in replayed(receipt.claimed)] == [
        s for s, _ in receipt.records
    ]
    again, _ = generator.generate(
        Request(tokens=receipt.prompt_tokens, sampling=DRAWN, max_tokens=40)
    )
    assert again.completion_tokens == receipt.completion_tokens


def test_a_text_that_fills_the_capacity_while_another_goes_on():
    """Its last position is not where a slot that only looks on gets its zero."""
    forward = model_of().forward
    first, other, mine = (
        generation(DRAWN, 3, 2, ()),
        generation(DRAWN, 3, 60, ()),
        generation(DRAWN, 128, 20, ()),
    )
    (want,) = finished(generation(DRAWN, 128, 20, ()))
    scheduler = Scheduler(Engine(forward, 2, most=512))
    for g in (first, other):
        scheduler.submit(g)
    while first.finish is None:
        list(scheduler.step())
    scheduler.release(first)
    scheduler.submit(mine)
    while mine.finish is None:
        list(scheduler.step())
    assert (mine.slot, other.slot) == (0, 1)
    assert claim_of(forward, mine.text(), scheduler.caches(mine)) == want


@pytest.mark.parametrize("length", [505, 508, 509, 511])
def test_a_prompt_that_leaves_little_room(length):
    g = generation(DRAWN, length, 100, ())
    (claim,) = finished(g)
    assert (g.finish, len(g.tokens)) == ("length", 512)
    assert claim.records == replayed(g.text())


@pytest.mark.parametrize("common", [1, 50, 127, 128, 140, 159])
@pytest.mark.parametrize("live", [False, True])
def test_what_is_taken_over_changes_nothing(common, live):
    """From a text that has ended, and from one that goes on."""
    forward = model_of().forward
    one, other = generation(DRAWN, 160, 30, ()), generation(DRAWN, 160, 30, ())
    other.tokens[common] = (other.tokens[common] + 1) % 250
    other = Generation(tuple(other.tokens), DRAWN, (), 30)
    (want,) = finished(replace(other, tokens=[]))
    scheduler = Scheduler(Engine(forward, 2, most=512))
    scheduler.submit(one)
    while one.read < 160 if live else one.finish is None:
        list(scheduler.step())
    if not live:
        scheduler.release(one)
    scheduler.submit(other)
    while other.finish is None:
        list(scheduler.step())
    assert other.reused == common
    assert claim_of(forward, other.text(), scheduler.caches(other)) == want
    while one.finish is None:
        list(scheduler.step())
    (alone,) = finished(generation(DRAWN, 160, 30, ()))
    assert not live or claim_of(forward, one.text(), scheduler.caches(one)) == alone


def test_slots_that_others_left_and_many_that_come():
    """Prefixes, forks and repetitions in few slots: every claim is that of the text alone."""
    rng, forward = np.random.default_rng(5), model_of().forward
    scheduler = Scheduler(Engine(forward, 3, most=512))
    base = [rng.integers(0, 250, 150).tolist() for _ in range(2)]
    made, claims = [], {}
    for i in range(14):
        cut = int(rng.integers(1, 150))
        prompt = (*base[i % 2][:cut], *rng.integers(0, 250, int(rng.integers(1, 40))).tolist())
        made.append(Generation(tuple(prompt), replace(DRAWN, seed=i), (), int(rng.integers(1, 40))))
    left = list(made)
    while left or not scheduler.idle:
        if left and rng.integers(3) == 0:
            scheduler.submit(left.pop(0))
        for g, _ in scheduler.step():
            if g.finish is not None:
                claims[g] = claim_of(forward, g.text(), scheduler.caches(g))
                scheduler.release(g)
    assert sum(g.reused for g in made) > 300
    for g in made:
        (alone,) = finished(Generation(g.prompt, g.sampling, g.stop, g.max_tokens))
        assert claims[g] == alone
