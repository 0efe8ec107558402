# pragma version 0.4.3
"""
@title Sources
@notice Where an element of a source is committed, and its opening.
@dev The type that an opening shows is bound by the tensor hash: a tensor committed under another type is itself
     false.
"""

from . import commitments
from ..lib import merkle
from ..generated import numbers
from ..generated import protocol
from . import rules
from . import calldata
from . import states
from . import ways

SHOWN: constant(uint256) = protocol.TYPE_BYTES + numbers.LEAF_BYTES  # type and leaf of an opening


struct Blobs:
    digest: bytes32[protocol.MAX_BLOBS]
    at: uint256[protocol.MAX_BLOBS + 1]  # and where the last one ends


struct Reader:  # how far a move has been read
    at: uint256
    blob: uint256
    outer: bool  # whether the statement was needed


struct Opened:
    bits: uint256
    dtype: uint256
    reader: Reader


@internal
@pure
def take(blobs: Blobs, blob: uint256, digest: bytes32) -> uint256:
    """
    @notice Position of the blob that is due, which must be the preimage of the digest.
    """
    assert blobs.digest[blob] == digest, "proof: bytes"
    return blobs.at[blob]


@internal
@view
def open_tensor(flat: uint256, at: uint256) -> (bytes32, uint256, uint256, uint256):
    """
    @notice From type, leaf and proof: tensor hash, element, its type's code, and where they end.
    """
    type_: Bytes[protocol.TYPE_BYTES] = slice(msg.data, calldata.MOVE + at, protocol.TYPE_BYTES)
    assert flat < commitments.elements(type_), "proof: element"
    code: uint256 = commitments.dtype(type_)
    per: uint256 = unsafe_sub(9, commitments.log_size(code))  # log2 of elements in a leaf
    leaf: Bytes[numbers.LEAF_BYTES] = calldata.leaf(at + protocol.TYPE_BYTES)
    leaves: uint256 = commitments.body_leaves(type_)
    body: bytes32 = calldata.root(leaves, flat >> per, merkle.leaf_hash(leaf), at + SHOWN)
    bits: uint256 = commitments.element(leaf, code, flat & unsafe_sub((merkle.BIT << per), 1))
    return commitments.tensor_hash(type_, body), bits, code, calldata.after_proof(at + SHOWN)


@internal
@view
def open_in(root: bytes32, count: uint256, index: uint256, flat: uint256, at: uint256) -> (uint256, uint256, uint256):
    """
    @notice As `open_tensor`, with the tensor's proof in a tree of tensors: element, type's code, end.
    """
    hash: bytes32 = empty(bytes32)
    bits: uint256 = 0
    code: uint256 = 0
    end: uint256 = 0
    hash, bits, code, end = self.open_tensor(flat, at)
    leaf: bytes32 = commitments.tensor_leaf_hash(index, hash)
    assert calldata.root(count, index, leaf, end) == root, "proof: tensor"
    return bits, code, calldata.after_proof(end)


@internal
@view
def affine(at: uint256, element: uint256) -> uint256:
    """
    @notice A number of a row program, as the bits of an i64.
    """
    x: uint256 = element
    total: int256 = calldata.integer(at + protocol.ROW_NUMBER_OFFSET)
    p: uint256 = at + protocol.ROW_NUMBER_OFFSET
    for _: uint256 in range(8):
        p = unsafe_sub(p, 16)
        size: uint256 = calldata.u64(p)
        if size > 0:
            total += calldata.integer(p + 8) * convert(x % size, int256)
            x = unsafe_div(x, size)
    return convert(total, uint256) & protocol.MASK64 if total >= 0 else unsafe_sub(0, convert(-total, uint256)) & protocol.MASK64


@internal
@view
def opened(
    s: states.State, statement: uint256, blobs: Blobs, start: Reader, source: uint256, element: uint256
) -> Opened:
    """
    @notice Element `element` of a source of the operator under dispute, by its way in blob 0.
    """
    r: Reader = start
    p: uint256 = ways.way(blobs.at[0], source)
    hops: uint256 = calldata.u8(p)
    p = unsafe_add(p, 1)
    flat: uint256 = element
    for _: uint256 in range(hops, bound=protocol.MAX_HOPS):
        rule: rules.Rule = rules.parse(self.take(blobs, r.blob, calldata.digest(unsafe_add(p, 1))))
        r.blob = unsafe_add(r.blob, 1)
        inside: bool = False
        if calldata.u8(p) == ways.MOVED:
            inside, flat = rules.flat(rule, 0, flat, 0)
            if not inside:
                return Opened(bits=0, dtype=0, reader=r)
        else:
            inside, flat = rules.flat(rule, 0, s.owner_element, flat)
            assert inside, "proof: row input"
        p = unsafe_add(p, ways.HOP)
    return self._committed(s, statement, r, calldata.u8(p), calldata.u32(unsafe_add(p, 1)), flat)


