"""Where an operator's sources lead: a derivation shows it, and nothing else is taken for it."""

import struct
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.compiler.ir import Builder
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.evidence import Evidence
from ree.settlement.openings import bundle, proof
from ree.settlement.terms import UNREAD
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.referee import referee
from ree.settlement.ways import MOVED, Hop, Way
from ree.verde.derivation import place
from ree.verde.fault import Fault, FaultyParty
from ree.verde.game import Game
from ree.verde.moves import Phase, Prove, State
from ree.verde.party import Party, run_of
from ree.verde.protocol import Reason
from ree.verde.scope import VALUES, ElementPlace

HOP_BYTES = 33  # a kind and a digest


def disputes():
    """A product of two values behind moves, the second of them behind the first's; and query times key."""
    rng, b = np.random.default_rng(0), Builder()
    x = b.add("neg", b.input(TensorType(DType.F32, (1, 32, 96))))
    parts = [b.add("permute", b.add("view", b.add("neg", x), shape=(1, 32, 3, 32)), dims=(0, 2, 1, 3))
             for _ in range(3)]  # fmt: skip
    y = b.add("attention", *parts, causal=True, scale=0.25, window=0, q_offset=0)
    left = b.add("view", b.add("permute", b.add("neg", y), dims=(0, 2, 1, 3)), shape=(32, 96))
    z = b.add("linear", left, b.add("permute", b.add("permute", left, dims=(1, 0)), dims=(1, 0)))
    program = Program(b.finish((z, left)), Names(("x",), ("z", "y"), ()), ())
    run, instance = run_of(program, (rng.standard_normal((1, 32, 96)).astype(np.float32),))
    faults = (Fault(z.index, 77, 20, 1 << 22), Fault(y.index, 777, 20, 1 << 22, (1, 5)))
    return [(run, instance, fault) for fault in faults]


@pytest.fixture(scope="module", params=(0, 1), ids=("product", "attention"))
def stages(request):
    """Evidence, states and moves of DERIVE and PROVE."""
    run, instance, fault = disputes()[request.param]
    evidence = Evidence(Game(run.scope), instance)
    honest, liar = Party(run, instance.digest), FaultyParty(run, fault, instance.digest)
    s, found = State(liar.statement), {}
    while s.phase is not Phase.OVER:
        move = (liar if s.player == "defender" else honest).move(s)
        found[s.phase] = (s, move, evidence.state(s), evidence.move(s, move))
        s = evidence.game.apply(s, move)
    assert s.winner == "challenger"
    assert s.cause is Reason.EXECUTED
    return evidence, found, liar


def respond(before: bytes, data: bytes) -> bytes:
    return bytes(referee().call("respond", *UNREAD, before, data))


def ways_of(evidence, s):
    return evidence.ways(s.tree, s.tensor, s.owner[:2] if s.owner else None)


def derive(evidence, s, m, encoded: bytes, shown: bytes) -> bytes:
    """A DERIVE with these ways."""
    statement = [b"\1", evidence.statement(s.statement)]
    rest = [evidence._record(s), *statement, shown, m.entries, m.last.leaf, proof(m.last.proof)]
    return bundle([encoded, *evidence._blobs(s, counted=True)], rest)


def test_the_state_after_a_derivation_binds_the_ways(stages):
    evidence, found, _ = stages
    s, m, before, data = found[Phase.DERIVE]
    ways = ways_of(evidence, s)
    assert data == derive(evidence, s, m, ways.encode(), ways.shown)
    assert all(len(w.hops) > 1 for w in ways.ways)
    assert respond(before, data) == evidence.state(evidence.game.apply(s, m))


def test_other_ways_are_refused(stages):
    """Another end, a way cut short, one more hop, another order, a byte behind the last way."""
    evidence, found, _ = stages
    s, m, before, _ = found[Phase.DERIVE]
    ways = ways_of(evidence, s)
    good, shown = [w.encode() for w in ways.ways], ways.shown
    one, end = good[0], good[0][-5:]
    other_end = [one[:-1] + bytes([one[-1] ^ 1]), one[:-5] + bytes([end[0] ^ 1]) + end[1:]]
    kind = one[:1] + bytes([one[1] ^ 1]) + one[2:]
    short = bytes([one[0] - 1]) + one[1 : -HOP_BYTES - 5] + end
    last = ways.ways[0].hops[-2]  # where the way is at its last but one hop
    stop = struct.pack(">BI", 0, last.value - 1 if last.value is not None else 0)
    altered = [
        *other_end,
        kind,
        short,
        short[:-5] + stop,
        bytes([one[0] + 1]) + one[1:],
        one + b"\0",
    ]
    for first in altered:
        with pytest.raises(Reverted):
            respond(before, derive(evidence, s, m, first + b"".join(good[1:]), shown))
    for encoded in (b"".join(good[::-1]), b"".join(good[:1]), b"".join([*good, good[0]])):
        if encoded != b"".join(good):
            with pytest.raises(Reverted):
                respond(before, derive(evidence, s, m, encoded, shown))
    for wrong in (shown[1:], shown + bytes(1), shown[:-33], b""):
        with pytest.raises(Reverted):
            respond(before, derive(evidence, s, m, b"".join(good), wrong))


