# pragma version 0.4.3
"""
@title Referee
@notice The rules of a dispute: from a history to a step, a tensor, a leaf, an element, a single operation.
@dev verde/game.py has the same rules. A move that the rules do not allow or that proves nothing reverts;
     there the defender's clock decides. Elements plays derivations and row programs, Proofs the last
     move.
"""

from . import commitments
from . import descent
from ..generated import forms
from ..lib import merkle
from ..generated import numbers
from ..generated import protocol
from . import calldata
from . import states
from . import undecided as records
from ..interfaces import IReferee

implements: IReferee

numeric_id: public(immutable(bytes32))
ELEMENTS: immutable(address)
PROOFS: immutable(address)


@deploy
def __init__(numeric_id_: bytes32, elements: address, proofs: address):
    numeric_id = numeric_id_
    ELEMENTS = elements
    PROOFS = proofs


@external
@view
def decides(opcode: uint256) -> bool:
    """
    @notice Whether disputes about this operator can be decided.
    @param opcode An operator's number
    @return True if they can
    """
    return forms.of(opcode) != 0


@external
@view
def undecided(
    facts: Bytes[protocol.TRAINING_BYTES],
    index: uint256,
    record: Bytes[protocol.RECORD_BYTES],
    proof: DynArray[bytes32, merkle.MAX_DEPTH],
) -> uint256:
    """
    @notice The operator, which cannot be decided, of a record of the instance that the facts begin with.
    @param facts As the job was posted with
    @param index Of the record among the instance's values
    @param record Record of a value, 240 bytes
    @param proof Siblings from the record to the node root
    @return The operator's opcode
    """
    opcode: uint256 = records.opcode(facts, index, record, proof)
    assert forms.of(opcode) == 0, "referee: decidable"
    return opcode


@external
@view
def begin(statement: Bytes[protocol.STATEMENT_BYTES]) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice First state of a dispute over one run of a program.
    @param statement Instance and roots, 284 bytes, as IReferee lays them out
    @return The state
    """
    assert len(statement) == protocol.STATEMENT_BYTES, "referee: statement"
    assert convert(slice(statement, protocol.STATEMENT_NUMERIC_ID, 32), bytes32) == numeric_id, "referee: numeric id"
    s: states.State = empty(states.State)
    s.phase = protocol.PHASE_OPEN
    s.context = sha256(statement)
    return states.write(s)


@external
@view
def begin_run(
    statement: Bytes[protocol.STATEMENT_BYTES], run: Bytes[protocol.RUN_BYTES]
) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice First state of a dispute over a training run.
    @param statement Instance and roots, 284 bytes, as IReferee lays them out
    @param run The training run, 104 bytes, as IReferee lays them out
    @return The state
    """
    assert len(statement) == protocol.STATEMENT_BYTES, "referee: statement"
    assert convert(slice(statement, protocol.STATEMENT_NUMERIC_ID, 32), bytes32) == numeric_id, "referee: numeric id"
    assert len(run) == protocol.RUN_BYTES, "referee: run"
    s: states.State = empty(states.State)
    s.context = sha256(statement)
    s.run = sha256(run)
    steps: uint256 = convert(slice(run, protocol.RUN_STEPS, 8), uint256)
    return states.write(states.top(s, protocol.KIND_HISTORY, convert(slice(run, protocol.RUN_HISTORY, 32), bytes32), steps))


