# pragma version 0.4.3
"""
@title Operation decoder
@notice What the operation under dispute does and reads.
@dev Called by Proofs with the call that it got.
"""

from ..generated import forms
from . import operations
from ..generated import protocol
from . import rules
from . import calldata
from . import sources
from . import states
from . import ways

OWN: constant(uint256) = 3  # blobs: ways, then rule or microcode, attributes


@external
@view
def respond(
    dispute: bytes32, clocks: uint256, other: address, state: Bytes[protocol.STATE_BYTES], move: Bytes[protocol.MOVE_BYTES]
) -> Bytes[operations.OPERATION_BYTES]:
    """
    @notice From the start of a PROVE: the operator's own blobs, its record, and the leaf with the claimed entry.
    @param dispute The Court's key of the dispute; not read here
    @param clocks The Court's clocks; not read here
    @param other The other player; not read here
    @param state The game's state before the move
    @param move The move, as verde/messages.py encodes it
    @return The operation, ABI-encoded
    """
    s: states.State = states.read()
    blobs: sources.Blobs = empty(sources.Blobs)
    n: uint256 = calldata.u8(0)
    at: uint256 = unsafe_add(1, unsafe_mul(2, n))
    for i: uint256 in range(n, bound=protocol.MAX_BLOBS):
        size: uint256 = calldata.u16(unsafe_add(1, unsafe_mul(2, i)))
        if i < OWN:
            blobs.digest[i] = sha256(slice(move, at, size))
        blobs.at[i] = at
        at = unsafe_add(at, size)
    return abi_encode(self._operation(s, blobs, at))


@internal
@view
def _operation(s: states.State, blobs: sources.Blobs, start: uint256) -> operations.Operation:
    record: uint256 = 0
    leaf: uint256 = 0
    digest: bytes32 = empty(bytes32)
    record, leaf, digest = ways.record(s, start)
    assert ways.joined(digest, blobs.digest[0]) == s.record, "operation_decoder: record"
    assert calldata.leaf_hash(leaf) == s.leaf, "operation_decoder: leaf"
    params: uint256 = 0
    if s.form != forms.OUTPUT:
        params = calldata.u8(record + protocol.RECORD_COUNT)
    rule: rules.Rule = empty(rules.Rule)
    attrs: uint256 = 0
    code: uint256 = 0
    blob: uint256 = 1
    if s.form == forms.POINTWISE and s.entry >= params:
        code = sources.take(blobs, 1, calldata.digest(record + protocol.RECORD_CODE))
        blob = 2
    elif (forms.RULED >> s.form) & 1 == 1:
        rule = rules.parse(sources.take(blobs, 1, calldata.digest(record + protocol.RECORD_RULE)))
        blob = 2
    if (forms.ATTRIBUTED >> s.form) & 1 == 1:
        attrs = sources.take(blobs, blob, calldata.digest(record + protocol.RECORD_ATTRIBUTES))
        blob += 1
    p: operations.Operation = operations.operation(s, record, rule, attrs, code, params)
    p.leaf = leaf
    p.rule = rule.at
    p.blob = blob
    return p
