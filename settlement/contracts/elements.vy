# pragma version 0.4.3
"""
@title Elements
@notice The rules of a dispute inside an element: its derivation, its row program, and what an operation of it
        reads.
@dev Called by Referee and Proofs. A move is: number of blobs u8, their lengths u16, the blobs (index rules,
     attributes, microcode, in the order in which they are needed), then what the phase asks for.
"""

from . import derivations
from . import entries
from . import forms
from . import merkle
from . import rules
from . import shown
from . import sources
from . import states

STATE_BYTES: constant(uint256) = 384
MOVE_BYTES: constant(uint256) = 12288
PLAN_BYTES: constant(uint256) = 32 * 23

DERIVE: constant(uint256) = 8
ROWS: constant(uint256) = 9
ENTRY: constant(uint256) = 11
PROVE: constant(uint256) = 12
TENSORS: constant(uint256) = 2
ENTRIES: constant(uint256) = 4
ROW: constant(uint256) = 2

# forms, one bit each
RULE_TO_COUNT: constant(uint256) = (
    2**forms.CONTRACTION + 2**forms.SUM + 2**forms.EXTREME + 2**forms.ARGUMENT + 2**forms.CUMSUM
    + 2**forms.SORT + 2**forms.TABLE + 2**forms.SCATTER
)
RULE: constant(uint256) = RULE_TO_COUNT + 2**forms.CAT + 2**forms.PAD + 2**forms.POINTWISE
ATTRIBUTES: constant(uint256) = (
    2**forms.CUMSUM + 2**forms.SORT + 2**forms.SCATTER + 2**forms.PAD + 2**forms.CREATE
)


@external
@view
def respond(
    dispute: bytes32, clocks: uint256, other: address, state: Bytes[STATE_BYTES], move: Bytes[MOVE_BYTES]
) -> Bytes[PLAN_BYTES]:
    """
    @notice The state after DERIVE or ROWS, which decide nothing. Of a PROVE what the operation under dispute
            does and reads, from the start of the move: record, and the leaf with the claimed entry.
    """
    s: states.State = states.read()
    blobs: sources.Blobs = empty(sources.Blobs)
    n: uint256 = shown.number(0, 1)
    at: uint256 = unsafe_add(1, unsafe_mul(2, n))
    for i: uint256 in range(n, bound=16):
        size: uint256 = shown.number(unsafe_add(1, unsafe_mul(2, i)), 2)
        if i < 2:  # the operator's own
            blobs.digest[i] = sha256(slice(move, at, size))
        blobs.at[i] = at
        at = unsafe_add(at, size)
    if s.phase == PROVE:
        return abi_encode(self._plan(s, blobs, at))
    if s.phase == DERIVE:
        s = self._derive(s, blobs, at)
    else:
        assert s.phase == ROWS, "elements: phase"
        s = self._rows(s, at)
    return states.write(s)


@internal
@view
def _record(s: states.State, at: uint256) -> (uint256, uint256):
    """
    @notice Where the record of the operator under dispute starts, and where it ends.
    """
    if s.form == forms.OUTPUT:
        assert merkle.leaf_hash(slice(msg.data, shown.MOVE + at, 6)) == s.record, "elements: record"
        return at, at + 6
    if s.inside == 1:
        leaf: bytes32 = merkle.leaf_hash(slice(msg.data, shown.MOVE + at, 241))
        assert leaf == s.record, "elements: record"
        return at + 1, at + 241
    assert shown.record_hash(at) == s.record, "elements: record"
    return at, at + 240


