# pragma version 0.4.3
"""
@title Proofs
@notice The last move: the operands of one operation, opened against what is committed, and its execution.
@dev Called by Referee. What the operation is, Operation decoder says; it is executed by Arithmetic.
"""

from . import entries
from ..generated import forms
from ..generated import numbers
from . import operations
from ..generated import protocol
from . import rules
from . import calldata
from . import sources
from . import states

interface IArithmetic:
    def execute(
        what: uint256, step: uint256, x: uint256[5], out: uint256, source: uint256
    ) -> uint256: pure

NOWHERE: constant(uint256) = 2**128  # beyond all calldata


DECODER: immutable(address)
ARITHMETIC: immutable(IArithmetic)


@deploy
def __init__(decoder: address, arithmetic: address):
    DECODER = decoder
    ARITHMETIC = IArithmetic(arithmetic)


@external
@view
def respond(
    dispute: bytes32, clocks: uint256, other: address, state: Bytes[protocol.STATE_BYTES], move: Bytes[protocol.MOVE_BYTES]
) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice The decided state. Blobs: ways, the operator's own, the rules of hops; record; the leaf with the
            claimed entry; 1 and the statement, or 0 where no tensor of the program is read; then for each operand in order the leaf and proof of its
            entry, unless it stands in the leaf, or the opening of its source.
    @param dispute The Court's key of the dispute; not read here
    @param clocks The Court's clocks; not read here
    @param other The other player; not read here
    @param state The game's state before the move
    @param move The move, as verde/messages.py encodes it
    @return The state after it
    """
    s: states.State = states.read()
    assert s.phase == protocol.PHASE_PROVE, "proofs: phase"
    p: operations.Operation = abi_decode(
        slice(raw_call(DECODER, msg.data, max_outsize=64 + operations.OPERATION_BYTES, is_static_call=True), 64, operations.OPERATION_BYTES),
        operations.Operation,
    )
    blobs: sources.Blobs = empty(sources.Blobs)
    n: uint256 = calldata.u8(0)
    at: uint256 = unsafe_add(1, unsafe_mul(2, n))
    for i: uint256 in range(n, bound=protocol.MAX_BLOBS):
        size: uint256 = calldata.u16(unsafe_add(1, unsafe_mul(2, i)))
        if i >= p.blob:  # the decoder has seen the operator's own
            blobs.digest[i] = sha256(slice(move, at, size))
        blobs.at[i] = at
        at = unsafe_add(at, size)
    claimed: uint256 = entries.at(s, p.leaf, s.entry % unsafe_div(numbers.LEAF_BYTES, s.width))
    valid: bool = False
    values: uint256[5] = empty(uint256[5])
    dtype: uint256 = 0
    r: sources.Reader = empty(sources.Reader)
    valid, values, dtype, r = self._operands(s, p, blobs)
    # one move has one encoding
    calldata.end(r.at)
    assert r.blob == n, "proofs: more bytes than are read"
    result: uint256 = max_value(uint256)
    if p.what == operations.WITNESS:
        if claimed < values[0]:
            result = claimed
    elif valid:
        result = staticcall ARITHMETIC.execute(p.what, p.step, values, s.dtype, dtype)
    s = states.won(
        s, protocol.DEFENDER if result == claimed else protocol.CHALLENGER, protocol.REASON_EXECUTED
    )
    return states.write(s)


@internal
@view
def _operands(
    s: states.State, p: operations.Operation, blobs: sources.Blobs
) -> (bool, uint256[5], uint256, sources.Reader):
    """
    @notice The operands, the element type of the source read last, and how far the move has been read; False
            if an index is out of range.
    """
    statement: uint256 = unsafe_add(p.leaf, 513)
    r: sources.Reader = sources.Reader(at=statement, blob=p.blob, outer=False)
    if calldata.u8(unsafe_sub(statement, 1)) == 1:
        assert calldata.statement_hash(statement) == s.context, "proofs: statement"
        r.at = statement + protocol.STATEMENT_BYTES
    else:
        statement = NOWHERE
    rule: rules.Rule = empty(rules.Rule)
    if p.rule > 0:
        rule = rules.parse(p.rule)
    values: uint256[5] = empty(uint256[5])
    dtype: uint256 = 0
    valid: bool = True
    for i: uint256 in range(p.count, bound=5):
        o: operations.Operand = p.operands[i]
        if o.kind == operations.BITS:
            values[i] = o.value
            continue
        if o.kind == operations.ENTRY:
            values[i], r.at = self._entry(s, o.value, p.leaf, r.at)
            continue
        flat: uint256 = s.element
        if s.form != forms.OUTPUT:
            state: uint256 = 0
            state, flat, r.at = self._place(s, p, rule, o, r.at)
            if state == 2:
                valid = False
                break
            if state == 1:
                values[i] = p.outside
                continue
        found: sources.Opened = sources.opened(s, statement, blobs, r, o.source, flat)
        values[i] = found.bits
        dtype = found.dtype
        r = found.reader
    assert r.outer == (statement != NOWHERE), "proofs: statement"
    return valid, values, dtype, r


@internal
@view
def _place(
    s: states.State, p: operations.Operation, rule: rules.Rule, o: operations.Operand, start: uint256
) -> (uint256, uint256, uint256):
    """
    @notice 0, the flat index that an operand reads and where its indices end; 1 where it reads outside the
            bounds, 2 where an index is out of range.
    """
    at: uint256 = start
    k: uint256 = o.value
    if o.kind == operations.NAMED:
        k, at = self._entry(s, o.value, p.leaf, at)
        if k >= rules.reduction(rule):
            return 2, 0, at
    inside: bool = False
    flat: uint256 = 0
    inside, flat = rules.flat(rule, o.source, s.element, k)
    if not inside:
        return 1, 0, at
    if o.kind == operations.TERMS:
        for t: uint256 in range(rules.terms(rule, 0), bound=8):
            term: rules.Term = rules.term(rule, 0, t)
            index: uint256 = 0
            index, at = self._entry(s, t, p.leaf, at)
            if term.wrap and index >= protocol.SIGN64:
                index = unsafe_add(index, term.bound) & protocol.MASK64
            if index >= term.bound:
                return 2, 0, at
            flat += index * term.stride
    return 0, flat, at


@internal
@view
def _entry(s: states.State, i: uint256, leaf: uint256, at: uint256) -> (uint256, uint256):
    """
    @notice Entry i, and where its opening ends; an entry of the leaf under dispute has none.
    """
    per: uint256 = unsafe_div(numbers.LEAF_BYTES, s.width)
    if unsafe_div(i, per) == s.leaf_index:
        return entries.at(s, leaf, i % per), at
    return entries.opened(s, i, at), calldata.after_proof(at + numbers.LEAF_BYTES)
