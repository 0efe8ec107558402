# pragma version 0.4.3
"""
@title Elements
@notice The rules of a dispute inside an element: its derivation and its row program.
@dev Called by Referee. A move is: number of blobs u8, their lengths u16, the blobs (the ways of the operator's
     sources, index rules, attributes, microcode, in the order in which they are needed), then what the phase
     asks for.
"""

from . import derivations
from . import entries
from ..generated import forms
from ..lib import merkle
from ..generated import numbers
from ..generated import protocol
from . import rules
from . import calldata
from . import sources
from . import states
from . import ways



@external
@view
def respond(
    dispute: bytes32, clocks: uint256, other: address, state: Bytes[protocol.STATE_BYTES], move: Bytes[protocol.MOVE_BYTES]
) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice The state after DERIVE or ROWS, which decide nothing.
    @param dispute The Court's key of the dispute; not read here
    @param clocks The Court's clocks; not read here
    @param other The other player; not read here
    @param state The game's state before the move
    @param move The move, as verde/messages.py encodes it
    @return The state after it
    """
    s: states.State = states.read()
    blobs: sources.Blobs = empty(sources.Blobs)
    n: uint256 = calldata.u8(0)
    at: uint256 = unsafe_add(1, unsafe_mul(2, n))
    for i: uint256 in range(n, bound=3):
        size: uint256 = calldata.u16(unsafe_add(1, unsafe_mul(2, i)))
        blobs.digest[i] = sha256(slice(move, at, size))
        blobs.at[i] = at
        at = unsafe_add(at, size)
    blobs.at[n] = at
    if s.phase == protocol.PHASE_DERIVE:
        s = self._derive(s, blobs, n)
    else:
        assert s.phase == protocol.PHASE_ROWS and n == 0, "elements: phase"
        s = self._rows(s, at)
    return states.write(s)


@internal
@view
def _derive(before: states.State, blobs: sources.Blobs, n: uint256) -> states.State:
    """
    @notice Record; 1 and the statement, or 0 where no value is moved; what shows the ways; root of the entries,
            the leaf of the last entry and its proof; of a sort, whose first entry is the defender's choice,
            the same of that one unless it is the same leaf. Blobs: ways; index rule and attributes, or microcode,
            where the number of operations depends on them.
    """
    s: states.State = before
    record: uint256 = 0
    at: uint256 = 0
    digest: bytes32 = empty(bytes32)
    record, at, digest = ways.record(s, blobs.at[n])
    assert digest == s.record, "elements: record"
    statement: uint256 = 0
    if calldata.u8(at) == 1:
        statement = at + 1
        assert calldata.statement_hash(statement) == s.context, "elements: statement"
        at = statement + protocol.STATEMENT_BYTES
    else:
        assert calldata.u8(at) == 0, "elements: statement"
        at += 1
    end: uint256 = 0
    outer: bool = False
    end, at, outer = ways.check(s, statement, record, blobs.at[0], at)
    assert n > 0 and end == blobs.at[1] and outer == (statement > 0), "elements: ways"
    s.record = ways.joined(s.record, blobs.digest[0])
    used: uint256 = 1
    rule: rules.Rule = empty(rules.Rule)
    position: uint256 = 0
    code: uint256 = 0
    if (forms.COUNTED >> s.form) & 1 == 1:
        rule = rules.parse(sources.take(blobs, 1, calldata.digest(record + protocol.RECORD_RULE)))
        used = 2
        if s.form == forms.SCAN:
            attrs: uint256 = sources.take(blobs, 2, calldata.digest(record + protocol.RECORD_ATTRIBUTES))
            used = 3
            position = rules.digit(rule, s.element, calldata.u64(attrs))
    elif s.form == forms.POINTWISE:
        code = sources.take(blobs, 1, calldata.digest(record + protocol.RECORD_CODE))
        used = 2
    assert used == n, "elements: more bytes than are read"
    params: uint256 = calldata.u8(record + protocol.RECORD_COUNT)
    s.limit = derivations.operations(s.form, rule, position, code, params)
    s.width = derivations.width(s.form, s.dtype, code, params)
    s.entries = calldata.digest(at)
    leaves: uint256 = (s.limit * s.width + (numbers.LEAF_BYTES - 1)) // numbers.LEAF_BYTES
    last: uint256 = entries.opened(s, s.limit - 1, at + 32)
    at = calldata.after_proof(at + 32 + numbers.LEAF_BYTES)
    if s.form == forms.SORT and leaves > 1:  # the choice is known from here on
        chosen: uint256 = entries.opened(s, 0, at)
        at = calldata.after_proof(at + numbers.LEAF_BYTES)
    calldata.end(at)
    assert last == s.bits, "elements: last entry"
    if leaves == 1:
        s.phase = protocol.PHASE_ENTRY
        s.leaf = s.entries
        s.leaf_index = 0
        return s
    return states.top(s, protocol.KIND_ENTRIES, s.entries, leaves)


@internal
@view
def _rows(before: states.State, at: uint256) -> states.State:
    """
    @notice Record; the row program's last leaf and its proof; root of its nodes, and the element opened in the
            last one: type, leaf, two proofs.
    """
    s: states.State = before
    assert calldata.record_hash(at) == s.record and s.inside == 0, "elements: record"
    s.program = calldata.digest(at + protocol.RECORD_PROGRAM)
    s.leaves = calldata.u64(at + protocol.RECORD_PROGRAM_LEAVES)
    p: uint256 = at + protocol.RECORD_BYTES
    assert calldata.u8(p) == protocol.ROW_ELEMENT, "elements: last leaf"
    leaf: bytes32 = merkle.leaf_hash(slice(msg.data, calldata.MOVE + p, protocol.ROW_NUMBER_BYTES))
    assert calldata.root(s.leaves, s.leaves - 1, leaf, p + protocol.ROW_NUMBER_BYTES) == s.program, "elements: last leaf"
    s.first = calldata.u32(p + protocol.ROW_NUMBER_FIRST)
    nodes: uint256 = s.leaves - 1 - s.first
    flat: uint256 = sources.affine(p, s.element)
    p = calldata.after_proof(p + protocol.ROW_NUMBER_BYTES)
    s.rows = calldata.digest(p)
    bits: uint256 = 0
    code: uint256 = 0
    end: uint256 = 0
    bits, code, end = sources.open_in(s.rows, nodes, nodes - 1, flat, p + 32)
    assert bits == s.bits, "elements: element"
    calldata.end(end)
    s.owner = s.tensor
    s.owner_element = s.element
    s.inside = 1
    s.run = s.record
    s.tree = protocol.TREE_ROW
    s.tensor = 0
    s.element = 0
    s.dtype = 0
    s.form = 0
    s.limit = 0
    s.record = empty(bytes32)
    return states.top(s, protocol.KIND_TENSORS, s.rows, nodes)
