# pragma version 0.4.3
"""
@title TreesTester
@notice Tests only: the functions of Merkle and Commitments, and the gas of those a dispute calls.
"""

from ..referee import commitments
from ..lib import merkle

MAX_DEPTH: constant(uint256) = 40
SHOWN: constant(uint256) = 4 + 5 * 32  # the last of four arguments: an offset, a length


@external
@pure
def leaf_hash(data: Bytes[512]) -> bytes32:
    return merkle.leaf_hash(data)


@external
@pure
def node_hash(left: bytes32, right: bytes32) -> bytes32:
    return merkle.node_hash(left, right)


@external
@pure
def depth(count: uint256) -> uint256:
    return merkle.depth(count)


@external
@pure
def children(count: uint256, level: uint256, index: uint256) -> uint256:
    return merkle.children(count, level, index)


@external
@view
def root_from_leaf(
    count: uint256, index: uint256, leaf: Bytes[512], proof: DynArray[bytes32, MAX_DEPTH]
) -> (bytes32, uint256):
    gas: uint256 = msg.gas
    root: bytes32 = merkle.root_from_leaf(count, index, leaf, proof)
    return root, unsafe_sub(gas, msg.gas)


@external
@view
def root_from_node(
    count: uint256,
    level: uint256,
    index: uint256,
    node: bytes32,
    proof: DynArray[bytes32, MAX_DEPTH],
) -> (bytes32, uint256):
    gas: uint256 = msg.gas
    root: bytes32 = merkle.root_from_node(count, level, index, node, proof)
    return root, unsafe_sub(gas, msg.gas)


@external
@view
def ancestor(
    count: uint256,
    level: uint256,
    index: uint256,
    node: bytes32,
    siblings: DynArray[bytes32, MAX_DEPTH],
) -> (bytes32, uint256):
    gas: uint256 = msg.gas
    node_above: bytes32 = merkle.ancestor(count, level, index, node, siblings)
    return node_above, unsafe_sub(gas, msg.gas)


@external
@view
def reveal(
    count: uint256, level: uint256, index: uint256, shown: DynArray[bytes32, 16]
) -> (bytes32, uint256):
    gas: uint256 = msg.gas
    node: bytes32 = merkle.reveal(count, level, index, SHOWN, len(shown) << 5)
    return node, unsafe_sub(gas, msg.gas)


@external
@pure
def elements(type_: Bytes[66]) -> (uint256, uint256):
    return commitments.elements(type_), commitments.body_leaves(type_)


@external
@pure
def dims(type_: Bytes[66]) -> DynArray[uint256, 8]:
    return commitments.dims(type_)


@external
@view
def tensor_hash(type_: Bytes[66], body_root: bytes32) -> (bytes32, uint256):
    gas: uint256 = msg.gas
    digest: bytes32 = commitments.tensor_hash(type_, body_root)
    return digest, unsafe_sub(gas, msg.gas)


@external
@pure
def element(leaf: Bytes[512], code: uint256, position: uint256) -> uint256:
    return commitments.element(leaf, code, position)


@external
@view
def open_element(
    type_: Bytes[66], index: uint256, leaf: Bytes[512], proof: DynArray[bytes32, MAX_DEPTH]
) -> (bytes32, uint256, uint256):
    gas: uint256 = msg.gas
    digest: bytes32 = empty(bytes32)
    value: uint256 = 0
    digest, value = commitments.open_element(type_, index, leaf, proof)
    return digest, value, unsafe_sub(gas, msg.gas)


@external
@pure
def tensor_leaf_hash(index: uint256, hash: bytes32) -> bytes32:
    return commitments.tensor_leaf_hash(index, hash)


@external
@pure
def ops_root(
    digests: bytes32[4],
    inputs: uint256,
    inputs_root: bytes32,
    outputs: uint256,
    outputs_root: bytes32,
    values: uint256,
    values_root: bytes32,
) -> (bytes32, bytes32):
    io: bytes32 = commitments.io_root(
        digests[0], digests[1], digests[2], digests[3], inputs, inputs_root, outputs, outputs_root
    )
    return io, commitments.ops_root(io, values, values_root)


@external
@pure
def instance_digest(
    numeric_id: bytes32, node_root: bytes32, values: uint256, interface_root: bytes32, counts: bytes20
) -> bytes32:
    return commitments.instance_digest(numeric_id, node_root, values, interface_root, counts)


@external
@pure
def record_field(record: Bytes[240], start: uint256, size: uint256) -> uint256:
    return commitments.record_field(record, start, size)


@external
@pure
def record_type(record: Bytes[240]) -> Bytes[66]:
    return commitments.record_type(record)


@external
@pure
def record_source(record: Bytes[240], i: uint256) -> (uint256, uint256):
    return commitments.record_source(record, i)
