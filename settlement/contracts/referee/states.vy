# pragma version 0.4.3
"""
@title States
@notice The state of a dispute and its 384 bytes.
@dev Three words of numbers, then nine digests. settlement/evidence.py writes the same bytes.
"""

from ..lib import merkle
from ..generated import protocol
from . import calldata


struct State:
    phase: uint256
    winner: uint256
    reason: uint256
    tree: uint256  # protocol.TREE_*
    kind: uint256  # of node, protocol.KIND_*
    level: uint256
    width: uint256  # bytes of an entry
    dtype: uint256
    form: uint256  # of the operator
    inside: uint256  # 1 in a row program
    tensor: uint256
    owner: uint256  # the value whose row program it is
    first: uint256  # locals ahead of its nodes
    leaves: uint256  # of the row program
    step: uint256
    element: uint256
    bits: uint256
    owner_element: uint256
    limit: uint256  # elements of the tensor, then operations of the derivation
    count: uint256
    index: uint256
    leaf_index: uint256
    entry: uint256
    context: bytes32  # hash of the statement
    run: bytes32  # hash of the run; inside a row program leaf hash of the owner's record
    values: bytes32
    rows: bytes32
    program: bytes32
    record: bytes32  # its hash; after DERIVE joined with that of its ways
    node: bytes32
    leaf: bytes32
    entries: bytes32


@internal
@view
def read() -> State:
    """
    @notice The state in calldata.
    """
    a: uint256 = calldata.state_word(protocol.WORD_HEAD)
    b: uint256 = calldata.state_word(protocol.WORD_NUMBERS)
    c: uint256 = calldata.state_word(protocol.WORD_PLACE)
    assert a >> protocol.STATE_VERSION_AT == protocol.STATE_VERSION, "state: version"
    return State(
        phase=(a >> protocol.STATE_PHASE) & protocol.MASK8,
        winner=(a >> protocol.STATE_WINNER) & protocol.MASK8,
        reason=(a >> protocol.STATE_REASON) & protocol.MASK8,
        tree=(a >> protocol.STATE_TREE) & protocol.MASK8,
        kind=(a >> protocol.STATE_KIND) & protocol.MASK8,
        level=(a >> protocol.STATE_LEVEL) & protocol.MASK8,
        width=(a >> protocol.STATE_WIDTH) & protocol.MASK8,
        dtype=(a >> protocol.STATE_DTYPE) & protocol.MASK8,
        form=(a >> protocol.STATE_FORM) & protocol.MASK8,
        inside=(a >> protocol.STATE_INSIDE) & protocol.MASK8,
        tensor=(a >> protocol.STATE_TENSOR) & protocol.MASK32,
        owner=(a >> protocol.STATE_OWNER) & protocol.MASK32,
        first=(a >> protocol.STATE_FIRST) & protocol.MASK32,
        leaves=(a >> protocol.STATE_LEAVES) & protocol.MASK32,
        step=(a >> protocol.STATE_STEP) & protocol.MASK32,
        element=b >> protocol.STATE_ELEMENT,
        bits=(b >> protocol.STATE_BITS) & protocol.MASK64,
        owner_element=(b >> protocol.STATE_OWNER_ELEMENT) & protocol.MASK64,
        limit=(b >> protocol.STATE_LIMIT) & protocol.MASK64,
        count=c >> protocol.STATE_COUNT,
        index=(c >> protocol.STATE_INDEX) & protocol.MASK64,
        leaf_index=(c >> protocol.STATE_LEAF_INDEX) & protocol.MASK64,
        entry=(c >> protocol.STATE_ENTRY) & protocol.MASK64,
        context=convert(calldata.state_word(protocol.WORD_CONTEXT), bytes32),
        run=convert(calldata.state_word(protocol.WORD_RUN), bytes32),
        values=convert(calldata.state_word(protocol.WORD_VALUES), bytes32),
        rows=convert(calldata.state_word(protocol.WORD_ROWS), bytes32),
        program=convert(calldata.state_word(protocol.WORD_PROGRAM), bytes32),
        record=convert(calldata.state_word(protocol.WORD_RECORD), bytes32),
        node=convert(calldata.state_word(protocol.WORD_NODE), bytes32),
        leaf=convert(calldata.state_word(protocol.WORD_LEAF), bytes32),
        entries=convert(calldata.state_word(protocol.WORD_ENTRIES), bytes32),
    )