def test_every_bit_of_what_shows_the_ways_counts(stages):
    evidence, found, _ = stages
    s, m, before, _ = found[Phase.DERIVE]
    ways = ways_of(evidence, s)
    encoded, shown, rng = ways.encode(), ways.shown, np.random.default_rng(1)
    for at in rng.integers(0, len(shown), 150):
        bad = bytearray(shown)
        bad[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(Reverted):
            respond(before, derive(evidence, s, m, encoded, bytes(bad)))
    for at in range(len(encoded)):
        bad = bytearray(encoded)
        bad[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(Reverted):
            respond(before, derive(evidence, s, m, bytes(bad), shown))


def test_what_computes_is_no_move(stages):
    """A way that goes on through an operator that has an index rule too."""
    evidence, found, _ = stages
    s, m, before, _ = found[Phase.DERIVE]
    ways, scope = ways_of(evidence, s), evidence.game.program
    at = next(i for i, w in enumerate(ways.ways) if scope.producers[w.index].op == "neg")
    way = ways.ways[at]
    node, leaf = scope.node(VALUES, way.index)[0], evidence.records[way.index]
    hop = Hop(MOVED, node, leaf, tuple(evidence.record_tree.prove(way.index)), way.index)
    (source,) = scope.producers[way.index].sources
    longer = Way((*way.hops, hop), source.kind, source.index)
    altered = replace(ways, ways=(*ways.ways[:at], longer, *ways.ways[at + 1 :]))
    with pytest.raises(Reverted, match="not moved"):
        respond(before, derive(evidence, s, m, altered.encode(), altered.shown))


def test_another_tensor_opened_is_no_proof(stages):
    """Of the first value of the program, with an opening that is true, in place of the operand."""
    evidence, found, liar = stages
    s, m, before, data = found[Phase.PROVE]
    ways, read = ways_of(evidence, s), evidence.game.derivation(s).operation(s.entry).operands[0]
    at = evidence.game.scope(s).resolve(s.tree, s.tensor, read.source, place(read, lambda i: 0))
    other = ElementPlace(VALUES, 0, evidence.game.program.type(VALUES, 0), at.flat)
    assert at.index > 0
    openings = (liar.committed[VALUES].open(other), *m.openings[1:])
    false = replace(ways.ways[read.source], index=0)
    known = evidence.ways
    found_ways = tuple(false if i == read.source else w for i, w in enumerate(ways.ways))
    try:
        evidence.ways = lambda *args: replace(ways, ways=found_ways)
        moved = evidence.move(s, Prove(openings))
    finally:
        evidence.ways = known
    assert len(moved) == len(data)
    with pytest.raises(Reverted, match="operation_decoder: record"):
        respond(before, moved)


def test_a_proof_walks_the_ways_that_were_shown(stages):
    """Others, or rules that are not theirs, are refused, though every opening is a true one."""
    evidence, found, _ = stages
    s, _, before, data = found[Phase.PROVE]
    n = data[0]
    sizes = struct.unpack(f">{n}H", data[1 : 1 + 2 * n])
    at, blobs = 1 + 2 * n, []
    for size in sizes:
        blobs.append(data[at : at + size])
        at += size
    rest = data[at:]
    assert bundle(blobs, [rest]) == data
    ways = ways_of(evidence, s)
    assert blobs[0] == ways.encode()
    assert respond(before, data)[2] == 2
    swapped = b"".join(w.encode() for w in ways.ways[::-1])
    wrong = [[swapped, *blobs[1:]], [*blobs[:-1], blobs[-1][:-1] + bytes([blobs[-1][-1] ^ 1])],
             [*blobs[:-2], blobs[-1], blobs[-2]], blobs[:-1], [*blobs, blobs[-1]], blobs[1:]]  # fmt: skip
    for changed in wrong:
        if changed != blobs:
            with pytest.raises(Reverted):
                respond(before, bundle(changed, [rest]))
