"""The challenger's view of an element of a sort, whose defender chooses the index that it names.

Entries that differ from the challenger's own are not false for that: they are where they do not follow from
the defender's choice. The choice is entry 0. It stands in the first leaf; while only the hash of a subtree
with that leaf is known, the choice is the one index, if any, that makes this hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ree.kernels.opdef import Array, apply
from ree.traces.merkle import merkle_root
from ree.traces.tensor import LEAF_BYTES
from ree.verde.derivation import read_bits
from ree.verde.selections import Sort

CHUNK = 1 << 20  # entries made at a time


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
        count = LEAF_BYTES * 2**level // self.d.width
        wrong = () if count > self.d.n + 1 else range(self.d.n)
        for index, raw in self._starts([self.right, *wrong], min(count, self.d.n + 1)):
            if count > self.d.n + 1:
                raw = b"".join(
                    e.to_bytes(self.d.width, "little") for e in self.entries(index)[:count]
                )
            leaves = [raw[i : i + LEAF_BYTES] for i in range(0, len(raw), LEAF_BYTES)]
            if merkle_root(leaves) == node:
                return index
        return None

    def _starts(self, indices: Sequence[int], count: int) -> Iterator[tuple[int, bytes]]:
        """The bytes of the first entries: the index, then counts."""
        many = max(1, CHUNK // count)
        for i in range(0, len(indices), many):
            chunk = np.asarray(indices[i : i + many], np.int64)
            rows = np.empty((len(chunk), count), "<i8")
            rows[:, 0] = chunk
            np.cumsum(self.rank[: count - 1] < self.rank[chunk, None], axis=1, out=rows[:, 1:])
            yield from zip(map(int, chunk), map(bytes, rows), strict=True)
