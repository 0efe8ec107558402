# pragma version 0.4.3
"""
@title Merkle
@notice The trees of traces, instances and tensors: SHA-256, tag 0x00 for a leaf and 0x01 for a node; a
        subtree without leaves is 32 zero bytes; the count stands beside the root. docs/trace-format.md.
@dev Functions give the digest that follows from what is shown, for the caller to compare with the one it
     holds, and revert where the form is wrong. A digest is never used to say "malformed": a committed root
     may be any 32 bytes, zeros among them. Level 0 are the leaf hashes.
"""

from ..generated import numbers
from ..generated import protocol

BIT: constant(uint256) = 1
MAX_COUNT: constant(uint256) = 2**40
MAX_DEPTH: constant(uint256) = 40
MAX_LEAF: constant(uint256) = numbers.LEAF_BYTES
WIDTH: constant(uint256) = 2**protocol.FAN  # children of a reveal


@internal
@pure
def leaf_hash(data: Bytes[MAX_LEAF]) -> bytes32:
    return sha256(concat(0x00, data))


@internal
@pure
def node_hash(left: bytes32, right: bytes32) -> bytes32:
    return sha256(concat(0x01, left, right))


@internal
@pure
def depth(count: uint256) -> uint256:
    """
    @notice Levels above the leaves: ceil(log2(count)), 0 for 0 and 1; count <= 2^40.
    """
    if count < 2:
        return 0
    x: uint256 = unsafe_sub(count, 1)
    k: uint256 = 1
    for step: uint256 in [32, 16, 8, 4, 2, 1]:
        if x >> step != 0:
            x = x >> step
            k = unsafe_add(k, step)
    return k


@internal
@pure
def _check_position(count: uint256, level: uint256, index: uint256):
    """
    @notice A node that a tree of `count` leaves has, above at least one leaf.
    """
    assert count <= MAX_COUNT, "merkle: count"
    # level <= depth(count), as 2^depth is the least power of two not below the count
    assert level <= MAX_DEPTH and BIT << level < count << 1, "merkle: level"
    # not only shifted: bits shifted out would be lost
    assert index < MAX_COUNT and index << level < count, "merkle: index"


@internal
@pure
def ancestor(
    count: uint256,
    level: uint256,
    index: uint256,
    node: bytes32,
    siblings: DynArray[bytes32, MAX_DEPTH],
) -> bytes32:
    """
    @notice The node as many levels above `node` as there are siblings, which stand from below upwards.
    """
    self._check_position(count, level, index)
    assert BIT << unsafe_add(level, len(siblings)) < count << 1, "merkle: proof length"
    digest: bytes32 = node
    i: uint256 = index
    h: uint256 = level
    for sibling: bytes32 in siblings:
        if i & 1 == 1:
            digest = sha256(concat(0x01, sibling, digest))
        else:
            # only a right sibling can lie beyond the count
            assert sibling == empty(bytes32) or unsafe_add(i, 1) << h < count, "merkle: absent node"
            digest = sha256(concat(0x01, digest, sibling))
        i = i >> 1
        h = unsafe_add(h, 1)
    return digest


@internal
@pure
def root_from_node(
    count: uint256,
    level: uint256,
    index: uint256,
    node: bytes32,
    proof: DynArray[bytes32, MAX_DEPTH],
) -> bytes32:
    """
    @notice The root, from the node `index` of `level` and all siblings above it.
    """
    assert BIT << unsafe_add(level, len(proof)) >= count, "merkle: proof length"
    return self.ancestor(count, level, index, node, proof)


@internal
@pure
def root_from_leaf(
    count: uint256,
    index: uint256,
    leaf: Bytes[MAX_LEAF],
    proof: DynArray[bytes32, MAX_DEPTH],
) -> bytes32:
    """
    @notice The root, from the bytes of leaf `index` and its proof.
    """
    return self.root_from_node(count, 0, index, self.leaf_hash(leaf), proof)


@internal
@pure
def children(count: uint256, level: uint256, index: uint256) -> uint256:
    """
    @notice How many descendants a reveal of this node shows: those min(level, 4) levels below it that have a
            leaf. The node must be one of the tree.
    """
    down: uint256 = min(level, protocol.FAN)
    below: uint256 = unsafe_sub(level, down)
    # ceil(count / 2^below) nodes on that level
    nodes: uint256 = unsafe_add(count, unsafe_sub(BIT << below, 1)) >> below
    return min(unsafe_sub(nodes, index << down), BIT << down)


@internal
@view
def climb(
    count: uint256, level: uint256, index: uint256, node: bytes32, siblings: uint256, n: uint256
) -> bytes32:
    """
    @notice The node n levels above a node, from the siblings that stand at this position of the calldata, from
            below upwards.
    """
    self._check_position(count, level, index)
    assert BIT << unsafe_add(level, n) < count << 1, "merkle: proof length"
    # only right siblings of the last node of a level, and so of its ancestors, lie beyond the count
    edge: uint256 = unsafe_sub(count, 1) >> level
    digest: bytes32 = node
    p: uint256 = siblings
    for h: uint256 in range(n, bound=MAX_DEPTH):
        if (index >> h) & 1 == 1:
            digest = sha256(concat(0x01, slice(msg.data, p, 32), digest))
        else:
            digest = sha256(concat(0x01, digest, slice(msg.data, p, 32)))
            if index >> h == edge >> h:
                assert convert(slice(msg.data, p, 32), uint256) == 0, "merkle: absent node"
        p = unsafe_add(p, 32)
    return digest


@internal
@view
def reveal(count: uint256, level: uint256, index: uint256, at: uint256, size: uint256) -> bytes32:
    """
    @notice The node `index` of `level` from its descendants min(level, 4) levels below, without absent ones,
            which are the `size` bytes at this position of the calldata.
    """
    self._check_position(count, level, index)
    n: uint256 = self.children(count, level, index)
    assert size == n << 5, "merkle: children"
    if n == WIDTH:  # all but the last of a level; without loops it costs half
        return self.node_hash(
            self.node_hash(self._above_four(at), self._above_four(unsafe_add(at, 128))),
            self.node_hash(self._above_four(unsafe_add(at, 256)), self._above_four(unsafe_add(at, 384))),
        )
    nodes: bytes32[WIDTH] = empty(bytes32[WIDTH])
    for i: uint256 in range(n, bound=WIDTH):
        nodes[i] = convert(slice(msg.data, unsafe_add(at, i << 5), 32), bytes32)
    for h: uint256 in range(min(level, protocol.FAN), bound=protocol.FAN):
        pairs: uint256 = n >> 1
        for i: uint256 in range(pairs, bound=8):
            nodes[i] = self.node_hash(nodes[unsafe_mul(i, 2)], nodes[unsafe_add(unsafe_mul(i, 2), 1)])
        if n & 1 == 1:
            nodes[pairs] = self.node_hash(nodes[unsafe_sub(n, 1)], empty(bytes32))
            pairs = unsafe_add(pairs, 1)
        n = pairs
    return nodes[0]


@internal
@view
def _above_four(at: uint256) -> bytes32:
    """
    @notice The node two levels above four that stand here.
    """
    left: bytes32 = sha256(concat(0x01, slice(msg.data, at, 64)))
    right: bytes32 = sha256(concat(0x01, slice(msg.data, unsafe_add(at, 64), 64)))
    return sha256(concat(0x01, left, right))
