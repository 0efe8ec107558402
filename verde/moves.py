"""Moves and states of a dispute: what the rules in game.py work on."""

from __future__ import annotations

from dataclasses import dataclass, field

from ree.verde.protocol import AT_LEAF as AT_LEAF
from ree.verde.protocol import FAN as FAN
from ree.verde.protocol import VERSION as VERSION
from ree.verde.protocol import Phase as Phase
from ree.verde.protocol import Reason, Side, Tree, TreeKind


@dataclass(frozen=True)
class Statement:
    """What a defender stands for: an instance, roots of what went in, and of what came out. In a training
    step the outputs are the new states, and the loss, the last output, has its tensor hash apart."""

    instance: bytes
    inputs: bytes
    weights: bytes
    states: bytes
    outputs: bytes
    loss: bytes = b""

    def root(self, tree: str) -> bytes:
        roots: dict[str, bytes] = {"inputs": self.inputs, "weights": self.weights, "states": self.states,
                                   "outputs": self.outputs}  # fmt: skip
        return roots[tree]


@dataclass(frozen=True)
class RunStatement:
    """A training run: what its commitment is made of (traces/history.py)."""

    instance: bytes
    weights: bytes
    initial: bytes
    steps: int
    batches: bytes
    history: bytes


# moves


@dataclass(frozen=True)
class OpenStep:
    """STEP: state root and loss hash after the step, its batch, and the step before it."""

    after: tuple[bytes, bytes]
    batch: bytes
    batch_proof: tuple[bytes, ...]
    before: tuple[bytes, bytes]  # of the first step: the initial state, and nothing
    before_proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Open:
    """OPEN: root of the values."""

    values: bytes


@dataclass(frozen=True)
class Point:
    """CHOOSE: 0 for the values, 1 for the outputs, 2 for the loss. PICK, ELEMENT, ENTRY: a position."""

    index: int


@dataclass(frozen=True)
class Reveal:
    """REVEAL: the descendants, FAN levels below or at the leaves."""

    nodes: tuple[bytes, ...]


@dataclass(frozen=True)
class Tensor:
    """TENSOR: a tensor's body root."""

    hash: bytes
    body: bytes


@dataclass(frozen=True)
class Leaf:
    """BODY, ENTRIES: the bytes of a leaf."""

    data: bytes


@dataclass(frozen=True)
class Opening:
    """One leaf of a tensor of a committed tree."""

    tensor_proof: tuple[bytes, ...]
    body: bytes
    leaf: bytes
    leaf_proof: tuple[bytes, ...]


@dataclass(frozen=True)
class EntryOpening:
    """One leaf of the derivation."""

    leaf: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Derive:
    """DERIVE: root of the entries, the leaf of the last one, and that of the first one where the defender has
    chosen it and it is another leaf."""

    entries: bytes
    last: EntryOpening
    first: EntryOpening | None = None


@dataclass(frozen=True)
class Rows:
    """ROWS: root of the row program's nodes, and the element opened in the last one."""

    rows: bytes
    last: Opening


@dataclass(frozen=True)
class Prove:
    """PROVE: openings of the entries and elements that the operation reads, in the order of its
    operands; an index that a read needs comes before it."""

    openings: tuple[Opening | EntryOpening, ...]


Move = OpenStep | Open | Point | Reveal | Tensor | Leaf | Derive | Rows | Prove
MOVE_OF: dict[Phase, type] = {
    Phase.STEP: OpenStep,
    Phase.OPEN: Open,
    Phase.CHOOSE: Point,
    Phase.REVEAL: Reveal,
    Phase.PICK: Point,
    Phase.TENSOR: Tensor,
    Phase.BODY: Leaf,
    Phase.ELEMENT: Point,
    Phase.DERIVE: Derive,
    Phase.ROWS: Rows,
    Phase.ENTRIES: Leaf,
    Phase.ENTRY: Point,
    Phase.PROVE: Prove,
}


class IllegalMove(ValueError):
    """A move that the rules do not allow; the state stays as it is."""


@dataclass(frozen=True)
class TreeNode:
    """A node of a tree under dispute."""

    kind: TreeKind
    hash: bytes
    count: int
    level: int
    index: int


@dataclass(frozen=True)
class State:
    """A dispute. `tree`, `tensor`: the tensor under dispute; `owner`: the element whose row program the
    dispute is in, as (tree, tensor, element)."""

    statement: Statement
    phase: Phase = Phase.OPEN
    run: RunStatement | None = None
    step: int = 0  # of the run, from 1
    values: bytes = b""
    tree: Tree = Tree.VALUES
    tensor: int = -1
    element: int = -1
    bits: int = -1
    owner: tuple[Tree, int, int] | None = None
    rows: bytes = b""
    node: TreeNode | None = None
    revealed: tuple[bytes, ...] = ()
    leaf: bytes = b""
    leaf_index: int = -1
    entries: bytes = b""
    chosen: int = field(
        default=-1, compare=False
    )  # for challengers: the entry that the defender has chosen
    entry: int = -1
    winner: Side = Side.NOBODY
    cause: Reason = Reason.NONE
    reason: str = ""  # the cause in words
    moves: int = 0
    trail: tuple[str, ...] = field(default=(), compare=False)  # what was pointed at, for people

    @property
    def player(self) -> Side:
        return self.phase.player