@external
@view
def respond(
    dispute: bytes32, clocks: uint256, other: address, state: Bytes[protocol.STATE_BYTES], move: Bytes[protocol.MOVE_BYTES]
) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice The state after a move.
    @param dispute The Court's key of the dispute; not read here
    @param clocks The Court's clocks; not read here
    @param other The other player; not read here
    @param state The game's state before the move
    @param move The move, as verde/messages.py encodes it
    @return The state after it
    """
    calldata.check()
    phase: uint256 = (calldata.state_word(protocol.WORD_HEAD) >> protocol.STATE_PHASE) & protocol.MASK8
    if phase == protocol.PHASE_REVEAL or phase == protocol.PHASE_PICK:
        return self._descended()
    if phase == protocol.PHASE_PROVE:
        return self._handed_on(PROOFS)
    if phase == protocol.PHASE_DERIVE or phase == protocol.PHASE_ROWS:
        return self._handed_on(ELEMENTS)
    s: states.State = states.read()
    if s.phase == protocol.PHASE_ELEMENT:
        s = self._element(s)
    elif s.phase == protocol.PHASE_ENTRY:
        s = self._entry(s)
    elif s.phase == protocol.PHASE_BODY or s.phase == protocol.PHASE_ENTRIES:
        s = self._leaf(s)
    elif s.phase == protocol.PHASE_TENSOR:
        s = self._tensor(s)
    elif s.phase == protocol.PHASE_CHOOSE:
        s = self._choose(s)
    elif s.phase == protocol.PHASE_OPEN:
        calldata.end(32)
        s.values = calldata.digest(0)
        s.phase = protocol.PHASE_CHOOSE
    else:
        assert s.phase == protocol.PHASE_STEP, "referee: over"
        s = self._step(s)
    return states.write(s)


@internal
@view
def _descended() -> Bytes[protocol.STATE_BYTES]:
    """
    @notice The state after REVEAL or PICK, most of which stays.
    """
    head: uint256 = 0
    place: uint256 = 0
    node: bytes32 = empty(bytes32)
    node = convert(calldata.state_word(protocol.WORD_NODE), bytes32)
    head, place, node = descent.play(
        calldata.state_word(protocol.WORD_HEAD), calldata.state_word(protocol.WORD_PLACE), node, calldata.MOVE, calldata.size()
    )
    return concat(
        convert(head, bytes32),
        slice(msg.data, calldata.STATE + 32 * protocol.WORD_NUMBERS, 32),
        convert(place, bytes32),
        slice(
            msg.data,
            calldata.STATE + 32 * protocol.WORD_CONTEXT,
            32 * (protocol.WORD_NODE - protocol.WORD_CONTEXT),
        ),
        node,
        slice(
            msg.data, calldata.STATE + 32 * protocol.WORD_LEAF, protocol.STATE_BYTES - 32 * protocol.WORD_LEAF
        ),
    )


@internal
@view
def _handed_on(to: address) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice What another contract says to this call.
    """
    return slice(raw_call(to, msg.data, max_outsize=64 + protocol.STATE_BYTES, is_static_call=True), 64, protocol.STATE_BYTES)


@internal
@view
def _step(before: states.State) -> states.State:
    """
    @notice Statement, run; after the step state root and loss; batch and its proof; for all but the first
            step state root and loss before it and their proof, for the first the initial state.
    """
    s: states.State = before
    assert calldata.statement_hash(0) == s.context, "referee: statement"
    run: Bytes[protocol.RUN_BYTES] = slice(msg.data, calldata.MOVE + protocol.STATEMENT_BYTES, protocol.RUN_BYTES)
    assert sha256(run) == s.run, "referee: run"
    initial: uint256 = protocol.STATEMENT_BYTES
    steps: uint256 = calldata.u64(initial + protocol.RUN_STEPS)
    at: uint256 = protocol.STATEMENT_BYTES + protocol.RUN_BYTES
    after: bytes32 = calldata.digest(at)
    loss: bytes32 = calldata.digest(at + 32)
    batch: bytes32 = calldata.digest(at + 64)
    s.step = s.index + 1
    number: bytes8 = convert(convert(s.step, uint64), bytes8)
    assert merkle.leaf_hash(concat(number, after, loss)) == s.node, "referee: step"
    at += 96
    leaf: bytes32 = merkle.leaf_hash(concat(number, batch))
    assert calldata.root(steps, s.index, leaf, at) == calldata.digest(initial + protocol.RUN_BATCHES), "referee: batch"
    at = calldata.after_proof(at)
    start: bytes32 = calldata.digest(at)
    end: uint256 = at + 32
    if s.index == 0:
        assert start == calldata.digest(initial), "referee: first step"
    else:
        number = convert(convert(s.index, uint64), bytes8)
        leaf = merkle.leaf_hash(concat(number, start, calldata.digest(at + 32)))
        history: bytes32 = calldata.root(steps, unsafe_sub(s.index, 1), leaf, at + 64)
        assert history == calldata.digest(initial + protocol.RUN_HISTORY), "referee: step before"
        end = calldata.after_proof(at + 64)
    calldata.end(end)
    instance: Bytes[protocol.INSTANCE_BYTES] = slice(msg.data, calldata.MOVE, protocol.INSTANCE_BYTES)
    s.context = sha256(concat(instance, batch, calldata.digest(protocol.STATEMENT_WEIGHTS_ROOT), start, after, loss))
    return states.nowhere(s, protocol.PHASE_OPEN)


