"""What a party has committed to, with the trees that reveals and openings are read off."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from ree.kernels.opdef import Array
from ree.runtime.body_tree import BodyTree
from ree.runtime.hashing import fast_body_root
from ree.traces.encoding import ZERO
from ree.traces.merkle import MerkleTree
from ree.traces.tensor import LEAF_BYTES, body_leaf, body_leaves, tensor_hash
from ree.traces.trace import tensor_leaf
from ree.verde.moves import FAN, EntryOpening, Opening, TreeNode
from ree.verde.scope import ElementPlace

KEPT_BYTES = 1 << 26


class Tensors:
    """A committed list of tensors, with the trees that openings need. hashes, bodies: what of them is known
    already."""

    def __init__(
        self,
        arrays: Sequence[Array | None],
        hashes: Sequence[bytes] | None = None,
        bodies: Sequence[BodyTree] | None = None,
    ) -> None:
        self.arrays = list(arrays)
        self._bodies: dict[int, BodyTree] = dict(enumerate(bodies or ()))
        self.hashes = list(hashes) if hashes is not None else [
            ZERO if x is None else tensor_hash(x, body_root=fast_body_root) for x in self.arrays
        ]  # fmt: skip
        self.tree = MerkleTree(tensor_leaf(i, h) for i, h in enumerate(self.hashes))

    @property
    def root(self) -> bytes:
        return self.tree.root()

    def body(self, index: int) -> BodyTree:
        """The tree over a tensor's bytes; none for a move."""
        if index not in self._bodies:
            x = self.arrays[index]
            self._bodies[index] = BodyTree(np.zeros(0, np.uint8) if x is None else x)
        return self._bodies[index]

    def leaf(self, index: int, i: int) -> bytes:
        return self.body(index).leaf(i)

    def open(self, at: ElementPlace) -> Opening:
        """The opening of an element."""
        i = at.flat * at.type.dtype.size // LEAF_BYTES
        body = self.body(at.index)
        return Opening(
            self.tree.prove(at.index), body.root(), self.leaf(at.index, i), body.prove(i)
        )


def descendants(tree: MerkleTree | BodyTree, node: TreeNode) -> tuple[bytes, ...]:
    """What a reveal of a node shows."""
    down = min(FAN, node.level)
    return tuple(
        tree.node(node.level - down, (node.index << down) + i) for i in range(1 << down)
    )  # fmt: skip


def entry_leaves(entries: Sequence[int], width: int) -> list[bytes]:
    """The leaves of a derivation whose entries have `width` bytes: what `Entries` is the fast form of."""
    raw = b"".join(e.to_bytes(width, "little") for e in entries)
    return [body_leaf(raw, i) for i in range(body_leaves(len(raw)))]


class Entries:
    """The entries of a derivation, unsigned integers of its width, with the tree over their leaves."""

    def __init__(self, bits: Array) -> None:
        self.bits, self.tree = bits, BodyTree(bits)

    @property
    def nbytes(self) -> int:
        return int(self.bits.nbytes)

    def __getitem__(self, i: int) -> int:
        return int(self.bits[i])

    def leaf_of(self, i: int) -> int:
        """The leaf in which entry i is."""
        return i * self.bits.itemsize // LEAF_BYTES

    def leaf(self, index: int) -> bytes:
        return self.tree.leaf(index)

    def open(self, i: int) -> EntryOpening:
        """The opening of entry i."""
        at = self.leaf_of(i)
        return EntryOpening(self.leaf(at), self.tree.prove(at))


class Kept:
    """The derivations looked at last, as many as take KEPT_BYTES, and one at least: a party is asked about the
    same one several times."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Entries] = {}
        self.clear = self._made.clear

    def get(self, key: Hashable, make: Callable[[], Array]) -> Entries:
        """The entries of this name."""
        found = self._made.pop(key, None)
        while found is None and sum(x.nbytes for x in self._made.values()) > KEPT_BYTES:
            self._made.pop(next(iter(self._made)))
        self._made[key] = found or Entries(make())
        return self._made[key]


def first_difference(theirs: bytes, mine: bytes, size: int) -> int:
    """The first element of `size` bytes in which two leaves differ; 0 if none does."""
    for i in range(0, LEAF_BYTES, size):
        if theirs[i : i + size] != mine[i : i + size]:
            return i // size
    return 0
