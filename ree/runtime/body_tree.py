"""The Merkle tree over a tensor's bytes, made where it is looked at.

What traces/merkle.py defines, for openings: the root takes one pass over the bytes by the csrc kernel, which
leaves the nodes of its upper levels behind; a descent below them hashes only what is under it.
"""

from __future__ import annotations

import numpy as np

from ree import _core
from ree.kernels.abi import call
from ree.kernels.opdef import Array
from ree.runtime import settings
from ree.traces.encoding import DIGEST, ZERO
from ree.traces.merkle import depth, node_hash
from ree.traces.tensor import LEAF_BYTES, body_leaf, body_leaves, raw_bytes

SPAN = 6  # levels of nodes that are made together


class BodyTree:
    """Nodes, proofs and leaves of one tensor's body. The array must not change."""

    def __init__(self, x: Array) -> None:
        self._raw = raw_bytes(x)
        self._nodes: dict[tuple[int, int], bytes] = {}
        self.count = body_leaves(len(self._raw))

    def root(self) -> bytes:
        return self.node(depth(self.count), 0)

    def leaf(self, index: int) -> bytes:
        """The bytes of a leaf."""
        return body_leaf(self._raw, index)

    def node(self, level: int, index: int) -> bytes:
        """Node `index` of a level (0: hashes of leaves)."""
        if index << level >= self.count:
            return ZERO
        if (level, index) not in self._nodes:
            self._make(level, index)
        return self._nodes[level, index]

    def prove(self, index: int) -> tuple[bytes, ...]:
        """Siblings of a leaf, from the leaf upwards."""
        return tuple(self.node(level, index >> level ^ 1) for level in range(depth(self.count)))

    def _make(self, level: int, index: int) -> None:
        """The block of SPAN levels that a node is in, from its lowest level up."""
        top = max(-(-level // SPAN), 1) * SPAN
        low, first = top - SPAN, index >> (top - level) << SPAN
        many = min(1 << SPAN, -(-self.count >> low) - first)
        size = LEAF_BYTES << low
        start = np.frombuffer(self._raw, np.uint8).ctypes.data + first * size
        sizes = [min(size, len(self._raw) - (first + i) * size) for i in range(many)]
        out = np.empty((many, DIGEST), np.uint8)
        plan = _core.Plan(settings.isa())
        plan.add(*call("tree_hash_many", data=range(many), roots=many, count=many, bytes=sizes))
        plan.run(settings.pool(), [*(start + i * size for i in range(many)), out.ctypes.data])
        row = [x.tobytes() for x in out]
        for _ in range(depth(body_leaves(sizes[-1])), low):  # the last one is of a lower tree
            row[-1] = node_hash(row[-1], ZERO)
        for up in range(low, min(top, depth(self.count)) + 1):
            for i, x in enumerate(row):
                self._nodes[up, (first >> (up - low)) + i] = x
            row = [node_hash(row[i], row[i + 1] if i + 1 < len(row) else ZERO)
                   for i in range(0, len(row), 2)]  # fmt: skip