@internal
@view
def _choose(before: states.State) -> states.State:
    """
    @notice 0 for the values, 1 for the outputs, 2 for the loss in a byte; statement.
    """
    s: states.State = before
    calldata.end(1 + protocol.STATEMENT_BYTES)
    assert calldata.statement_hash(1) == s.context, "referee: statement"
    what: uint256 = calldata.u8(0)
    s.tree = min(what, protocol.TREE_OUTPUTS)
    if what == 0:
        return states.top(s, protocol.KIND_TENSORS, s.values, calldata.u64(1 + protocol.STATEMENT_VALUES))
    outputs: uint256 = calldata.u32(1 + protocol.STATEMENT_OUTPUTS)
    loss: bytes32 = calldata.digest(1 + protocol.STATEMENT_LOSS)
    if what == 1:
        if loss != empty(bytes32):
            outputs -= 1
        return states.top(s, protocol.KIND_TENSORS, calldata.digest(1 + protocol.STATEMENT_OUTPUTS_ROOT), outputs)
    assert what == 2 and loss != empty(bytes32), "referee: choice"
    leaf: bytes32 = commitments.tensor_leaf_hash(outputs - 1, loss)
    return states.at(s, protocol.KIND_TENSORS, leaf, outputs, 0, outputs - 1)


@internal
@view
def _tensor(before: states.State) -> states.State:
    """
    @notice Body root; statement; what the instance says about the tensor. Of a value its record and proof. In
            a row program the leaf of the node and its proof. Of an output its leaf and proof, then the
            record or type, with its proof, of what is returned.
    """
    s: states.State = before
    s.tensor = s.index
    body: bytes32 = calldata.digest(0)
    record: uint256 = 33  # where the record starts, or four bytes before a type
    end: uint256 = 0
    if s.inside == 1:
        assert calldata.u8(32) == protocol.ROW_NODE, "referee: node"
        s.record = merkle.leaf_hash(slice(msg.data, calldata.MOVE + 32, protocol.ROW_NODE_BYTES))
        i: uint256 = unsafe_add(s.first, s.index)
        assert calldata.root(s.leaves, i, s.record, 32 + protocol.ROW_NODE_BYTES) == s.program, "referee: node"
        end = calldata.after_proof(32 + protocol.ROW_NODE_BYTES)
    else:
        assert calldata.statement_hash(32) == s.context, "referee: statement"
        record = 32 + protocol.STATEMENT_BYTES
        if s.tree == protocol.TREE_VALUES:
            s.record, end = self._record(record, s.index)
        else:
            record, end = self._output(s.index)
            s.record = merkle.leaf_hash(slice(msg.data, calldata.MOVE + 32 + protocol.STATEMENT_BYTES, protocol.RETURNED_BYTES))
    calldata.end(end)
    s.form = forms.OUTPUT
    if s.tree != protocol.TREE_OUTPUTS:
        s.form = forms.of(calldata.u16(record))
        assert s.form != 0, "referee: undecidable"
    if s.form == forms.MOVEMENT:
        leaf: bytes32 = commitments.tensor_leaf_hash(s.index, empty(bytes32))
        assert leaf == s.node and body == empty(bytes32), "referee: moved"
    type_: Bytes[protocol.TYPE_BYTES] = slice(msg.data, calldata.MOVE + record + protocol.RECORD_TYPE, protocol.TYPE_BYTES)
    s.dtype = commitments.dtype(type_)
    s.limit = commitments.elements(type_)
    if s.form == forms.MOVEMENT:
        return states.won(s, protocol.DEFENDER, protocol.REASON_MOVED)
    hash: bytes32 = commitments.tensor_hash(type_, body)
    assert commitments.tensor_leaf_hash(s.index, hash) == s.node, "referee: tensor"
    if s.limit == 0:
        return states.won(s, protocol.DEFENDER, protocol.REASON_EMPTY)
    return states.top(s, protocol.KIND_BODY, body, commitments.body_leaves(type_))


@internal
@view
def _record(at: uint256, index: uint256) -> (bytes32, uint256):
    """
    @notice Leaf hash of the record of a value, which stands with its proof at this position; where they end.
    """
    leaf: bytes32 = calldata.record_hash(at)
    root: bytes32 = calldata.root(calldata.u64(32 + protocol.STATEMENT_VALUES), index, leaf, at + protocol.RECORD_BYTES)
    assert root == calldata.digest(32 + protocol.STATEMENT_NODE_ROOT), "referee: record"
    return leaf, calldata.after_proof(at + protocol.RECORD_BYTES)


