# pragma version 0.4.3
"""
@title Calldata
@notice What a move shows, read from calldata where it stands.
@dev For `respond(dispute: bytes32, clocks: uint256, other: address, state: Bytes[384], move: Bytes[12288])`, encoded
     without gaps: `check` makes sure. So a call can be handed on as it came. Positions count from the first byte
     of the move.
"""

from ..lib import merkle
from ..generated import numbers
from ..generated import protocol

STATE: constant(uint256) = 196  # selector, three words, two offsets, length
MOVE: constant(uint256) = STATE + protocol.STATE_BYTES + 32  # the state, then the move's length


@internal
@view
def check():
    """
    @notice The arguments stand where they are read, and nothing behind them.
    @dev What is read is then what the event shows, and what a later call with the same arguments reads.
    """
    # offsets of state and move, and the state's length
    offsets: uint256 = convert(slice(msg.data, 100, 32), uint256) ^ 160
    offsets |= convert(slice(msg.data, 132, 32), uint256) ^ (192 + protocol.STATE_BYTES)
    offsets |= convert(slice(msg.data, 164, 32), uint256) ^ protocol.STATE_BYTES
    self.check_last(offsets, MOVE, self.size())


@internal
@view
def check_last(wrong: uint256, at: uint256, size: uint256):
    """
    @notice Nothing is wrong so far, and the last argument has its bytes here, and behind them nothing but zeros
            to fill a word.
    """
    fill: uint256 = unsafe_sub(0, size) & 31
    end: uint256 = unsafe_add(unsafe_add(at, size), fill)
    last: uint256 = convert(slice(msg.data, unsafe_sub(len(msg.data), 32), 32), uint256)
    assert (
        wrong == 0
        and size <= protocol.MOVE_BYTES
        and len(msg.data) == end
        and last & unsafe_sub(merkle.BIT << (fill << 3), 1) == 0
    ), "calldata: layout"


@internal
@view
def size() -> uint256:
    """
    @notice Bytes of the move.
    """
    return convert(slice(msg.data, MOVE - 32, 32), uint256)


@internal
@view
def end(at: uint256):
    """
    @notice A move ends here: one move has one encoding.
    """
    assert at == self.size(), "calldata: length"


@internal
@view
def state_word(i: uint256) -> uint256:
    """
    @notice Word i of the state.
    """
    return convert(slice(msg.data, unsafe_add(STATE, unsafe_mul(32, i)), 32), uint256)


# numbers are big-endian


@internal
@view
def u8(at: uint256) -> uint256:
    return convert(slice(msg.data, unsafe_add(MOVE, at), 1), uint256)


@internal
@view
def u16(at: uint256) -> uint256:
    return convert(slice(msg.data, unsafe_add(MOVE, at), 2), uint256)


@internal
@view
def u32(at: uint256) -> uint256:
    return convert(slice(msg.data, unsafe_add(MOVE, at), 4), uint256)


@internal
@view
def u64(at: uint256) -> uint256:
    return convert(slice(msg.data, unsafe_add(MOVE, at), 8), uint256)


@internal
@view
def number(at: uint256, size: uint256) -> uint256:
    """
    @notice `size` bytes, at most 32.
    """
    word: uint256 = convert(
        slice(msg.data, unsafe_sub(unsafe_add(unsafe_add(MOVE, at), size), 32), 32), uint256
    )
    return word & unsafe_sub(merkle.BIT << unsafe_mul(8, size), 1)


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
def leaf(at: uint256) -> Bytes[numbers.LEAF_BYTES]:
    """
    @notice The 512 bytes of a leaf.
    """
    return slice(msg.data, unsafe_add(MOVE, at), numbers.LEAF_BYTES)


@internal
@view
def leaf_hash(at: uint256) -> bytes32:
    """
    @notice Hash of a leaf of 512 bytes.
    """
    return merkle.leaf_hash(slice(msg.data, unsafe_add(MOVE, at), numbers.LEAF_BYTES))


@internal
@view
def record_hash(at: uint256) -> bytes32:
    """
    @notice Hash of a leaf that is a node's record.
    """
    return merkle.leaf_hash(slice(msg.data, unsafe_add(MOVE, at), protocol.RECORD_BYTES))


@internal
@view
def statement_hash(at: uint256) -> bytes32:
    return sha256(slice(msg.data, unsafe_add(MOVE, at), protocol.STATEMENT_BYTES))


@internal
@view
def after_proof(at: uint256) -> uint256:
    """
    @notice Where the proof at this position ends.
    """
    return unsafe_add(unsafe_add(at, 1), unsafe_mul(32, self.u8(at)))


@internal
@view
def root(count: uint256, index: uint256, leaf_hash_: bytes32, at: uint256) -> bytes32:
    """
    @notice The root that follows from a leaf's hash and the proof at this position, by the rules of Merkle.
    @dev merkle.root_from_node costs twice as much, since it takes the siblings in an array.
    """
    n: uint256 = self.u8(at)
    # one sibling a level
    assert merkle.BIT << n >= count, "merkle: proof length"
    return merkle.climb(count, 0, index, leaf_hash_, unsafe_add(MOVE + 1, at), n)
