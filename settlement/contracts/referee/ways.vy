# pragma version 0.4.3
"""
@title Ways
@notice Where the sources of an operator lead: through which moves, to which tensor that is committed.
@dev Bytes of an operator's ways, source by source: number of hops u8; of each hop a kind u8 and the digest of its
     index rule; then kind u8 and index u32 of the tensor. Inside a row program a source is a local: an input
     cut out of a source of the operator around it, a constant, a number, or an earlier node. A DERIVE
     shows that they are right, the state keeps their hash, and a PROVE walks them.
"""

from ..generated import forms
from ..lib import merkle
from ..generated import protocol
from . import calldata
from . import states

HOP: constant(uint256) = 33  # bytes

# kinds of hops
MOVED: constant(uint256) = 0
CUT: constant(uint256) = 1  # an input of a row program: by the digits of the owner's element


struct First:  # record that is shown
    index: uint256
    leaf: bytes32
    proof: uint256  # its position; 0: none is shown yet


@internal
@view
def way(start: uint256, source: uint256) -> uint256:
    """
    @notice Position of the way of a source among those that start here.
    """
    p: uint256 = start
    for _: uint256 in range(source, bound=protocol.MAX_SOURCES):
        p = unsafe_add(p, unsafe_add(1 + protocol.SOURCE_BYTES, unsafe_mul(HOP, calldata.u8(p))))
    return p


@internal
@view
def check(s: states.State, statement: uint256, record: uint256, start: uint256, shown_at: uint256) -> (uint256, uint256, bool):
    """
    @notice The ways that start here are those of the record: leaves and records with their proofs stand at
            `shown_at`, before the first input of a row program its owner's record. Where the ways and the
            proofs end, and whether the statement was needed.
    """
    p: uint256 = start
    at: uint256 = shown_at
    outer: bool = False
    first: First = empty(First)
    owner: uint256 = 0  # position of the owner's record, once it is shown
    count: uint256 = 1
    source: uint256 = record + 1  # of an output: kind and index in its leaf
    if s.form != forms.OUTPUT:
        count = calldata.u8(record + protocol.RECORD_COUNT)
        source = record + protocol.RECORD_SOURCES
    for _: uint256 in range(count, bound=protocol.MAX_SOURCES):
        kind: uint256 = calldata.u8(source)
        index: uint256 = calldata.u32(source + 1)
        source += protocol.SOURCE_BYTES
        hops: uint256 = calldata.u8(p)
        p += 1
        for _h: uint256 in range(hops, bound=protocol.MAX_HOPS):
            next: uint256 = 0  # position of kind and index of what is moved
            digest: uint256 = 0  # of the rule's
            hop: uint256 = MOVED
            if kind == protocol.SOURCE_VALUE:
                outer = True
                first = self._proven(statement, first, index, at)
                next = self._moved(at)
                digest = at + protocol.RECORD_RULE
                at = calldata.after_proof(at + protocol.RECORD_BYTES)
            else:
                assert kind == protocol.SOURCE_LOCAL, "way: source"
                if calldata.u8(at) == protocol.ROW_NODE:
                    leaf: bytes32 = merkle.leaf_hash(slice(msg.data, calldata.MOVE + at, protocol.ROW_NODE_BYTES))
                    self.check_local(s, index, leaf, at + protocol.ROW_NODE_BYTES)
                    next = self._moved(at + 1)
                    digest = at + 1 + protocol.RECORD_RULE
                    at = calldata.after_proof(at + protocol.ROW_NODE_BYTES)
                else:
                    assert calldata.u8(at) == protocol.ROW_INPUT, "way: local"
                    leaf: bytes32 = merkle.leaf_hash(slice(msg.data, calldata.MOVE + at, protocol.ROW_INPUT_BYTES))
                    self.check_local(s, index, leaf, at + protocol.ROW_INPUT_BYTES)
                    hop = CUT
                    operand: uint256 = calldata.u8(at + protocol.ROW_INPUT_OPERAND)
                    digest = at + protocol.ROW_INPUT_RULE
                    at = calldata.after_proof(at + protocol.ROW_INPUT_BYTES)
                    if owner == 0:
                        assert calldata.record_hash(at) == s.run, "way: owner"
                        owner = at
                        at += protocol.RECORD_BYTES
                    next = owner + protocol.RECORD_SOURCES + protocol.SOURCE_BYTES * operand
            assert calldata.u8(p) == hop and calldata.digest(p + 1) == calldata.digest(digest), "way: hop"
            p += HOP
            kind = calldata.u8(next)
            index = calldata.u32(next + 1)
        assert calldata.number(p, protocol.SOURCE_BYTES) == (kind << 32) | index, "way: end"
        p += protocol.SOURCE_BYTES
    return p, at, outer


@internal
@view
def _proven(statement: uint256, first: First, index: uint256, at: uint256) -> First:
    """
    @notice A record stands here, and its proof: of the first one to the root, of others to where they meet it.
    """
    leaf: bytes32 = calldata.record_hash(at)
    proof: uint256 = at + protocol.RECORD_BYTES
    count: uint256 = calldata.u64(statement + protocol.STATEMENT_VALUES)
    if first.proof == 0:
        assert calldata.root(count, index, leaf, proof) == calldata.digest(statement + protocol.STATEMENT_NODE_ROOT), "way: record"
        return First(index=index, leaf=leaf, proof=proof)
    n: uint256 = calldata.u8(proof)
    if index == first.index:
        assert n == 0 and leaf == first.leaf, "way: record"
        return first
    # the highest bit in which they differ: there one is the other's sibling
    assert (index ^ first.index) >> n == 1, "way: proof length"
    node: bytes32 = merkle.climb(count, 0, index, leaf, calldata.MOVE + proof + 1, n)
    assert node == calldata.digest(first.proof + 1 + 32 * n), "way: record"
    return first


@internal
@view
def _moved(record: uint256) -> uint256:
    """
    @notice Position of the source of a record that only moves.
    """
    assert forms.of(calldata.u16(record)) == forms.MOVEMENT, "way: not moved"
    return record + protocol.RECORD_SOURCES


@internal
@view
def check_local(s: states.State, index: uint256, leaf: bytes32, proof: uint256):
    """
    @notice A leaf of the row program, with its proof at this position.
    """
    assert calldata.root(s.leaves, index, leaf, proof) == s.program, "way: local"


@internal
@view
def record(s: states.State, at: uint256) -> (uint256, uint256, bytes32):
    """
    @notice Where the record of the operator under dispute starts, which stands here, where it ends, and its hash.
    """
    if s.form == forms.OUTPUT:
        return (
            at,
            at + protocol.RETURNED_BYTES,
            merkle.leaf_hash(slice(msg.data, calldata.MOVE + at, protocol.RETURNED_BYTES)),
        )
    if s.inside == 1:
        return at + 1, at + protocol.ROW_NODE_BYTES, merkle.leaf_hash(slice(msg.data, calldata.MOVE + at, protocol.ROW_NODE_BYTES))
    return at, at + protocol.RECORD_BYTES, calldata.record_hash(at)


@internal
@pure
def joined(record_hash: bytes32, digest: bytes32) -> bytes32:
    """
    @notice What a state keeps of a record and its ways, once they are shown.
    """
    return sha256(concat(record_hash, digest))
