# pragma version 0.4.3
"""
@title Sources
@notice Where an element of a source is committed, and its opening.
@dev A source that is only moved is followed by its index rule. Inside a row program a source is a local: an
     input cut out of a source of the operator, a constant, a number, or an earlier node. The type that an
     opening shows is bound by the tensor hash: a tensor committed under another type is itself false.
"""

from . import commitments
from . import forms
from . import merkle
from . import rules
from . import shown
from . import states

BIT: constant(uint256) = 1
MASK64: constant(uint256) = 2**64 - 1
HOPS: constant(uint256) = 12
BLOBS: constant(uint256) = 16
NODE_BYTES: constant(uint256) = 241  # of the leaf of a node of a row program
NUMBER_BYTES: constant(uint256) = 141  # tag, u32, eight times size and coefficient, offset

# kinds of sources
VALUE: constant(uint256) = 0
WEIGHT: constant(uint256) = 1
STATE: constant(uint256) = 2
INPUT: constant(uint256) = 3
HELD: constant(uint256) = 4
LOCAL: constant(uint256) = 5


struct Blobs:
    digest: bytes32[BLOBS]
    at: uint256[BLOBS]


struct Reader:  # how far a move has been read
    at: uint256
    blob: uint256
    outer: bool  # whether the statement was needed
    owner: uint256  # position of the owner's record, once an input of a row program was read


struct Source:
    kind: uint256
    index: uint256
    flat: uint256


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
def record_source(record: uint256, i: uint256, flat: uint256) -> Source:
    """
    @notice Element `flat` of source i of the record at this position.
    """
    assert i < shown.number(record + 3, 1), "proof: source"
    at: uint256 = unsafe_add(record, unsafe_add(70, unsafe_mul(5, i)))
    return Source(kind=shown.number(at, 1), index=shown.number(at + 1, 4), flat=flat)


@internal
@view
def check_record(statement: uint256, at: uint256, index: uint256) -> uint256:
    """
    @notice The record of a value and its proof stand at this position; where they end.
    """
    count: uint256 = shown.number(statement + 64, 8)
    root: bytes32 = shown.root(count, index, shown.record_hash(at), at + 240)
    assert root == shown.digest(statement + 32), "proof: record"
    return shown.after_proof(at + 240)


@internal
@view
def open_tensor(flat: uint256, at: uint256) -> (bytes32, uint256, uint256, uint256):
    """
    @notice From type, leaf and proof: tensor hash, element, its type's code, and where they end.
    """
    type_: Bytes[66] = slice(msg.data, shown.MOVE + at, 66)
    assert flat < commitments.elements(type_), "proof: element"
    code: uint256 = commitments.dtype(type_)
    per: uint256 = unsafe_sub(9, commitments.log_size(code))  # log2 of elements in a leaf
    leaf: Bytes[512] = shown.leaf(at + 66)
    leaves: uint256 = commitments.body_leaves(type_)
    body: bytes32 = shown.root(leaves, flat >> per, merkle.leaf_hash(leaf), at + 578)
    bits: uint256 = commitments.element(leaf, code, flat & unsafe_sub((BIT << per), 1))
    return commitments.tensor_hash(type_, body), bits, code, shown.after_proof(at + 578)


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
    assert shown.root(count, index, leaf, end) == root, "proof: tensor"
    return bits, code, shown.after_proof(end)


@internal
@view
def affine(at: uint256, element: uint256) -> uint256:
    """
    @notice A number of a row program, as the bits of an i64.
    """
    x: uint256 = element
    total: int256 = shown.integer(at + 133)
    p: uint256 = at + 133
    for _: uint256 in range(8):
        p = unsafe_sub(p, 16)
        size: uint256 = shown.number(p, 8)
        if size > 0:
            total += shown.integer(p + 8) * convert(x % size, int256)
            x = unsafe_div(x, size)
    return convert(total, uint256) & MASK64 if total >= 0 else unsafe_sub(0, convert(-total, uint256)) & MASK64


@internal
@view
def _move(blobs: Blobs, blob: uint256, record: uint256, flat: uint256) -> (bool, Source):
    """
    @notice Where a moved element comes from; False where it is +0.
    """
    assert forms.of(shown.number(record, 2)) == forms.MOVED, "proof: not moved"
    rule: rules.Rule = rules.parse(self.take(blobs, blob, shown.digest(record + 96)))
    inside: bool = False
    where: uint256 = 0
    inside, where = rules.flat(rule, 0, flat, 0)
    return inside, self.record_source(record, 0, where)


