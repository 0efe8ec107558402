"""Defenders that break one rule of the descent, and challengers that point anywhere."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from ree.kernels.types import DType
from ree.traces.encoding import ZERO
from ree.traces.merkle import MerkleTree
from ree.traces.tensor import LEAF_BYTES, body_leaf, body_leaves, hash_from_root
from ree.traces.trace import tensor_leaf
from ree.verde import moves as m
from ree.verde.commitments import Tensors
from ree.verde.game import Game
from ree.verde.moves import IllegalMove, Phase, Point
from ree.verde.party import Party, play
from ree.verde.scope import OUTPUTS, VALUES
from ree.verde.service import make_service

LINEAR, GELU, PERMUTE, SOFTMAX, GREATER, ARGMAX = range(6)  # values of the program


class Forged(Tensors):
    """Committed tensors of which one has other bytes."""

    def __init__(self, honest, index, raw):
        super().__init__(honest.arrays)
        self.raw = {index: raw}
        self.forged = MerkleTree(body_leaf(raw, i) for i in range(body_leaves(len(raw))))
        x = self.arrays[index]
        self.hashes[index] = hash_from_root(DType.of(x.dtype).code, x.shape, self.forged.root())
        self.tree = MerkleTree(tensor_leaf(i, h) for i, h in enumerate(self.hashes))

    def body(self, index):
        return self.forged if index in self.raw else super().body(index)

    def leaf(self, index, i):
        return body_leaf(self.raw[index], i) if index in self.raw else super().leaf(index, i)


@pytest.fixture
def dishonest(program):
    """A party of one's own to spoil."""
    return make_service(program, program.examples, threads=1).party


def decided(defender: Party, challenger: Party):
    return play(Game(challenger.run.scope), m.State(defender.statement), defender, challenger)


def test_a_hash_in_a_leaf_of_pure_movement(dishonest, honest):
    arrays = list(dishonest.committed[VALUES].arrays)
    assert arrays[PERMUTE] is None
    arrays[PERMUTE] = np.zeros((9, 40), np.float32)
    dishonest.committed[VALUES] = Tensors(arrays)
    end = decided(dishonest, honest.party)
    assert (end.winner, end.reason) == (
        "challenger",
        "no proof: a tensor of pure movement has a hash",
    )


def test_false_outputs_over_true_values(dishonest, honest):
    out = np.array(dishonest.committed[OUTPUTS].arrays[0])
    out.view(np.uint32)[3, 7] ^= 1
    forged = Tensors([out, *dishonest.committed[OUTPUTS].arrays[1:]])
    dishonest.committed[OUTPUTS] = dishonest._outputs = forged
    dishonest.statement = replace(dishonest.statement, outputs=forged.root)
    end = decided(dishonest, honest.party)
    assert (end.winner, end.reason) == ("challenger", "no proof: the last entry is not the element")
    lie = int(out.view(np.uint32)[3, 7])
    dishonest.derived = lambda s, d, sources: [lie]  # it claims a false copy instead
    dishonest._kept.clear()
    end = decided(dishonest, honest.party)
    assert end.winner == "challenger"
    assert end.reason == f"executed: the operation gives {lie ^ 1:08x}, not {lie:08x}"


def test_bytes_behind_the_last_element(dishonest, honest):
    values = dishonest.committed[VALUES]
    raw = bytearray(values.arrays[GELU].tobytes())
    assert len(raw) % LEAF_BYTES
    dishonest.committed[VALUES] = Forged(values, GELU, bytes(raw) + b"\x01")
    end = decided(dishonest, honest.party)
    assert end.winner == "challenger"
    assert end.reason == "no proof: bytes behind the last element are not zero"


def test_a_bool_that_is_two(dishonest, honest):
    values = dishonest.committed[VALUES]
    raw = bytearray(values.arrays[GREATER].tobytes())
    raw[100] = 2
    dishonest.committed[VALUES] = Forged(values, GREATER, bytes(raw))
    end = decided(dishonest, honest.party)
    assert (end.winner, end.reason) == ("challenger", "no proof: a bool is 2")