@internal
@pure
def write(s: State) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice The bytes of a state.
    """
    player: uint256 = 0
    if s.phase != protocol.PHASE_OVER:
        player = protocol.DEFENDER + ((protocol.PHASES_OF_CHALLENGER >> s.phase) & 1)
    a: uint256 = (
        (protocol.STATE_VERSION << protocol.STATE_VERSION_AT)
        | (s.phase << protocol.STATE_PHASE)
        | (s.winner << protocol.STATE_WINNER)
        | (s.reason << protocol.STATE_REASON)
    )
    a |= (
        (s.tree << protocol.STATE_TREE)
        | (s.kind << protocol.STATE_KIND)
        | (s.level << protocol.STATE_LEVEL)
        | (s.width << protocol.STATE_WIDTH)
        | (s.dtype << protocol.STATE_DTYPE)
    )
    a |= (
        (s.form << protocol.STATE_FORM)
        | (s.inside << protocol.STATE_INSIDE)
        | (player << protocol.STATE_PLAYER)
        | (s.tensor << protocol.STATE_TENSOR)
    )
    a |= (
        (s.owner << protocol.STATE_OWNER)
        | (s.first << protocol.STATE_FIRST)
        | (s.leaves << protocol.STATE_LEAVES)
        | (s.step << protocol.STATE_STEP)
    )
    b: uint256 = (
        (s.element << protocol.STATE_ELEMENT)
        | (s.bits << protocol.STATE_BITS)
        | (s.owner_element << protocol.STATE_OWNER_ELEMENT)
        | (s.limit << protocol.STATE_LIMIT)
    )
    c: uint256 = (
        (s.count << protocol.STATE_COUNT)
        | (s.index << protocol.STATE_INDEX)
        | (s.leaf_index << protocol.STATE_LEAF_INDEX)
        | (s.entry << protocol.STATE_ENTRY)
    )
    return concat(
        convert(a, bytes32),
        convert(b, bytes32),
        convert(c, bytes32),
        s.context,
        s.run,
        s.values,
        s.rows,
        s.program,
        s.record,
        s.node,
        s.leaf,
        s.entries,
    )


@internal
@pure
def at(s: State, kind: uint256, node: bytes32, count: uint256, level: uint256, index: uint256) -> State:
    """
    @notice The state that points at a node of a tree.
    """
    assert count > 0, "state: empty tree"
    out: State = s
    out.kind = kind
    out.node = node
    out.count = count
    out.level = level
    out.index = index
    if level > 0:
        out.phase = protocol.PHASE_REVEAL
    else:
        out.phase = self.at_leaf(kind)
    return out


@internal
@pure
def at_leaf(kind: uint256) -> uint256:
    """
    @notice The phase at a leaf of this kind of tree.
    """
    return (protocol.PHASES_AT_LEAF >> unsafe_mul(4, kind)) & 15


@internal
@pure
def top(s: State, kind: uint256, root: bytes32, count: uint256) -> State:
    """
    @notice The state that points at the root of a tree.
    """
    return self.at(s, kind, root, count, merkle.depth(count), 0)


@internal
@pure
def nowhere(s: State, phase: uint256) -> State:
    """
    @notice The state in a phase that points at no node.
    """
    out: State = s
    out.phase = phase
    out.kind = 0
    out.node = empty(bytes32)
    out.count = 0
    out.level = 0
    out.index = 0
    return out


@internal
@pure
def won(s: State, winner: uint256, reason: uint256) -> State:
    out: State = s
    out.phase = protocol.PHASE_OVER
    out.winner = winner
    out.reason = reason
    return out
