"""Merkle trees: the one kind of tree of this project, static or growing.

A tree of `count` leaves has depth ceil(log2(count)); positions at or beyond `count` are absent. A
subtree without any leaf is 32 zero bytes, whatever its height; every other inner node is
SHA-256(0x01 || left || right) and a leaf is SHA-256(0x00 || data). No leaf: root is 32 zero bytes.
The count is stated beside the root wherever a root is stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ree.traces.encoding import LEAF, NODE, ZERO, sha256

MAX_COUNT = 2**40


class ProofError(ValueError):
    """A Merkle proof that does not show what it claims."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf's bytes."""
    return sha256(LEAF, data)


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of a node with at least one leaf below it."""
    return sha256(NODE, left, right)


def depth(count: int) -> int:
    """Levels above the leaves of a tree of `count` leaves: ceil(log2(count)), 0 for 0 and 1."""
    return max(count - 1, 0).bit_length()


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """Root of the tree over `leaves` (bytes of each), in order."""
    level = [leaf_hash(x) for x in leaves]
    if not level:
        return ZERO
    while len(level) > 1:
        if len(level) % 2:
            level.append(ZERO)
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def verify(root: bytes, count: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> None:
    """Check that leaf `index` of the tree of `count` leaves with this root has bytes `leaf`.

    ProofError unless:
    1. the index is that of a leaf: 0 <= index < count;
    2. the proof has one digest per level, from the leaf upwards, as the count demands;
    3. every sibling without leaves is 32 zero bytes;
    4. hashing upwards, left or right by the bits of the index, ends at the root.
    """
    verify_node(root, count, 0, index, leaf_hash(leaf), proof)


def verify_node(
    root: bytes, count: int, level: int, index: int, node: bytes, proof: Sequence[bytes]
) -> None:
    """As `verify`, for the node `level` levels above the leaves at position `index` there."""
    # 1. a position with at least one leaf
    if not 0 <= level <= depth(count):
        raise ProofError(f"level: expected 0 to {depth(count)}, got {level}")
    if not 0 <= index << level < count <= MAX_COUNT:
        raise ProofError(f"index: expected 0 <= index < {count}, got {index << level}")
    # 2. the length follows from the count
    if len(proof) != depth(count) - level:
        raise ProofError(f"proof: expected {depth(count) - level} digests, got {len(proof)}")
    for sibling in proof:
        if len(sibling) != len(ZERO):
            raise ProofError(f"proof: expected digests of 32 bytes, got {len(sibling)}")
        # 3. absent subtrees
        if (index ^ 1) << level >= count and sibling != ZERO:
            raise ProofError(f"absent node at level {level}: expected zeros, got {sibling.hex()}")
        # 4. upwards
        node = node_hash(sibling, node) if index & 1 else node_hash(node, sibling)
        index, level = index >> 1, level + 1
    if node != root:
        raise ProofError(f"root: expected {root.hex()}, got {node.hex()}")


class MerkleTree:
    """A tree that grows by appending and remembers every earlier size.

    `size` arguments select the tree of the first `size` leaves (default: all); its root and proofs
    are those of a static tree over these leaves. Append is amortised O(1), the others O(log n).
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]  # complete subtrees only
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> int:
        """Add a leaf; returns its index."""
        node, level = leaf_hash(leaf), 0
        self._levels[0].append(node)
        while len(self._levels[level]) % 2 == 0:
            node = node_hash(self._levels[level][-2], node)
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node)
        return len(self) - 1

    def root(self, size: int | None = None) -> bytes:
        """Root of the tree of the first `size` leaves."""
        n = self._size(size)
        return self.node(depth(n), 0, n)

    def prove(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Siblings of leaf `index`, from the leaf upwards, in the tree of the first `size`."""
        n = self._size(size)
        if not 0 <= index < n:
            raise IndexError(f"leaf index: expected 0 <= index < {n}, got {index}")
        return tuple(self.node(level, index >> level ^ 1, n) for level in range(depth(n)))

    def node(self, level: int, index: int, size: int | None = None) -> bytes:
        """Node `index` of `level` (0: leaf hashes) in the tree of the first `size` leaves."""
        n = self._size(size)
        if index << level >= n:
            return ZERO
        if (index + 1) << level <= n:
            return self._levels[level][index]
        left, right = (self.node(level - 1, 2 * index + i, n) for i in (0, 1))
        return node_hash(left, right)

    def _size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise IndexError(f"size: expected 0 to {len(self)}, got {size}")
        return size


class Frontier:
    """The root of a growing tree, from O(log n) digests: what `MerkleTree` gives, without proofs.

    `peaks[k]` is the last complete subtree of height k when bit k of the count is set.
    """

    def __init__(self) -> None:
        self.count = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf; amortised O(1)."""
        node, level, n = leaf_hash(leaf), 0, self.count
        while n & 1:
            node, n, level = node_hash(self._peaks[level], node), n >> 1, level + 1
        if level == len(self._peaks):
            self._peaks.append(node)
        self._peaks[level] = node
        self.count += 1

    def root(self) -> bytes:
        """Root of the tree of all leaves so far."""
        top, node = depth(self.count), ZERO  # node: the incomplete subtree at the right end
        for level in range(top):
            if self.count >> level & 1:
                node = node_hash(self._peaks[level], node)
            elif node != ZERO:
                node = node_hash(node, ZERO)
        return self._peaks[top] if self.count == 1 << top else node
