# pragma version 0.4.3
"""
@title Merkle
@notice The trees of traces, instances and tensors: SHA-256, tag 0x00 for a leaf and 0x01 for a node; a
        subtree without leaves is 32 zero bytes; the count stands beside the root. docs/trace-format.md.
@dev Functions give the digest that follows from what is shown, for the caller to compare with the one it
     holds, and revert where the form is wrong. A digest is never used to say "malformed": a committed root
     may be any 32 bytes, zeros among them. Level 0 are the leaf hashes.
"""

BIT: constant(uint256) = 1
MAX_COUNT: constant(uint256) = 2**40
MAX_DEPTH: constant(uint256) = 40
MAX_LEAF: constant(uint256) = 512
WIDTH: constant(uint256) = 16  # children of a reveal
STEP: constant(uint256) = 4  # levels of a reveal


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
def _node_of_four(a: bytes32, b: bytes32, c: bytes32, d: bytes32) -> bytes32:
    left: bytes32 = sha256(concat(0x01, a, b))
    right: bytes32 = sha256(concat(0x01, c, d))
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
    down: uint256 = min(level, STEP)
    below: uint256 = unsafe_sub(level, down)
    # ceil(count / 2^below) nodes on that level
    nodes: uint256 = unsafe_add(count, unsafe_sub(BIT << below, 1)) >> below
    return min(unsafe_sub(nodes, index << down), BIT << down)


@internal
@pure
def reveal(
    count: uint256, level: uint256, index: uint256, shown: DynArray[bytes32, WIDTH]
) -> bytes32:
    """
    @notice The node `index` of `level` from its descendants min(level, 4) levels below, without absent ones.
    """
    self._check_position(count, level, index)
    n: uint256 = self.children(count, level, index)
    assert len(shown) == n, "merkle: children"
    if n == WIDTH:  # all but the last of a level; without loops it costs three fifths
        return self._node_of_four(
            self._node_of_four(shown[0], shown[1], shown[2], shown[3]),
            self._node_of_four(shown[4], shown[5], shown[6], shown[7]),
            self._node_of_four(shown[8], shown[9], shown[10], shown[11]),
            self._node_of_four(shown[12], shown[13], shown[14], shown[15]),
        )
    nodes: DynArray[bytes32, WIDTH] = shown
    for h: uint256 in range(min(level, STEP), bound=STEP):
        pairs: uint256 = n >> 1
        for i: uint256 in range(pairs, bound=8):
            nodes[i] = self.node_hash(nodes[unsafe_mul(i, 2)], nodes[unsafe_add(unsafe_mul(i, 2), 1)])
        if n & 1 == 1:
            nodes[pairs] = self.node_hash(nodes[unsafe_sub(n, 1)], empty(bytes32))
            pairs = unsafe_add(pairs, 1)
        n = pairs
    return nodes[0]
