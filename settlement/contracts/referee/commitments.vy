# pragma version 0.4.3
"""
@title Commitments
@notice What the trees hold: tensors and their elements, records of nodes, traces and instances.
@dev docs/trace-format.md and compiler/instance.py have the layouts. As in Merkle, functions give what
     follows from what is shown, and revert where the form is wrong.
"""

from ..lib import merkle
from ..generated import numbers
from ..generated import protocol


# log2 of the bytes of an element, by dtype, a digit each
LOG_SIZES: constant(uint256) = (
    2 + 1 * 16 + 1 * 16**2 + 3 * 16**3 + 2 * 16**4 + 1 * 16**5
)


# tensors


@internal
@pure
def dtype(type_: Bytes[protocol.TYPE_BYTES]) -> uint256:
    """
    @notice Code of the element type in the encoding of a tensor type.
    """
    assert len(type_) == protocol.TYPE_BYTES, "type: length"
    code: uint256 = convert(slice(type_, 0, 1), uint256)
    assert code <= numbers.DTYPE_BOOL, "type: dtype"
    return code


@internal
@pure
def rank(type_: Bytes[protocol.TYPE_BYTES]) -> uint256:
    assert len(type_) == protocol.TYPE_BYTES, "type: length"
    r: uint256 = convert(slice(type_, 1, 1), uint256)
    assert r <= numbers.MAX_RANK, "type: rank"
    return r


@internal
@pure
def dims(type_: Bytes[protocol.TYPE_BYTES]) -> DynArray[uint256, numbers.MAX_RANK]:
    """
    @notice The dimensions, outermost first.
    """
    r: uint256 = self.rank(type_)
    low: uint256 = convert(extract32(type_, 2), uint256)
    high: uint256 = convert(extract32(type_, 34), uint256)
    out: DynArray[uint256, numbers.MAX_RANK] = []
    for i: uint256 in range(r, bound=numbers.MAX_RANK):
        out.append(self._dim(low, high, i))
    return out


@internal
@pure
def _dim(low: uint256, high: uint256, i: uint256) -> uint256:
    """
    @notice Dimension i < 8 of two words that hold four each.
    """
    word: uint256 = low if i < 4 else high
    return (word >> unsafe_mul(64, unsafe_sub(3, i & 3))) & protocol.MASK64


@internal
@pure
def elements(type_: Bytes[protocol.TYPE_BYTES]) -> uint256:
    """
    @notice Number of elements; at most 2^31 - 1.
    """
    r: uint256 = self.rank(type_)
    low: uint256 = convert(extract32(type_, 2), uint256)
    high: uint256 = convert(extract32(type_, 34), uint256)
    # a type has one encoding: dimensions beyond the rank are zeros
    beyond: uint256 = (low << (r << 6)) | high if r < 4 else high << ((r - 4) << 6)
    assert beyond == 0, "type: dimensions"
    n: uint256 = 1
    for i: uint256 in range(r, bound=numbers.MAX_RANK):
        n = n * self._dim(low, high, i)
    assert n <= numbers.MAX_ELEMENTS, "type: elements"
    return n


@internal
@pure
def log_size(code: uint256) -> uint256:
    """
    @notice log2 of the bytes of an element.
    """
    return (LOG_SIZES >> (code << 2)) & 15


@internal
@pure
def body_leaves(type_: Bytes[protocol.TYPE_BYTES]) -> uint256:
    """
    @notice Leaves of a tensor's body, of 512 bytes each.
    """
    return self._leaves(self.elements(type_), self.log_size(self.dtype(type_)))


@internal
@pure
def _leaves(elements_: uint256, scale: uint256) -> uint256:
    return unsafe_add(elements_ << scale, numbers.LEAF_BYTES - 1) >> 9


@internal
@pure
def tensor_hash(type_: Bytes[protocol.TYPE_BYTES], body_root: bytes32) -> bytes32:
    """
    @notice H(0x02 || dtype || rank || dimensions || body root).
    """
    header: uint256 = unsafe_add(2, unsafe_mul(8, self.rank(type_)))
    return sha256(concat(0x02, slice(type_, 0, header), body_root))


