"""The dispute game: one-sided descent from a run to one operation, as a pure state machine.

The defender has committed to a run. The challenger only points; the defender reveals 16 descendants of
the node pointed at. At the bottom the defender opens the operands of one operation against what it has
committed, and the operation is executed. A reveal that does not hash to its node, a false operation or a
missing answer loses. Nothing the challenger sends is data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from ree.kernels.types import DType, TensorType
from ree.traces.encoding import ZERO, u64
from ree.traces.merkle import ProofError, depth, leaf_hash, node_hash, verify
from ree.traces.tensor import LEAF_BYTES, body_leaves, hash_from_root
from ree.traces.trace import tensor_leaf
from ree.verde.derivation import (
    Bits,
    Derivation,
    EarlierEntry,
    ElementRead,
    Operand,
    Undecidable,
    Witness,
    execute,
    load_bits,
    place,
)
from ree.verde.moves import (
    AT_LEAF,
    FAN,
    MOVE_OF,
    Derive,
    EntryOpening,
    IllegalMove,
    Leaf,
    Move,
    Open,
    Opening,
    OpenStep,
    Phase,
    Point,
    Prove,
    Reveal,
    Rows,
    RunStatement,
    State,
    Statement,
    Tensor,
    TreeNode,
)
from ree.verde.protocol import Reason, Side, TreeKind
from ree.verde.scope import OUTPUTS, ROW, VALUES, ElementPlace, ProgramScope, Scope


class Game:
    """The rules for one instance."""

    def __init__(self, scope: ProgramScope) -> None:
        self.program = scope

    def scope(self, s: State) -> Scope:
        """Where the tensor under dispute lives."""
        return self.program.inside(s.owner) if s.owner else self.program

    def derivation(self, s: State) -> Derivation:
        return self.scope(s).derivation(s.tree, s.tensor, s.element)

    def timeout(self, s: State) -> State:
        """The player whose move it is has let its time pass."""
        return self._won(s, s.player.other, Reason.TIMEOUT)

    def apply(self, s: State, move: Move) -> State:
        """The state after a move. IllegalMove if it is not of the kind that is due or points nowhere;
        a defender's move that proves nothing loses instead."""
        want = MOVE_OF.get(s.phase)
        if want is None:
            raise IllegalMove("the dispute is decided")
        if type(move) is not want:
            raise IllegalMove(f"expected {want.__name__}, got {type(move).__name__}")
        handler = getattr(self, f"_on_{s.phase.name.lower()}")
        s = replace(s, moves=s.moves + 1)
        try:
            after: State = handler(s, move)
        except (ProofError, Undecidable) as e:
            after = self._won(s, Side.CHALLENGER, Reason.NO_PROOF, str(e))
        return after

    def _won(self, s: State, winner: Side, cause: Reason, detail: str = "") -> State:
        return replace(s, phase=Phase.OVER, winner=winner, cause=cause, reason=cause.says(detail))

    # from a history to a step, and to a leaf of it

    def begin(self, statement: Statement | RunStatement) -> State:
        """The first state of a dispute."""
        if isinstance(statement, Statement):
            return State(statement)
        nothing = Statement(statement.instance, ZERO, statement.weights, ZERO, ZERO)
        root = TreeNode(
            TreeKind.HISTORY, statement.history, statement.steps, depth(statement.steps), 0
        )
        return self._at(State(nothing, run=statement), root)

    def _on_step(self, s: State, m: OpenStep) -> State:
        assert s.node is not None
        assert s.run is not None
        i, run = s.node.index, s.run
        if leaf_hash(u64(i + 1) + m.after[0] + m.after[1]) != s.node.hash:
            raise ProofError("the step is not the leaf")
        verify(run.batches, run.steps, i, u64(i + 1) + m.batch, m.batch_proof)
        if i:
            leaf = u64(i) + m.before[0] + m.before[1]
            verify(run.history, run.steps, i - 1, leaf, m.before_proof)
        elif m.before[0] != run.initial:
            raise ProofError("the first step does not start from the initial state")
        statement = replace(s.statement, inputs=m.batch, states=m.before[0], outputs=m.after[0],
                            loss=m.after[1])  # fmt: skip
        return replace(s, phase=Phase.OPEN, statement=statement, node=None, step=i + 1,
                       trail=(*s.trail, f"step {i + 1}"))  # fmt: skip

    def _on_open(self, s: State, m: Open) -> State:
        if len(m.values) != 32:
            raise ProofError("values: expected 32 bytes")
        return replace(s, phase=Phase.CHOOSE, values=m.values)

    def _on_choose(self, s: State, m: Point) -> State:
        last = 2 if s.statement.loss else 1
        if not 0 <= m.index <= last:
            raise IllegalMove(f"expected 0 to {last}, got {m.index}")
        if m.index == 0:
            return self._tensors(replace(s, tree=VALUES), s.values, self.program.count(VALUES))
        s, count = replace(s, tree=OUTPUTS), self.program.count(OUTPUTS)
        if m.index == 2:
            leaf = leaf_hash(tensor_leaf(count - 1, s.statement.loss))
            return self._at(s, TreeNode(TreeKind.TENSORS, leaf, count, 0, count - 1))
        return self._tensors(s, s.statement.outputs, count - 1 if s.statement.loss else count)

    def _tensors(self, s: State, root: bytes, count: int) -> State:
        return self._at(s, TreeNode(TreeKind.TENSORS, root, count, depth(count), 0))

    def _at(self, s: State, node: TreeNode) -> State:
        if node.count == 0:
            raise IllegalMove("the tree is empty")
        if node.level:
            return replace(s, phase=Phase.REVEAL, node=node)
        return replace(s, phase=AT_LEAF[node.kind], node=node)

    def _on_reveal(self, s: State, m: Reveal) -> State:
        node = s.node
        assert node is not None
        down = min(FAN, node.level)
        if len(m.nodes) != 1 << down or any(len(x) != 32 for x in m.nodes):
            raise ProofError(f"expected {1 << down} digests")
        low = node.level - down
        for i, x in enumerate(m.nodes):
            if ((node.index << down) + i) << low >= node.count and x != ZERO:
                raise ProofError("a node without leaves is not zero")
        row = list(m.nodes)
        for level in range(low + 1, node.level + 1):
            first = node.index << (node.level - level)
            row = [
                node_hash(row[2 * i], row[2 * i + 1]) if (first + i) << level < node.count else ZERO
                for i in range(len(row) // 2)
            ]
        if row[0] != node.hash:
            raise ProofError("the descendants do not hash to their node")
        return replace(s, phase=Phase.PICK, revealed=m.nodes)

    def _on_pick(self, s: State, m: Point) -> State:
        node = s.node
        assert node is not None
        down = min(FAN, node.level)
        low = node.level - down
        index = (node.index << down) + m.index
        if not 0 <= m.index < len(s.revealed) or index << low >= node.count:
            raise IllegalMove(f"no descendant {m.index}")
        return self._at(replace(s, revealed=()),
                        replace(node, hash=s.revealed[m.index], level=low, index=index))  # fmt: skip

    def _on_tensor(self, s: State, m: Tensor) -> State:
        assert s.node is not None
        scope, index = self.scope(s), s.node.index
        if leaf_hash(tensor_leaf(index, m.hash)) != s.node.hash:
            raise ProofError("the tensor is not the leaf")
        s = replace(s, tensor=index, trail=(*s.trail, self.name(s, index)))
        if scope.is_move(s.tree, index):
            if m.hash != ZERO:
                raise ProofError("a tensor of pure movement has a hash")
            return self._won(s, Side.DEFENDER, Reason.MOVED)
        t = scope.type(s.tree, index)
        if len(m.body) != len(ZERO):
            raise ProofError("body: expected 32 bytes")
        if hash_from_root(t.dtype.code, t.dims, m.body) != m.hash:
            raise ProofError("the body is not the tensor's")
        count = body_leaves(t.nbytes)
        if count == 0:
            return self._won(s, Side.DEFENDER, Reason.EMPTY)
        return self._at(s, TreeNode(TreeKind.BODY, m.body, count, depth(count), 0))

    def name(self, s: State, index: int) -> str:
        """What a tensor is, for people."""
        scope = self.scope(s)
        node, _ = scope.node(s.tree, index)
        where = ""
        if s.tree == VALUES and not s.owner:
            origin = self.program.producers[index].origin
            where = f" ({origin.location or origin.name})" if origin.location or origin.name else ""
        what = "output" if s.tree == OUTPUTS else f"{'row ' if s.owner else ''}{node.op}"
        return f"{what} %{index}{where} : {node.outputs[0]}"

    def _on_body(self, s: State, m: Leaf) -> State:
        assert s.node is not None
        if len(m.data) != LEAF_BYTES or leaf_hash(m.data) != s.node.hash:
            raise ProofError("the bytes are not the leaf")
        return replace(s, phase=Phase.ELEMENT, leaf=m.data, leaf_index=s.node.index)

    def _on_element(self, s: State, m: Point) -> State:
        t = self.scope(s).type(s.tree, s.tensor)
        size = t.dtype.size
        if not 0 <= m.index < LEAF_BYTES // size:
            raise IllegalMove(f"no element {m.index} in a leaf")
        raw = s.leaf[m.index * size : (m.index + 1) * size]
        element = s.leaf_index * (LEAF_BYTES // size) + m.index
        if element >= t.numel:
            if any(raw):
                return self._won(s, Side.CHALLENGER, Reason.FILL_FALSE)
            return self._won(s, Side.DEFENDER, Reason.FILL)
        if t.dtype is DType.BOOL and raw[0] > 1:
            return self._won(s, Side.CHALLENGER, Reason.BOOL_FALSE, str(raw[0]))
        s = replace(s, element=element, bits=load_bits(raw, t.dtype), leaf=b"",
                    trail=(*s.trail, f"element {element} = {raw[::-1].hex()}"))  # fmt: skip
        composite = self.scope(s).row_program(s.tree, s.tensor) is not None
        return replace(s, phase=Phase.ROWS if composite else Phase.DERIVE)

    # inside an element

    def _on_derive(self, s: State, m: Derive) -> State:
        d = self.derivation(s)
        s, count = replace(s, entries=m.entries), _leaves(d)
        if self._entry(s, d, d.count - 1, m.last) != s.bits:
            raise ProofError("the last entry is not the element")
        if (m.first is not None) != (d.chosen and count > 1):
            raise ProofError("expected the first leaf where its entry is chosen")
        if d.chosen:
            s = replace(s, chosen=self._entry(s, d, 0, m.first or m.last))
        if count == 1:  # the leaf is open already
            return replace(s, phase=Phase.ENTRY, leaf=m.last.leaf, leaf_index=0)
        return self._at(s, TreeNode(TreeKind.ENTRIES, m.entries, count, depth(count), 0))

    def _entry(self, s: State, d: Derivation, i: int, o: EntryOpening) -> int:
        """Entry i, opened."""
        per = LEAF_BYTES // d.width
        if len(o.leaf) != LEAF_BYTES:
            raise ProofError("entries: expected a leaf of 512 bytes")
        verify(s.entries, _leaves(d), i // per, o.leaf, o.proof)
        return _entry_at(o.leaf, i % per, d.width)

    def _on_entries(self, s: State, m: Leaf) -> State:
        assert s.node is not None
        if len(m.data) != LEAF_BYTES or leaf_hash(m.data) != s.node.hash:
            raise ProofError("the bytes are not the leaf")
        return replace(s, phase=Phase.ENTRY, leaf=m.data, leaf_index=s.node.index)

    def _on_entry(self, s: State, m: Point) -> State:
        d = self.derivation(s)
        i = s.leaf_index * (LEAF_BYTES // d.width) + m.index
        if not 0 <= m.index < LEAF_BYTES // d.width or i >= d.count:
            raise IllegalMove(f"no operation {m.index} in the leaf")
        return replace(s, phase=Phase.PROVE, entry=i, trail=(*s.trail, d.where(i)))

    def _on_prove(self, s: State, m: Prove) -> State:
        d = self.derivation(s)
        op = d.operation(s.entry)
        claimed = _entry_at(s.leaf, s.entry % (LEAF_BYTES // d.width), d.width)
        if isinstance(op, Witness):
            winner = Side.DEFENDER if claimed < op.bound else Side.CHALLENGER
            return self._won(s, winner, Reason.EXECUTED, "a witness in its range")
        left = list(m.openings)

        def entry(i: int) -> int:
            per = LEAF_BYTES // d.width
            if i // per == s.leaf_index:
                return _entry_at(s.leaf, i % per, d.width)
            return self._entry(s, d, i, _next(left, EntryOpening))

        def value(o: Operand) -> int:
            match o:
                case Bits(b):
                    return b
                case EarlierEntry(i):
                    return entry(i)
                case ElementRead():
                    flat = place(o, entry)
                    at = self.scope(s).resolve(s.tree, s.tensor, o.source, flat)
                    return (
                        at.bits
                        if isinstance(at, Bits)
                        else self._element_at(s, at, _next(left, Opening))
                    )

        try:
            result = execute(op, value)
        except ProofError:
            raise
        except ValueError as e:
            return self._won(s, Side.CHALLENGER, Reason.EXECUTED, str(e))
        if left:
            raise ProofError("more openings than the operation reads")
        text = f"{claimed:0{2 * d.width}x}"
        if result == claimed:
            detail = f"the operation gives {text}, as claimed"
            return self._won(s, Side.DEFENDER, Reason.EXECUTED, detail)
        detail = f"the operation gives {result:0{2 * d.width}x}, not {text}"
        return self._won(s, Side.CHALLENGER, Reason.EXECUTED, detail)

    def _element_at(self, s: State, at: ElementPlace, o: Opening) -> int:
        """An element of a committed tensor, opened."""
        roots: dict[str, bytes] = {ROW: s.rows, VALUES: s.values}
        root = roots.get(at.tree) or s.statement.root(at.tree)
        scope = self.scope(s) if at.tree == ROW else self.program
        return _opened(root, scope.count(at.tree), at, o)

    def _on_rows(self, s: State, m: Rows) -> State:
        owner = (s.tree, s.tensor, s.element)
        inner = self.program.inside(owner)
        last = len(inner.nodes) - 1
        at = ElementPlace(ROW, last, inner.type(ROW, last), inner.element)
        if _opened(m.rows, len(inner.nodes), at, m.last) != s.bits:
            raise ProofError("the row program does not end in the element")
        s = replace(s, owner=owner, rows=m.rows, tree=ROW, tensor=-1, element=-1)
        return self._tensors(s, m.rows, len(inner.nodes))


def _leaves(d: Derivation) -> int:
    return body_leaves(d.count * d.width)


def _entry_at(leaf: bytes, i: int, width: int) -> int:
    return int.from_bytes(leaf[i * width : (i + 1) * width], "little")


AnOpening = TypeVar("AnOpening", Opening, EntryOpening)


def _next(left: list[Opening | EntryOpening], kind: type[AnOpening]) -> AnOpening:
    first = left.pop(0) if left else None
    if not isinstance(first, kind):
        raise ProofError(f"expected {kind.__name__}")
    return first


def _opened(root: bytes, count: int, at: ElementPlace, o: Opening) -> int:
    """The element of a place, by an opening against the root of its tree."""
    t: TensorType = at.type
    size = t.dtype.size
    per = LEAF_BYTES // size
    if len(o.leaf) != LEAF_BYTES or len(o.body) != len(ZERO):
        raise ProofError("expected a leaf of 512 bytes and a root of 32")
    hash_ = hash_from_root(t.dtype.code, t.dims, o.body)
    verify(root, count, at.index, tensor_leaf(at.index, hash_), o.tensor_proof)
    verify(o.body, body_leaves(t.nbytes), at.flat // per, o.leaf, o.leaf_proof)
    start = at.flat % per * size
    return load_bits(o.leaf[start : start + size], t.dtype)
