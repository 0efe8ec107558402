# pragma version 0.4.3
"""
@title States
@notice The state of a dispute and its 384 bytes.
@dev Three words of numbers, then nine digests. settlement/evidence.py writes the same bytes.
"""

from . import merkle
from . import shown

MASK8: constant(uint256) = 255
MASK32: constant(uint256) = 2**32 - 1
MASK64: constant(uint256) = 2**64 - 1
VERSION: constant(uint256) = 1
STATE_BYTES: constant(uint256) = 384

DEFENDER: constant(uint256) = 1
CHALLENGER: constant(uint256) = 2
# phases of the challenger: CHOOSE, PICK, ELEMENT, ENTRY
POINTS: constant(uint256) = 2**2 + 2**4 + 2**7 + 2**11
# by kind of tree, the phase at a leaf: history STEP, tensors TENSOR, body BODY, entries ENTRIES
AT_LEAF: constant(uint256) = 0 * 16 + 5 * 16**2 + 6 * 16**3 + 10 * 16**4
REVEAL: constant(uint256) = 3
OVER: constant(uint256) = 13


struct State:
    phase: uint256
    winner: uint256
    reason: uint256
    tree: uint256  # 0 values, 1 outputs, 2 row
    kind: uint256  # of node: 1 history, 2 tensors, 3 body, 4 entries
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
    a: uint256 = shown.state_word(0)
    b: uint256 = shown.state_word(1)
    c: uint256 = shown.state_word(2)
    assert a >> 248 == VERSION, "state: version"
    return State(
        phase=(a >> 240) & MASK8,
        winner=(a >> 232) & MASK8,
        reason=(a >> 224) & MASK8,
        tree=(a >> 216) & MASK8,
        kind=(a >> 208) & MASK8,
        level=(a >> 200) & MASK8,
        width=(a >> 192) & MASK8,
        dtype=(a >> 184) & MASK8,
        form=(a >> 176) & MASK8,
        inside=(a >> 168) & MASK8,
        tensor=(a >> 128) & MASK32,
        owner=(a >> 96) & MASK32,
        first=(a >> 64) & MASK32,
        leaves=(a >> 32) & MASK32,
        step=a & MASK32,
        element=b >> 192,
        bits=(b >> 128) & MASK64,
        owner_element=(b >> 64) & MASK64,
        limit=b & MASK64,
        count=c >> 192,
        index=(c >> 128) & MASK64,
        leaf_index=(c >> 64) & MASK64,
        entry=c & MASK64,
        context=convert(shown.state_word(3), bytes32),
        run=convert(shown.state_word(4), bytes32),
        values=convert(shown.state_word(5), bytes32),
        rows=convert(shown.state_word(6), bytes32),
        program=convert(shown.state_word(7), bytes32),
        record=convert(shown.state_word(8), bytes32),
        node=convert(shown.state_word(9), bytes32),
        leaf=convert(shown.state_word(10), bytes32),
        entries=convert(shown.state_word(11), bytes32),
    )


@internal
@pure
def write(s: State) -> Bytes[STATE_BYTES]:
    """
    @notice The bytes of a state.
    """
    player: uint256 = 0
    if s.phase != OVER:
        player = DEFENDER + ((POINTS >> s.phase) & 1)
    a: uint256 = (VERSION << 248) | (s.phase << 240) | (s.winner << 232) | (s.reason << 224)
    a |= (s.tree << 216) | (s.kind << 208) | (s.level << 200) | (s.width << 192) | (s.dtype << 184)
    a |= (s.form << 176) | (s.inside << 168) | (player << 160) | (s.tensor << 128)
    a |= (s.owner << 96) | (s.first << 64) | (s.leaves << 32) | s.step
    b: uint256 = (s.element << 192) | (s.bits << 128) | (s.owner_element << 64) | s.limit
    c: uint256 = (s.count << 192) | (s.index << 128) | (s.leaf_index << 64) | s.entry
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
        out.phase = REVEAL
    else:
        out.phase = self.at_leaf(kind)
    return out


@internal
@pure
def at_leaf(kind: uint256) -> uint256:
    """
    @notice The phase at a leaf of this kind of tree.
    """
    return (AT_LEAF >> unsafe_mul(4, kind)) & 15


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
    out.phase = OVER
    out.winner = winner
    out.reason = reason
    return out
