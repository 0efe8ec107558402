# pragma version 0.4.3
"""
@title Shown
@notice What a move shows, read from calldata where it stands.
@dev For external functions of two arguments, `state: Bytes[384]` and `move: Bytes[MOVE]`, encoded without
     gaps: `check` makes sure. Positions count from the first byte of the move. A read beyond the end reverts.
"""

from . import merkle

BIT: constant(uint256) = 1
STATE_BYTES: constant(uint256) = 384
STATE: constant(uint256) = 100  # selector, two offsets, length
MOVE: constant(uint256) = 516  # the state, then the move's length
RECORD_BYTES: constant(uint256) = 240
LEAF_BYTES: constant(uint256) = 512
STATEMENT_BYTES: constant(uint256) = 284
MAX_COUNT: constant(uint256) = 2**40
MAX_DEPTH: constant(uint256) = 40


@internal
@view
def check():
    """
    @notice Both arguments stand where they are read.
    """
    assert convert(slice(msg.data, 4, 32), uint256) == 64, "shown: layout"
    assert convert(slice(msg.data, 36, 32), uint256) == 96 + STATE_BYTES, "shown: layout"
    assert convert(slice(msg.data, 68, 32), uint256) == STATE_BYTES, "shown: state"


@internal
@view
def state_word(i: uint256) -> uint256:
    """
    @notice Word i of the state.
    """
    return convert(slice(msg.data, unsafe_add(STATE, unsafe_mul(32, i)), 32), uint256)


@internal
@view
def number(at: uint256, size: uint256) -> uint256:
    """
    @notice `size` bytes, at most 32, big-endian.
    """
    word: uint256 = convert(
        slice(msg.data, unsafe_sub(unsafe_add(unsafe_add(MOVE, at), size), 32), 32), uint256
    )
    return word & unsafe_sub(BIT << unsafe_mul(8, size), 1)


@internal
@view
def integer(at: uint256) -> int256:
    """
    @notice Eight bytes in two's complement.
    """
    x: uint256 = convert(slice(msg.data, unsafe_add(MOVE - 24, at), 32), uint256) & (2**64 - 1)
    return convert(convert(unsafe_sub(x ^ 2**63, 2**63), bytes32), int256)


@internal
@view
def digest(at: uint256) -> bytes32:
    return convert(slice(msg.data, unsafe_add(MOVE, at), 32), bytes32)


@internal
@view
def leaf(at: uint256) -> Bytes[LEAF_BYTES]:
    """
    @notice The 512 bytes of a leaf.
    """
    return slice(msg.data, unsafe_add(MOVE, at), LEAF_BYTES)


@internal
@view
def leaf_hash(at: uint256) -> bytes32:
    """
    @notice Hash of a leaf of 512 bytes.
    """
    return merkle.leaf_hash(slice(msg.data, unsafe_add(MOVE, at), LEAF_BYTES))


@internal
@view
def record_hash(at: uint256) -> bytes32:
    """
    @notice Hash of a leaf that is a node's record.
    """
    return merkle.leaf_hash(slice(msg.data, unsafe_add(MOVE, at), RECORD_BYTES))


@internal
@view
def statement_hash(at: uint256) -> bytes32:
    return sha256(slice(msg.data, unsafe_add(MOVE, at), STATEMENT_BYTES))


@internal
@view
def after_proof(at: uint256) -> uint256:
    """
    @notice Where the proof at this position ends.
    """
    return unsafe_add(unsafe_add(at, 1), unsafe_mul(32, self.number(at, 1)))


@internal
@view
def root(count: uint256, index: uint256, leaf_hash_: bytes32, at: uint256) -> bytes32:
    """
    @notice The root that follows from a leaf's hash and the proof at this position, by the rules of Merkle.
    @dev merkle.root_from_node costs twice as much, since it takes the siblings in an array.
    """
    n: uint256 = self.number(at, 1)
    assert count <= MAX_COUNT and index < count, "merkle: index"
    # one sibling a level: 2^n is the least power of two not below the count
    assert BIT << n >= count and BIT << n < count << 1, "merkle: proof length"
    node: bytes32 = leaf_hash_
    i: uint256 = index
    last: uint256 = unsafe_sub(count, 1)  # position of the last node of the level
    p: uint256 = unsafe_add(MOVE + 1, at)
    for _: uint256 in range(n, bound=MAX_DEPTH):
        sibling: bytes32 = convert(slice(msg.data, p, 32), bytes32)
        if i & 1 == 1:
            node = sha256(concat(0x01, sibling, node))
        else:
            assert i < last or sibling == empty(bytes32), "merkle: absent node"
            node = sha256(concat(0x01, node, sibling))
        i = i >> 1
        last = last >> 1
        p = unsafe_add(p, 32)
    return node