@internal
@view
def _output(index: uint256) -> (uint256, uint256):
    """
    @notice Position four bytes before the type of an output, and where its proof ends.
    """
    at: uint256 = 32 + protocol.STATEMENT_BYTES
    assert calldata.u8(at) == protocol.INTERFACE_OUTPUT, "referee: output"
    kind: uint256 = calldata.u8(at + 1)
    which: uint256 = calldata.u32(at + 2)
    leaf: bytes32 = merkle.leaf_hash(slice(msg.data, calldata.MOVE + 32 + protocol.STATEMENT_BYTES, protocol.RETURNED_BYTES))
    # the interface's leaves: inputs, weights, states, constants, outputs
    inputs: uint256 = calldata.u32(32 + protocol.STATEMENT_INPUTS)
    weights: uint256 = inputs + calldata.u32(32 + protocol.STATEMENT_WEIGHTS)
    constants: uint256 = weights + calldata.u32(32 + protocol.STATEMENT_STATES)
    outputs: uint256 = constants + calldata.u32(32 + protocol.STATEMENT_CONSTANTS)
    total: uint256 = outputs + calldata.u32(32 + protocol.STATEMENT_OUTPUTS)
    interface_root: bytes32 = calldata.digest(32 + protocol.STATEMENT_INTERFACE_ROOT)
    assert calldata.root(total, outputs + index, leaf, at + protocol.RETURNED_BYTES) == interface_root, "referee: output"
    at = calldata.after_proof(at + protocol.RETURNED_BYTES)
    if kind == protocol.SOURCE_VALUE:
        return at, self._record(at, which)[1]
    if kind == protocol.SOURCE_CONST:  # a constant is known by its tensor hash, which binds type and body
        constant_: bytes32 = commitments.tensor_hash(slice(msg.data, calldata.MOVE + at, protocol.TYPE_BYTES), calldata.digest(at + protocol.TYPE_BYTES))
        leaf = merkle.leaf_hash(concat(0x02, constant_))
        assert calldata.root(total, constants + which, leaf, at + (protocol.TYPE_BYTES + 32)) == interface_root, "referee: output"
        return at - 4, calldata.after_proof(at + (protocol.TYPE_BYTES + 32))
    if kind == protocol.SOURCE_WEIGHT:
        which += inputs
    elif kind == protocol.SOURCE_STATE:
        which += weights
    leaf = merkle.leaf_hash(slice(msg.data, calldata.MOVE + at, protocol.GIVEN_BYTES))
    assert calldata.root(total, which, leaf, at + protocol.GIVEN_BYTES) == interface_root, "referee: output"
    return at - 3, calldata.after_proof(at + protocol.GIVEN_BYTES)


@internal
@view
def _leaf(before: states.State) -> states.State:
    """
    @notice The 512 bytes of a leaf, of a tensor or of a derivation.
    """
    s: states.State = before
    calldata.end(numbers.LEAF_BYTES)
    assert calldata.leaf_hash(0) == s.node, "referee: leaf"
    s.leaf = s.node
    s.leaf_index = s.index
    s.phase = protocol.PHASE_ELEMENT if s.phase == protocol.PHASE_BODY else protocol.PHASE_ENTRY
    return s


@internal
@view
def _element(before: states.State) -> states.State:
    """
    @notice Position u16 in the leaf, and the leaf, which the defender has shown.
    """
    s: states.State = before
    calldata.end(2 + numbers.LEAF_BYTES)
    assert calldata.leaf_hash(2) == s.leaf, "referee: leaf"
    i: uint256 = calldata.u16(0)
    bits: uint256 = commitments.element(calldata.leaf(2), s.dtype, i)
    element: uint256 = (s.leaf_index << unsafe_sub(9, commitments.log_size(s.dtype))) + i
    if element >= s.limit:
        if bits != 0:
            return states.won(s, protocol.CHALLENGER, protocol.REASON_FILL_FALSE)
        return states.won(s, protocol.DEFENDER, protocol.REASON_FILL)
    if s.dtype == numbers.DTYPE_BOOL and bits > 1:
        return states.won(s, protocol.CHALLENGER, protocol.REASON_BOOL_FALSE)
    s.element = element
    s.bits = bits
    s.leaf = empty(bytes32)
    s.phase = protocol.PHASE_ROWS if s.form == forms.COMPOSITE else protocol.PHASE_DERIVE
    return s


@internal
@view
def _entry(before: states.State) -> states.State:
    """
    @notice Position u8 in the leaf of a derivation.
    """
    s: states.State = before
    calldata.end(1)
    per: uint256 = unsafe_div(numbers.LEAF_BYTES, s.width)
    i: uint256 = calldata.u8(0)
    assert i < per, "referee: entry"
    s.entry = unsafe_add(unsafe_mul(s.leaf_index, per), i)
    assert s.entry < s.limit, "referee: entry"
    s.phase = protocol.PHASE_PROVE
    return s
