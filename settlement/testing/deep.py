"""A dispute as deep as jobs may be, on trees of which only the disputed paths exist.

2^20 steps, a program of 2^12 values, 2^24 elements, K = 2^14. Nothing of it is ever computed: a node of a tree
that no path visits is a digest made from its place, so that the trees are consistent and the rules cannot tell
them from those of a run.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from ree.compiler.instance import Instance, make_instance
from ree.compiler.ir import Builder, Ref
from ree.kernels.types import DType, TensorType
from ree.traces.encoding import ZERO, u64
from ree.traces.merkle import depth, leaf_hash, node_hash
from ree.traces.tensor import LEAF_BYTES, body_leaves, hash_from_root
from ree.traces.trace import tensor_leaf
from ree.verde.derivation import ElementRead, Scalar
from ree.verde.game import Game
from ree.verde.moves import (
    FAN,
    Derive,
    EntryOpening,
    Leaf,
    Move,
    Open,
    Opening,
    OpenStep,
    Phase,
    Point,
    Prove,
    Reveal,
    RunStatement,
    State,
    Tensor,
    TreeNode,
)
from ree.verde.scope import VALUES, ElementPlace, ProgramScope

STEPS, N_VALUES, ROWS, K = 2**20, 2**12, 2**12, 2**14
STEP = 2**19 + 12_345  # the false one
ELEMENT = ROWS * ROWS - 7777
OPERATION = 128 * 70  # first in its leaf: the entry before stands in another
TRUE = 0x3F800000  # in whose place the defender claims another


class SparseTree:
    """A tree of `count` leaves of which some are given."""

    def __init__(self, name: str, count: int, leaves: Mapping[int, bytes]) -> None:
        """leaves: by index, their bytes."""
        self.name, self.count, self.leaves = name, count, dict(leaves)
        self.node = lru_cache(maxsize=None)(self._node)

    def _node(self, level: int, index: int) -> bytes:
        if index << level >= self.count:
            return ZERO
        if level == 0 and index in self.leaves:
            return leaf_hash(self.leaves[index])
        # where a reveal does not stop, a node follows from those where it does
        stops = level == 0 or (depth(self.count) - level) % FAN == 0
        if not stops or any(i >> level == index for i in self.leaves):
            return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))
        return hashlib.sha256(f"{self.name} {level} {index}".encode()).digest()

    @property
    def root(self) -> bytes:
        return self.node(depth(self.count), 0)

    def prove(self, index: int) -> tuple[bytes, ...]:
        """Siblings of a leaf, from below upwards."""
        return tuple(self.node(h, index >> h ^ 1) for h in range(depth(self.count)))

    def reveal(self, n: TreeNode) -> tuple[bytes, ...]:
        """Descendants of a node, as a REVEAL shows them."""
        down = min(FAN, n.level)
        first = n.index << down
        return tuple(self.node(n.level - down, first + i) for i in range(1 << down))


def _instance(moves: int) -> tuple[Instance, Ref]:
    """A step with a product of two values behind so many moves each, and that product."""
    b = Builder()
    dims = (K, ROWS) if moves % 2 else (ROWS, K)
    operands = [b.add("neg", x(TensorType(DType.F32, dims))) for x in (b.input, b.state)]
    for _ in range(moves):
        operands = [b.add("permute", x, dims=(1, 0)) for x in operands]
    y = last = b.add("linear", *operands)
    while last.index + 1 < N_VALUES - 2:
        last = b.add("neg", last)
    loss = b.add("sum", b.add("sum", last, dim=1, keepdim=False), dim=0, keepdim=False)
    return make_instance(b.finish((last, loss)), {}), y


class DeepParty:
    """The defender of a false product, and the challenger who knows where it is."""

    def __init__(self, seed: int = 0, moves: int = 0) -> None:
        """moves: between the operands and what is committed."""
        self.instance, y = _instance(moves)
        self.game = Game(ProgramScope(self.instance.graph))
        rng, scope = np.random.default_rng(seed), self.game.program
        self.value, self.derivation = y.index, scope.derivation(VALUES, y.index, ELEMENT)
        self.leaves: dict[str, dict[int, bytes]] = {}
        # the derivation: of the operation, the one before, and the last
        d, per = self.derivation, LEAF_BYTES // self.derivation.width
        shown = {i // per: rng.bytes(LEAF_BYTES) for i in (OPERATION - 1, OPERATION, d.count - 1)}
        shown[OPERATION // per] = struct.pack("<I", TRUE) + shown[OPERATION // per][4:]
        self.entries = SparseTree("entries", body_leaves(d.count * d.width), shown)
        at = (d.count - 1) % per * d.width
        last = shown[(d.count - 1) // per][at : at + d.width]
        # the tensors that the descent and the proof visit
        op = d.operation(OPERATION)
        assert isinstance(op, Scalar)
        reads = [o for o in op.operands if isinstance(o, ElementRead)]
        flats = [scope.resolve(VALUES, y.index, o.source, o.flat) for o in reads]
        element = scope.type(VALUES, y.index)
        places = [ElementPlace(VALUES, y.index, element, ELEMENT), *flats]
        self.bodies: dict[int, SparseTree] = {}
        for p in places:
            assert isinstance(p, ElementPlace)
            assert p.tree == VALUES  # both come from values
            body = bytearray(rng.standard_normal(128).astype("<f4").tobytes())
            if p.index == y.index:
                body[p.flat % 128 * 4 : p.flat % 128 * 4 + 4] = last
            leaves = {p.flat // 128: bytes(body)}
            self.bodies[p.index] = SparseTree(f"body {p.index}", body_leaves(p.type.nbytes), leaves)
        known = {i: tensor_leaf(i, self._hash(i)) for i in self.bodies}
        self.values = SparseTree("values", N_VALUES, known)
        # the run around the step
        states = [rng.bytes(64), rng.bytes(64)]  # state root and loss after it, and before
        self.batch = rng.bytes(32)
        leaves = {STEP - 1: u64(STEP) + states[0], STEP - 2: u64(STEP - 1) + states[1]}
        self.history = SparseTree("history", STEPS, leaves)
        self.batches = SparseTree("batches", STEPS, {STEP - 1: u64(STEP) + self.batch})
        self.statement = RunStatement(
            self.instance.digest, rng.bytes(32), rng.bytes(32), STEPS, self.batches.root,
            self.history.root)  # fmt: skip

    def _hash(self, value: int) -> bytes:
        t = self.game.program.type(VALUES, value)
        return hash_from_root(t.dtype.code, t.dims, self.bodies[value].root)

    def _tree(self, s: State) -> tuple[SparseTree, int]:
        """The tree under dispute, and the leaf in it where the lie is."""
        assert s.node is not None
        per = LEAF_BYTES // self.derivation.width
        return {
            "history": (self.history, STEP - 1), "tensors": (self.values, self.value),
            "body": (self.bodies[self.value], ELEMENT // 128),
            "entries": (self.entries, OPERATION // per),
        }[s.node.kind]  # fmt: skip

    def move(self, s: State) -> Move:
        """The move that is due, whoever's it is."""
        d, per = self.derivation, LEAF_BYTES // self.derivation.width
        match s.phase:
            case Phase.STEP:
                after, before = (self.history.leaves[STEP - i][8:] for i in (1, 2))
                return OpenStep((after[:32], after[32:]), self.batch, self.batches.prove(STEP - 1),
                                (before[:32], before[32:]), self.history.prove(STEP - 2))  # fmt: skip
            case Phase.OPEN:
                return Open(self.values.root)
            case Phase.CHOOSE:
                return Point(0)
            case Phase.TENSOR:
                return Tensor(self._hash(self.value), self.bodies[self.value].root)
            case Phase.ELEMENT:
                return Point(ELEMENT % 128)
            case Phase.DERIVE:
                last = (d.count - 1) // per
                opened = EntryOpening(self.entries.leaves[last], self.entries.prove(last))
                return Derive(self.entries.root, opened)
            case Phase.ENTRY:
                return Point(OPERATION % per)
            case Phase.PROVE:
                return self._prove()
        tree, at = self._tree(s)
        assert s.node is not None
        if s.phase is Phase.REVEAL:
            return Reveal(tree.reveal(s.node))
        if s.phase is Phase.PICK:
            down = min(FAN, s.node.level)
            return Point(at >> (s.node.level - down) & ((1 << down) - 1))
        return Leaf(tree.leaves[at])

    def _prove(self) -> Prove:
        openings: list[Opening | EntryOpening] = []
        for value in [v for v in self.bodies if v != self.value]:
            body = self.bodies[value]
            ((at, leaf),) = body.leaves.items()
            proof = self.values.prove(value)
            openings.append(Opening(proof, body.root, leaf, body.prove(at)))
        before = (OPERATION - 1) // (LEAF_BYTES // self.derivation.width)
        openings.append(EntryOpening(self.entries.leaves[before], self.entries.prove(before)))
        return Prove(tuple(openings))