@pytest.mark.parametrize("name", ["linear", "softmax", "greater", "argmax"])
@pytest.mark.parametrize("truth", [True, False])
def test_openings(liars, honest, until, name, truth):
    """The honest openings win for the truth; anything else in their place loses for everyone."""
    liar = liars[name]
    defender, challenger = (honest, liar) if truth else (liar, honest)
    rules, s, _ = until(defender, challenger, Phase.PROVE)
    right = defender.party.move(s)
    assert rules.apply(s, right).winner == ("defender" if truth else "challenger")
    values = honest.party.committed[VALUES]

    def opening(index, leaf):
        body = values.body(index)
        return m.Opening(
            values.tree.prove(index), body.root(), values.leaf(index, leaf), body.prove(leaf)
        )

    wrong = [(*right.openings, opening(GELU, 0)), (opening(GELU, 0),) * 16]
    for i, o in enumerate(right.openings):
        rest = (right.openings[:i], right.openings[i + 1 :])
        wrong.append((*rest[0], *rest[1]))  # one is missing
        wrong += [
            (*rest[0], opening(LINEAR, 0), *rest[1]),
            (*rest[0], opening(ARGMAX, 0), *rest[1]),
        ]
        leaf = bytes([o.leaf[0] ^ 1]) + o.leaf[1:]
        wrong.append((*rest[0], replace(o, leaf=leaf), *rest[1]))
        wrong.append((*rest[0], replace(o, leaf=o.leaf[:-1]), *rest[1]))
        if isinstance(o, m.Opening):
            other = replace(o, tensor_proof=(*o.tensor_proof, ZERO))
            wrong.append((*rest[0], other, *rest[1]))
            wrong.append((*rest[0], replace(o, body=ZERO), *rest[1]))
            wrong.append((*rest[0], replace(o, body=b""), *rest[1]))
    for openings in wrong:
        if openings == right.openings:
            continue
        end = rules.apply(s, m.Prove(openings))
        assert (end.phase, end.winner) == (Phase.OVER, "challenger"), openings


def test_absent_nodes_are_zero(liars, honest, until):
    rules, s, _ = until(honest, liars["linear"], Phase.REVEAL,
                        lambda s: s.node.kind == "tensors" and s.node.level == 3)  # fmt: skip
    right = honest.party.move(s)
    assert right.nodes[6] == right.nodes[7] == ZERO  # of 8 positions, 6 have values
    assert rules.apply(s, right).phase is Phase.PICK
    for i in range(8):
        nodes = list(right.nodes)
        nodes[i] = bytes(31) + b"\x01"
        end = rules.apply(s, m.Reveal(tuple(nodes)))
        assert end.winner == "challenger"
        assert ("is not zero" in end.reason) == (i > 5)
    for nodes in (right.nodes[:-1], (*right.nodes, ZERO), ()):
        assert rules.apply(s, m.Reveal(nodes)).winner == "challenger"


@pytest.mark.parametrize("name", ["linear", "gelu", "softmax", "greater", "argmax"])
def test_moves_that_are_none(liars, honest, until, name):
    """A pointer to nowhere, or the wrong kind of move, is refused and changes nothing."""
    rules, _, moves = until(honest, liars[name], Phase.PROVE)
    s = rules.start()
    for move in moves:
        before = replace(s)
        others = [m.Open(ZERO), m.Leaf(bytes(512)), m.Tensor(ZERO, ZERO), m.Prove(())]
        others = [x for x in others if type(x) is not m.MOVE_OF[s.phase]]
        if s.player == "challenger":
            others += [Point(-1), Point(512), Point(2**40)]
        else:
            others.append(Point(0))
        for other in others:
            with pytest.raises(IllegalMove):
                rules.game.apply(s, other)
        assert s == before
        s = rules.apply(s, move)
    for i in (6, 7):  # positions of the tree of values that have none
        _, at, _ = until(honest, liars[name], Phase.PICK, lambda s: s.node.kind == "tensors")
        with pytest.raises(IllegalMove):
            rules.game.apply(at, Point(i))


@pytest.mark.parametrize("seed", range(100))
def test_the_honest_defender_wins_wherever_one_points(honest, seed):
    rng = np.random.default_rng(seed)
    game, s = honest.game, m.State(honest.party.statement)
    while s.phase is not Phase.OVER:
        if s.player == "defender":
            s = game.apply(s, honest.party.move(s))
            continue
        with suppress(IllegalMove):
            s = game.apply(s, Point(int(rng.integers(2 if s.phase is Phase.CHOOSE else 128))))
    assert s.winner == "defender", (s.reason, s.trail)


def test_a_decided_dispute_takes_no_move(honest, liars):
    end = decided(honest.party, liars["linear"].party)
    with pytest.raises(IllegalMove):
        honest.game.apply(end, Point(0))


@pytest.mark.parametrize("name", ["linear", "softmax"])
def test_sizes_that_no_message_has(liars, honest, until, name):
    """The rules themselves hold without the encoding's bounds."""
    rules, _, moves = until(honest, liars[name], Phase.PROVE)
    s = rules.start()
    for move in moves:
        if s.player == "defender":
            for field in vars(move):
                x = getattr(move, field)
                if isinstance(x, bytes) and s.phase is not Phase.OPEN:
                    for bad in (b"", x[:-1], x + b"\0"):
                        assert rules.apply(s, replace(move, **{field: bad})).winner == "challenger"
                elif isinstance(x, m.Opening | m.EntryOpening):
                    for inner in ("leaf", "body") if isinstance(x, m.Opening) else ("leaf",):
                        bad = replace(x, **{inner: getattr(x, inner)[:-1]})
                        assert rules.apply(s, replace(move, **{field: bad})).winner == "challenger"
        s = rules.apply(s, move)
