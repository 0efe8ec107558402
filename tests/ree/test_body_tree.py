"""Trees made where they are looked at are those of traces/merkle.py."""

import numpy as np
import pytest

from ree.runtime.body_tree import SPAN, BodyTree
from ree.traces.merkle import MerkleTree, depth, verify
from ree.traces.tensor import LEAF_BYTES, body_leaf, body_leaves, raw_bytes

FULL = LEAF_BYTES << SPAN


@pytest.mark.parametrize("size", [
    0, 1, 511, 512, 513, 1024, 1537, FULL - 1, FULL, FULL + 1, 3 * FULL + 700, 64 * FULL, 64 * FULL + 1,
    65 * FULL - 513,
])  # fmt: skip
def test_nodes_and_proofs(size):
    rng = np.random.default_rng(size)
    x = rng.integers(0, 256, size, dtype=np.uint8)
    raw = raw_bytes(x)
    count = body_leaves(size)
    want = MerkleTree(body_leaf(raw, i) for i in range(count))
    assert BodyTree(x).root() == want.root()
    for order in (1, -1):  # from the root down as in a dispute, and from the leaves up
        tree = BodyTree(x)
        for level in range(depth(count) + 1)[::order]:
            for i in {
                0,
                1,
                max(count - 1, 0) >> level,
                (count >> level) // 2,
                (count >> level) + 2,
            }:
                assert tree.node(level, i) == want.node(level, i), (level, i)
    for i in {0, count // 3, count - 1} if count else ():
        proof = BodyTree(x).prove(i)
        assert proof == want.prove(i)
        verify(want.root(), count, i, BodyTree(x).leaf(i), proof)


def test_an_array_that_is_not_contiguous():
    x = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    assert BodyTree(x.T).root() == BodyTree(np.ascontiguousarray(x.T)).root()
