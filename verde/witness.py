"""The challenger's view of an element of a sort, whose defender chooses the index that it names.

Entries that differ from the challenger's own are not false for that: they are where they do not follow from
the defender's choice. The choice is entry 0. It stands in the first leaf; while only the hash of a subtree
with that leaf is known, the choice is the one index, if any, that makes this hash.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ree.kernels.opdef import Array, apply
from ree.traces.merkle import MerkleTree, leaf_hash, merkle_root, node_hash
from ree.traces.tensor import LEAF_BYTES
from ree.verde.derivation import read_bits
from ree.verde.selections import Sort


class Choice:
    """The entries of a sort's element for every index that its defender could have named."""

    def __init__(self, d: Sort, sources: Sequence[Array]) -> None:
        self.d, self.x = d, sources[0]
        order = apply("sort", sources, d.node.attrs)[1].reshape(-1)
        along = order[d.base + d.stride * np.arange(d.n)]
        self.rank = np.empty(d.n, np.int64)  # how many elements come before each
        self.rank[along] = np.arange(d.n)
        self.right = int(along[d.position])

    def entries(self, index: int) -> list[int]:
        """All entries for an index; the claim that it has the right place stands as if it were true."""
        counts = np.cumsum(self.rank < self.rank[index])
        last = read_bits(self.x, self.d.base + index * self.d.stride)
        return [index, *map(int, counts), self.d.position, index if self.d.result else last]

    def false_entry(self, index: int) -> int | None:
        """An entry that is false whatever it holds: the claim that a wrong index has the right place."""
        return None if index == self.right else self.d.n + 1

    def named(self, level: int, node: bytes) -> int | None:
        """The index whose entries have this hash over their first 2^level leaves, if they may be true."""
        width = self.d.width
        count = LEAF_BYTES * 2**level // width
        if count > self.d.n + 1:
            raw = np.array(self.entries(self.right)[:count], "<u8").tobytes()
            return self.right if merkle_root(_leaves(raw)) == node else None
        # The counts of an index follow from how many of the elements counted come before it; only the
        # first leaf has the index itself.
        counted = self.rank[: count - 1]
        before = np.searchsorted(np.sort(counted), self.rank)
        order = np.argsort(before, kind="stable")
        for alike in np.split(order, np.flatnonzero(np.diff(before[order])) + 1):
            entries = np.zeros(count, "<i8")
            np.cumsum(counted < self.rank[alike[0]], out=entries[1:])
            leaves = _leaves(entries.tobytes())
            siblings = MerkleTree(leaves).prove(0)
            for index in map(int, alike):
                digest = leaf_hash(index.to_bytes(width, "little") + leaves[0][width:])
                for sibling in siblings:
                    digest = node_hash(digest, sibling)
                if digest == node:
                    return index
        return None


def _leaves(raw: bytes) -> list[bytes]:
    return [raw[i : i + LEAF_BYTES] for i in range(0, len(raw), LEAF_BYTES)]