@internal
@view
def _derive(before: states.State, blobs: sources.Blobs, start: uint256) -> states.State:
    """
    @notice Record, root of the entries, the leaf of the last entry and its proof. Blobs: index rule and
            attributes, or microcode, where the number of operations depends on them.
    """
    s: states.State = before
    record: uint256 = 0
    at: uint256 = 0
    record, at = self._record(s, start)
    rule: rules.Rule = empty(rules.Rule)
    position: uint256 = 0
    code: uint256 = 0
    if (RULE_TO_COUNT >> s.form) & 1 == 1:
        rule = rules.parse(sources.take(blobs, 0, shown.digest(record + 96)))
        if s.form == forms.CUMSUM:
            attrs: uint256 = sources.take(blobs, 1, shown.digest(record + 128))
            position = rules.digit(rule, s.element, shown.number(attrs, 8))
    elif s.form == forms.POINTWISE:
        code = sources.take(blobs, 0, shown.digest(record + 160))
    params: uint256 = shown.number(record + 3, 1)
    s.limit = derivations.operations(s.form, rule, position, code, params)
    s.width = derivations.width(s.form, s.dtype, code, params)
    s.entries = shown.digest(at)
    leaves: uint256 = (s.limit * s.width + 511) // 512
    last: uint256 = entries.opened(s, s.limit - 1, at + 32)
    shown.end(shown.after_proof(at + 32 + 512))
    assert last == s.bits, "elements: last entry"
    if leaves == 1:
        s.phase = ENTRY
        s.leaf = s.entries
        s.leaf_index = 0
        return s
    return states.top(s, ENTRIES, s.entries, leaves)


@internal
@view
def _rows(before: states.State, at: uint256) -> states.State:
    """
    @notice Record; the row program's last leaf and its proof; root of its nodes, and the element opened in the
            last one: type, leaf, two proofs.
    """
    s: states.State = before
    assert shown.record_hash(at) == s.record and s.inside == 0, "elements: record"
    s.program = shown.digest(at + 192)
    s.leaves = shown.number(at + 224, 8)
    p: uint256 = at + 240
    assert shown.number(p, 1) == 4, "elements: last leaf"
    leaf: bytes32 = merkle.leaf_hash(slice(msg.data, shown.MOVE + p, 141))
    assert shown.root(s.leaves, s.leaves - 1, leaf, p + 141) == s.program, "elements: last leaf"
    s.first = shown.number(p + 1, 4)
    nodes: uint256 = s.leaves - 1 - s.first
    flat: uint256 = sources.affine(p, s.element)
    p = shown.after_proof(p + 141)
    s.rows = shown.digest(p)
    bits: uint256 = 0
    code: uint256 = 0
    end: uint256 = 0
    bits, code, end = sources.open_in(s.rows, nodes, nodes - 1, flat, p + 32)
    assert bits == s.bits, "elements: element"
    shown.end(end)
    s.owner = s.tensor
    s.owner_element = s.element
    s.inside = 1
    s.run = s.record
    s.tree = ROW
    s.tensor = 0
    s.element = 0
    s.dtype = 0
    s.form = 0
    s.limit = 0
    s.record = empty(bytes32)
    return states.top(s, TENSORS, s.rows, nodes)


@internal
@view
def _plan(s: states.State, blobs: sources.Blobs, start: uint256) -> derivations.Plan:
    record: uint256 = 0
    leaf: uint256 = 0
    record, leaf = self._record(s, start)
    assert shown.leaf_hash(leaf) == s.leaf, "elements: leaf"
    params: uint256 = 0
    if s.form != forms.OUTPUT:
        params = shown.number(record + 3, 1)
    rule: rules.Rule = empty(rules.Rule)
    attrs: uint256 = 0
    code: uint256 = 0
    blob: uint256 = 0
    if s.form == forms.POINTWISE and s.entry >= params:
        code = sources.take(blobs, 0, shown.digest(record + 160))
        blob = 1
    elif (RULE >> s.form) & 1 == 1:
        rule = rules.parse(sources.take(blobs, 0, shown.digest(record + 96)))
        blob = 1
    if (ATTRIBUTES >> s.form) & 1 == 1:
        attrs = sources.take(blobs, blob, shown.digest(record + 128))
        blob += 1
    p: derivations.Plan = derivations.plan(s, record, rule, attrs, code, params)
    p.record = record
    p.leaf = leaf
    p.rule = rule.at
    p.blob = blob
    return p
