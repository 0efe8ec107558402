"""A provider that lies about a text, in any operator of a chunk, loses by execution; an honest one wins."""

import collections
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.generation.claim import Text, claim_step
from ree.generation.engine import Engine
from ree.generation.request import Sampling
from ree.generation.scheduler import Generation, Scheduler
from ree.kernels import opdef
from ree.kernels.opdef import Form
from ree.kernels.types import DType
from ree.settlement.decidable import obstacles
from ree.settlement.evidence import Evidence
from ree.settlement.testing.referee import play
from ree.verde.fault import Fault, MaskedFault
from ree.verde.protocol import Reason
from ree.verde.testing import last_fault
from ree.verde.trained import Trained

from .tiny import STOP, model_of

AT = 2  # the chunk of 3 in which there is a lie
BITS = {DType.F32: (22, 29, 31, 25, 27), DType.I64: (0, 4, 45), DType.BOOL: (0,)}


def said(sampling, drawn=270):
    scheduler = Scheduler(Engine(model_of().forward, most=512))
    g = Generation((1, 2, 3, 4, 5), sampling, (STOP,), drawn)
    scheduler.submit(g)
    while g.finish is None:
        list(scheduler.step())
    return g.text()


SAMPLING = Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.001, seed=3, min_tokens=270)
PENALISED = replace(SAMPLING, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.1)


@cache
def text_of(form):
    """Of a form of claims; no stop token is drawn, so that there are three chunks."""
    if form == "plain":
        return said(SAMPLING)
    text = said(PENALISED)
    # that it is too early for a stop token a mask may say too: no draw is another
    allowed = np.ones(model_of().forward.vocabulary, np.bool_)
    allowed[STOP] = False
    masks = [np.packbits(allowed, bitorder="little")] * (len(text.tokens) - text.prompt)
    return replace(text, masks=masks)


@pytest.fixture(scope="module", params=["plain"])
def text(request):
    return text_of(request.param)


@pytest.fixture(scope="module")
def step(text):
    return claim_step(model_of().forward, text)


@pytest.fixture(scope="module")
def true(step, text):
    return Trained(step, inputs_of(text), text.chunks, threads=1)


@pytest.fixture(scope="module")
def honest(true):
    assert len(true.records) == 3
    assert not any(r.loss for r in true.records)
    return true.party()


def inputs_of(text):
    return lambda s: text.inputs(s, model_of().forward.vocabulary)


def operators():
    """(form, operator) of the steps of claims, but those that only move elements; of the penalised one those
    that it has more often."""
    forward, counts = model_of().forward, {}
    for form in ("plain", "penalised"):
        sampling = Sampling(seed=0, presence_penalty=float(form != "plain"))
        text = Text((1,) * 300, 5, sampling, (), None if form == "plain" else ())
        nodes = claim_step(forward, text).instance.graph.nodes
        ops = [n.op for n in nodes if opdef.get(n.op).form is not Form.MOVEMENT]
        counts[form] = collections.Counter(ops)
    more = counts["penalised"] - counts["plain"]
    return [("plain", op) for op in sorted(counts["plain"])] + [
        ("penalised", op) for op in sorted(more)
    ]


def test_a_chunk_is_decidable(step):
    assert obstacles(step.instance.graph) == []


def lies(step, scope, op, text):
    """Faults in every node of an operator, in several elements and bits; some are of tokens that were drawn."""
    vocabulary = model_of().forward.vocabulary
    drawn = {r * vocabulary + text.tokens[128 * (AT - 1) + r + 1] for r in (20, 60, 61, 90)}
    for node in reversed([n for n in step.instance.graph.nodes if n.op == op]):
        for v, t in enumerate(node.results, node.first):
            wide = drawn if t.numel == 128 * vocabulary else set()
            for element in sorted({t.numel - 1, t.numel // 2, 0} | wide, reverse=True):
                fault = last_fault(scope, v, element)
                for bit in BITS[t.dtype]:
                    yield replace(fault, flip=1 << bit)


@pytest.mark.parametrize(("text", "op"), operators(), indirect=["text"])
def test_a_lie_in_any_operator_loses(op, step, text, true, honest):
    scope = honest.party(AT).run.scope
    for fault in lies(step, scope, op, text):
        try:
            liar = Trained(step, inputs_of(text), text.chunks, (AT, fault), true, threads=1).party()
        except MaskedFault:
            continue
        if liar.statement.history != honest.statement.history:
            break
    else:
        pytest.fail(f"no lie in {op} reaches the caches or the count")
    evidence = Evidence(honest.game, step.instance)
    end = play(evidence, honest.game.begin(liar.statement), liar, honest)
    assert (end.winner, end.step, end.cause) == ("challenger", AT, Reason.EXECUTED), end.reason
    end = play(evidence, honest.game.begin(honest.statement), honest, liar)
    assert end.winner == "defender", end.reason


@pytest.mark.parametrize("what", ["a token", "a stop token", "the seed"])
def test_a_count_that_hides_something_loses(what, text):
    """A liar says that nothing is wrong: it flips the count of its last chunk to zero."""
    if what == "a token":
        tokens = list(text.tokens)
        tokens[150] = (tokens[150] + 1) % 250
        false = replace(text, tokens=tuple(tokens))
    elif what == "a stop token":
        false = replace(
            text, stop=(text.tokens[200],), sampling=replace(text.sampling, min_tokens=0)
        )
    else:
        false = replace(text, sampling=replace(text.sampling, seed=4))
    step = claim_step(model_of().forward, false)

    batch = inputs_of(false)

    true = Trained(step, batch, false.chunks, threads=1)
    at = next(s for s, r in enumerate(true.records, 1) if r.loss)
    count = np.uint32(true.records[at - 1].loss)
    fault = Fault(step.instance.graph.outputs[-1].index, 0, 0, int(count))
    liar = Trained(step, batch, false.chunks, (at, fault), true, threads=1)
    assert liar.records[at - 1].loss == 0
    honest, liar = true.party(), liar.party()
    evidence = Evidence(honest.game, step.instance)
    end = play(evidence, honest.game.begin(liar.statement), liar, honest)
    assert (end.winner, end.step, end.cause) == ("challenger", at, Reason.EXECUTED), end.reason
