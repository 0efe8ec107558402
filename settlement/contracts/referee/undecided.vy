# pragma version 0.4.3
"""
@title Undecided
@notice The operator of a record that is opened in the instance: what ends a job if the referee cannot decide it.
@dev Linked into referees, beside the Court that has no room for it.
"""

from ..lib import merkle
from ..generated import protocol

PROOF: constant(uint256) = 4 + 3 * 32  # of `undecided`, behind three arguments


@internal
@view
def opcode(
    facts: Bytes[protocol.TRAINING_BYTES],
    index: uint256,
    record: Bytes[protocol.RECORD_BYTES],
    proof: DynArray[bytes32, merkle.MAX_DEPTH],
) -> uint256:
    """
    @notice Of the value at `index` of the instance in the facts; the proof is read where it stands in the call,
            whose four arguments these are.
    """
    assert len(record) == protocol.RECORD_BYTES, "referee: record"
    count: uint256 = convert(slice(facts, protocol.STATEMENT_VALUES, 8), uint256)
    siblings: uint256 = convert(slice(msg.data, PROOF, 32), uint256) + 36
    leaf: bytes32 = sha256(concat(0x00, record))
    root: bytes32 = merkle.climb(count, 0, index, leaf, siblings, len(proof))
    assert root == extract32(facts, protocol.STATEMENT_NODE_ROOT) and 1 << len(proof) >= count, "referee: record"
    return convert(slice(record, 0, 2), uint256)