@internal
@view
def opened(
    s: states.State, statement: uint256, blobs: Blobs, start: Reader, source: Source
) -> Opened:
    """
    @notice The element of a source. Before a value or a local stands a byte: 1 if it is followed.
    """
    r: Reader = start
    x: Source = source
    inside: bool = True
    bits: uint256 = 0
    code: uint256 = 0
    for _: uint256 in range(HOPS):
        if x.kind != LOCAL:
            r.outer = True
            if x.kind != VALUE:
                break
        follow: uint256 = shown.number(r.at, 1)
        at: uint256 = unsafe_add(r.at, 1)
        if follow == 0:
            if x.kind == VALUE:
                bits, code, at = self.open_in(
                    s.values, shown.number(statement + 64, 8), x.index, x.flat, at
                )
            else:
                assert x.index >= s.first, "proof: local"
                nodes: uint256 = s.leaves - 1 - s.first
                bits, code, at = self.open_in(s.rows, nodes, x.index - s.first, x.flat, at)
            return Opened(bits=bits, dtype=code, reader=Reader(at=at, blob=r.blob, outer=r.outer, owner=r.owner))
        if x.kind == VALUE:
            r.at = self.check_record(statement, at, x.index)
            inside, x = self._move(blobs, r.blob, at, x.flat)
            r.blob += 1
        else:
            tag: uint256 = shown.number(at, 1)
            if tag == 2:
                self._check_local(s, x.index, merkle.leaf_hash(slice(msg.data, shown.MOVE + at, NODE_BYTES)), at + NODE_BYTES)
                r.at = shown.after_proof(at + NODE_BYTES)
                inside, x = self._move(blobs, r.blob, at + 1, x.flat)
                r.blob += 1
            elif tag == 0:
                self._check_local(s, x.index, merkle.leaf_hash(slice(msg.data, shown.MOVE + at, 100)), at + 100)
                operand: uint256 = shown.number(at + 1, 1)
                rule: rules.Rule = rules.parse(self.take(blobs, r.blob, shown.digest(at + 68)))
                r.blob += 1
                inside, x.flat = rules.flat(rule, 0, s.owner_element, x.flat)
                assert inside, "proof: row input"
                at = shown.after_proof(at + 100)
                if not r.outer:  # once a move
                    assert shown.record_hash(at) == s.run, "proof: record"
                    r.owner = at
                    at = unsafe_add(at, shown.RECORD_BYTES)
                r.at = at
                x = self.record_source(r.owner, operand, x.flat)
            elif tag == 3:
                self._check_local(s, x.index, merkle.leaf_hash(slice(msg.data, shown.MOVE + at, NUMBER_BYTES)), at + NUMBER_BYTES)
                bits = self.affine(at, s.owner_element)
                r.at = shown.after_proof(at + NUMBER_BYTES)
                return Opened(bits=bits, dtype=3, reader=r)
            else:
                assert tag == 1, "proof: local"
                self._check_local(s, x.index, merkle.leaf_hash(slice(msg.data, shown.MOVE + at, 33)), at + 33)
                hash: bytes32 = empty(bytes32)
                hash, bits, code, r.at = self.open_tensor(x.flat, shown.after_proof(at + 33))
                assert hash == shown.digest(at + 1), "proof: constant"
                return Opened(bits=bits, dtype=code, reader=r)
        if not inside:
            return Opened(bits=0, dtype=0, reader=r)
    return self._given(statement, r, x)


@internal
@view
def _check_local(s: states.State, index: uint256, leaf: bytes32, proof: uint256):
    assert shown.root(s.leaves, index, leaf, proof) == s.program, "proof: local"


@internal
@view
def _given(statement: uint256, start: Reader, x: Source) -> Opened:
    """
    @notice An element of an input, weight, state or constant.
    """
    r: Reader = start
    bits: uint256 = 0
    code: uint256 = 0
    inputs: uint256 = shown.number(statement + 104, 4)
    weights: uint256 = shown.number(statement + 108, 4)
    held: uint256 = shown.number(statement + 112, 4)
    if x.kind == HELD:
        given: uint256 = inputs + weights + held
        count: uint256 = given + shown.number(statement + 116, 4) + shown.number(statement + 120, 4)
        hash: bytes32 = empty(bytes32)
        end: uint256 = 0
        hash, bits, code, end = self.open_tensor(x.flat, r.at)
        leaf: bytes32 = merkle.leaf_hash(concat(0x02, hash))
        root: bytes32 = shown.root(count, given + x.index, leaf, end)
        assert root == shown.digest(statement + 72), "proof: constant"
        r.at = shown.after_proof(end)
        return Opened(bits=bits, dtype=code, reader=r)
    root_at: uint256 = statement + 124
    count: uint256 = inputs
    if x.kind == WEIGHT:
        root_at = statement + 156
        count = weights
    elif x.kind == STATE:
        root_at = statement + 188
        count = held
    else:
        assert x.kind == INPUT, "proof: kind"
    bits, code, r.at = self.open_in(shown.digest(root_at), count, x.index, x.flat, r.at)
    return Opened(bits=bits, dtype=code, reader=r)
