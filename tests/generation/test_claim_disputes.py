"""A provider that lies about a text, in any operator of a chunk, loses by execution; an honest one wins."""

from dataclasses import replace

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


@pytest.fixture(scope="module")
def text():
    # no stop token is drawn, so that there are three chunks
    return said(
        Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.001, seed=3, min_tokens=270)
    )


@pytest.fixture(scope="module")
def step(text):
    return claim_step(model_of().forward, text)


@pytest.fixture(scope="module")
def true(step, text):
    return Trained(step, lambda s: (text.batch(s),), text.chunks, threads=1)


@pytest.fixture(scope="module")
def honest(true):
    assert len(true.records) == 3
    assert not any(r.loss for r in true.records)
    return true.party()


def operators():
    """Of the step of a claim, but those that only move elements."""
    forward = model_of().forward
    text = Text((1,) * 300, 5, Sampling(seed=0), ())
    ops = {n.op for n in claim_step(forward, text).instance.graph.nodes}
    return sorted(op for op in ops if opdef.get(op).form is not Form.MOVEMENT)


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


@pytest.mark.parametrize("op", operators())
def test_a_lie_in_any_operator_loses(op, step, text, true, honest):
    scope = honest.party(AT).run.scope
    for fault in lies(step, scope, op, text):
        try:
            liar = Trained(
                step, lambda s: (text.batch(s),), text.chunks, (AT, fault), true, threads=1
            ).party()
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

    def batch(s):
        return (false.batch(s),)

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