@internal
@view
def _committed(
    s: states.State, statement: uint256, start: Reader, kind: uint256, index: uint256, flat: uint256
) -> Opened:
    """
    @notice An element of what a way ends at.
    """
    r: Reader = start
    bits: uint256 = 0
    code: uint256 = 0
    if kind != protocol.SOURCE_LOCAL:
        r.outer = True
        if kind != protocol.SOURCE_VALUE:
            return self._given(statement, r, kind, index, flat)
        bits, code, r.at = self.open_in(s.values, calldata.u64(statement + protocol.STATEMENT_VALUES), index, flat, r.at)
    elif index >= s.first:
        nodes: uint256 = s.leaves - 1 - s.first
        bits, code, r.at = self.open_in(s.rows, nodes, index - s.first, flat, r.at)
    elif calldata.u8(r.at) == protocol.ROW_NUMBER:
        leaf: bytes32 = merkle.leaf_hash(slice(msg.data, calldata.MOVE + r.at, protocol.ROW_NUMBER_BYTES))
        ways.check_local(s, index, leaf, r.at + protocol.ROW_NUMBER_BYTES)
        bits = self.affine(r.at, s.owner_element)
        code = numbers.DTYPE_I64
        r.at = calldata.after_proof(r.at + protocol.ROW_NUMBER_BYTES)
    else:
        at: uint256 = r.at
        assert calldata.u8(at) == protocol.ROW_CONSTANT, "proof: local"
        ways.check_local(s, index, merkle.leaf_hash(slice(msg.data, calldata.MOVE + at, protocol.ROW_CONSTANT_BYTES)), at + protocol.ROW_CONSTANT_BYTES)
        hash: bytes32 = empty(bytes32)
        hash, bits, code, r.at = self.open_tensor(flat, calldata.after_proof(at + protocol.ROW_CONSTANT_BYTES))
        assert hash == calldata.digest(at + 1), "proof: constant"
    return Opened(bits=bits, dtype=code, reader=r)


@internal
@view
def _given(
    statement: uint256, start: Reader, kind: uint256, index: uint256, flat: uint256
) -> Opened:
    """
    @notice An element of an input, weight, state or constant.
    """
    r: Reader = start
    bits: uint256 = 0
    code: uint256 = 0
    inputs: uint256 = calldata.u32(statement + protocol.STATEMENT_INPUTS)
    weights: uint256 = calldata.u32(statement + protocol.STATEMENT_WEIGHTS)
    held: uint256 = calldata.u32(statement + protocol.STATEMENT_STATES)
    if kind == protocol.SOURCE_CONST:
        given: uint256 = inputs + weights + held
        count: uint256 = given + calldata.u32(statement + protocol.STATEMENT_CONSTANTS) + calldata.u32(statement + protocol.STATEMENT_OUTPUTS)
        hash: bytes32 = empty(bytes32)
        end: uint256 = 0
        hash, bits, code, end = self.open_tensor(flat, r.at)
        leaf: bytes32 = merkle.leaf_hash(concat(0x02, hash))
        root: bytes32 = calldata.root(count, given + index, leaf, end)
        assert root == calldata.digest(statement + protocol.STATEMENT_INTERFACE_ROOT), "proof: constant"
        r.at = calldata.after_proof(end)
        return Opened(bits=bits, dtype=code, reader=r)
    root_at: uint256 = statement + protocol.STATEMENT_INPUTS_ROOT
    count: uint256 = inputs
    if kind == protocol.SOURCE_WEIGHT:
        root_at = statement + protocol.STATEMENT_WEIGHTS_ROOT
        count = weights
    elif kind == protocol.SOURCE_STATE:
        root_at = statement + protocol.STATEMENT_STATES_ROOT
        count = held
    else:
        assert kind == protocol.SOURCE_INPUT, "proof: kind"
    bits, code, r.at = self.open_in(calldata.digest(root_at), count, index, flat, r.at)
    return Opened(bits=bits, dtype=code, reader=r)