@internal
@pure
def element(leaf: Bytes[numbers.LEAF_BYTES], code: uint256, position: uint256) -> uint256:
    """
    @notice Element `position` of a leaf as the register it is loaded into: two's complement of 32 bits for
            i32, i16 and i8, zero-extended bits for the others.
    """
    assert len(leaf) == numbers.LEAF_BYTES, "leaf: length"
    scale: uint256 = self.log_size(code)
    start: uint256 = position << scale
    assert position < numbers.LEAF_BYTES and start < numbers.LEAF_BYTES, "leaf: position"
    word: uint256 = convert(extract32(leaf, (start >> 5) << 5), uint256)
    bits: uint256 = merkle.BIT << unsafe_add(scale, 3)
    x: uint256 = word >> unsafe_sub(unsafe_sub(256, bits), (start & 31) << 3)
    # from little-endian
    if scale == 0:
        x = x & 255
    elif scale == 1:
        x = ((x >> 8) & 255) | ((x & 255) << 8)
    else:
        x = ((x >> 8) & (255 * (2**48 + 2**32 + 2**16 + 1))) | (
            (x & (255 * (2**48 + 2**32 + 2**16 + 1))) << 8
        )
        x = ((x >> 16) & (65535 * (2**32 + 1))) | ((x & (65535 * (2**32 + 1))) << 16)
        if scale == 3:
            return (x >> 32) | ((x & protocol.MASK32) << 32)
        return x & protocol.MASK32
    if code == numbers.DTYPE_I16 or code == numbers.DTYPE_I8:
        flip: uint256 = merkle.BIT << unsafe_sub(bits, 1)
        return unsafe_sub(x ^ flip, flip) & protocol.MASK32
    return x


@internal
@pure
def open_element(
    type_: Bytes[protocol.TYPE_BYTES],
    index: uint256,
    leaf: Bytes[numbers.LEAF_BYTES],
    proof: DynArray[bytes32, merkle.MAX_DEPTH],
) -> (bytes32, uint256):
    """
    @notice Tensor hash and element `index`, row-major, from the leaf that holds it and the leaf's proof.
    """
    n: uint256 = self.elements(type_)
    assert index < n, "tensor: index"
    code: uint256 = self.dtype(type_)
    scale: uint256 = self.log_size(code)
    per_leaf: uint256 = unsafe_sub(9, scale)  # log2
    leaves: uint256 = self._leaves(n, scale)
    body: bytes32 = merkle.root_from_leaf(leaves, index >> per_leaf, leaf, proof)
    position: uint256 = index & unsafe_sub(merkle.BIT << per_leaf, 1)
    return self.tensor_hash(type_, body), self.element(leaf, code, position)


# traces and instances


@internal
@pure
def tensor_leaf_hash(index: uint256, hash: bytes32) -> bytes32:
    """
    @notice Hash of leaf `index` of a tree of tensors: index u32 || tensor hash.
    """
    return merkle.leaf_hash(concat(convert(convert(index, uint32), bytes4), hash))


@internal
@pure
def io_root(
    numeric_id: bytes32,
    program: bytes32,
    instance: bytes32,
    weights_root: bytes32,
    inputs: uint256,
    inputs_root: bytes32,
    outputs: uint256,
    outputs_root: bytes32,
) -> bytes32:
    """
    @notice Root of a trace at level io, version 1.
    """
    return sha256(
        concat(
            0x0300000001,
            numeric_id,
            program,
            instance,
            weights_root,
            convert(convert(inputs, uint32), bytes4),
            inputs_root,
            convert(convert(outputs, uint32), bytes4),
            outputs_root,
        )
    )


@internal
@pure
def ops_root(io: bytes32, values: uint256, values_root: bytes32) -> bytes32:
    """
    @notice Root of a trace at level ops.
    """
    return sha256(concat(0x05, io, convert(convert(values, uint32), bytes4), values_root))


@internal
@pure
def instance_digest(
    numeric_id: bytes32, node_root: bytes32, values: uint256, interface_root: bytes32, counts: bytes20
) -> bytes32:
    """
    @param counts Numbers of inputs, weights, states, constants and outputs, 32 bits each.
    """
    return sha256(
        concat(
            0x04, numeric_id, node_root, convert(convert(values, uint64), bytes8), interface_root, counts
        )
    )


# records of nodes


@internal
@pure
def record_field(record: Bytes[protocol.RECORD_BYTES], start: uint256, size: uint256) -> uint256:
    """
    @notice `size` bytes of a record from `start`, at most 32, as a number.
    """
    assert len(record) == protocol.RECORD_BYTES, "record: length"
    at: uint256 = min(start, protocol.RECORD_BYTES - 32)
    word: uint256 = convert(extract32(record, at), uint256) << unsafe_mul(8, start - at)
    return word >> unsafe_sub(256, unsafe_mul(8, size))


@internal
@pure
def record_type(record: Bytes[protocol.RECORD_BYTES]) -> Bytes[protocol.TYPE_BYTES]:
    """
    @notice Encoding of the type of a node's result.
    """
    return slice(record, protocol.RECORD_TYPE, protocol.TYPE_BYTES)


@internal
@pure
def record_source(record: Bytes[protocol.RECORD_BYTES], i: uint256) -> (uint256, uint256):
    """
    @notice Kind and index of source i of a node.
    """
    assert i < self.record_field(record, protocol.RECORD_COUNT, 1), "record: source"
    at: uint256 = unsafe_add(protocol.RECORD_SOURCES, unsafe_mul(protocol.SOURCE_BYTES, i))
    return self.record_field(record, at, 1), self.record_field(record, unsafe_add(at, 1), 4)
