"""States and moves of a dispute as the contracts read them.

What the rules in verde take from the graph, a contract takes from openings against the instance: records
of values, index rules, attributes, microcode, leaves of row programs and of the interface. contracts/*.vy
say what each move holds.
"""

from __future__ import annotations

import struct
from functools import cached_property, lru_cache, partial

from ree.compiler.instance import (
    Instance,
    encode_attrs,
    interface_leaves,
    node_records,
    row_leaves,
    sha256,
)
from ree.compiler.ir import Kind, Ref
from ree.compiler.layout import INSTANCE
from ree.kernels import opdef
from ree.kernels.forms import Form
from ree.settlement.layout import MAX_MOVE, RUN, STATE, STATEMENT, STEP
from ree.settlement.openings import Shown, bundle, microcode, opening, proof, rule_bytes
from ree.settlement.ways import Ways, walk, ways
from ree.traces.encoding import ZERO
from ree.traces.merkle import MerkleTree, leaf_hash, node_hash
from ree.traces.tensor import LEAF_BYTES
from ree.verde.derivation import (
    EarlierEntry,
    ElementRead,
    Operand,
    Undecidable,
    Witness,
    place,
)
from ree.verde.game import Game
from ree.verde.moves import (
    FAN,
    VERSION,
    Derive,
    EntryOpening,
    Leaf,
    Move,
    Open,
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
)
from ree.verde.scope import OUTPUTS, VALUES, RowScope


class Evidence:
    """The encodings for one instance."""

    def __init__(self, game: Game, instance: Instance) -> None:
        self.game, self.instance, self.graph = game, instance, instance.graph
        self.row_program = lru_cache(maxsize=8)(self._row_program)
        self.ways = lru_cache(maxsize=8)(partial(ways, self))

    @cached_property
    def records(self) -> list[bytes]:
        """Records of all values."""
        typer = self.graph.typer()
        return [r for n in self.graph.nodes for r in node_records(n, typer)]

    @cached_property
    def record_tree(self) -> MerkleTree:
        return MerkleTree(self.records)

    @cached_property
    def interface(self) -> list[bytes]:
        """Leaves of the interface tree."""
        return interface_leaves(self.graph)

    @cached_property
    def interface_tree(self) -> MerkleTree:
        return MerkleTree(self.interface)

    def _row_program(self, tree: str, index: int) -> tuple[list[bytes], MerkleTree]:
        program = self.game.program.row_program(tree, index)
        assert program is not None  # a composite
        leaves = row_leaves(program)
        return leaves, MerkleTree(leaves)

    # statements and states

    def statement(self, s: Statement) -> bytes:
        """The bytes of a statement."""
        return STATEMENT.pack(
            **INSTANCE.unpack(self.instance.encoded),
            inputs_root=s.inputs, weights_root=s.weights, states_root=s.states, outputs_root=s.outputs,
            loss=s.loss or ZERO,
        )  # fmt: skip

    def run(self, r: RunStatement) -> bytes:
        """The bytes of a run."""
        return RUN.pack(initial=r.initial, steps=r.steps, batches=r.batches, history=r.history)

    def state(self, s: State) -> bytes:
        """The bytes of a state."""
        inner = self.game.scope(s)
        form, dtype, limit, width = 0, 0, 0, 0
        record = ZERO
        if s.tensor >= 0:
            t = inner.type(s.tree, s.tensor)
            form, dtype, limit = self._form(s).number, t.dtype.code, t.numel
            record = leaf_hash(self._record(s))
        if s.entries:
            d = self.game.derivation(s)
            limit, width = d.count, d.width
            record = sha256(record + sha256(self._ways(s).encode()))
        first, leaves, program = 0, 0, ZERO
        if s.owner:
            assert isinstance(inner, RowScope)
            first = inner.first
            known, tree = self.row_program(*s.owner[:2])
            leaves, program = len(known), tree.root()
        node = s.node
        return STATE.pack(
            version=VERSION, phase=s.phase.number, winner=s.winner.number, reason=s.cause.number,
            tree=s.tree.number, kind=node.kind.number if node else 0, level=node.level if node else 0,
            width=width, dtype=dtype, form=form, inside=int(bool(s.owner)), player=s.player.number,
            tensor=max(s.tensor, 0), owner=s.owner[1] if s.owner else 0, first=first, leaves=leaves,
            step=s.step, element=max(s.element, 0), bits=max(s.bits, 0),
            owner_element=s.owner[2] if s.owner else 0, limit=limit, count=node.count if node else 0,
            index=node.index if node else 0, leaf_index=max(s.leaf_index, 0), entry=max(s.entry, 0),
            context=sha256(self.statement(s.statement)), run=self._above(s), values=s.values or ZERO,
            rows=s.rows or ZERO, program=program, record=record, node=node.hash if node else ZERO,
            leaf=leaf_hash(s.leaf) if s.leaf else ZERO, entries=s.entries or ZERO,
        )  # fmt: skip

    def _above(self, s: State) -> bytes:
        """What lies above the program: inside a row program its owner's record, otherwise the run."""
        if s.owner:
            return leaf_hash(self.records[s.owner[1]])
        return sha256(self.run(s.run)) if s.run else ZERO

    def _form(self, s: State) -> Form:
        """The form of the operator under dispute."""
        if s.tree == OUTPUTS:
            return Form.OUTPUT
        return opdef.get(self.game.scope(s).node(s.tree, s.tensor)[0].op).form

    def _record(self, s: State, index: int | None = None) -> bytes:
        """The instance's leaf about a tensor of the tree under dispute."""
        i = s.tensor if index is None else index
        if s.owner:
            return self.row_program(*s.owner[:2])[0][self._first(s) + i]
        if s.tree == OUTPUTS:
            return self.interface[len(self.interface) - len(self.graph.outputs) + i]
        return self.records[i]

    def _first(self, s: State) -> int:
        inner = self.game.scope(s)
        assert isinstance(inner, RowScope)
        return inner.first

    # moves

    def move(self, s: State, m: Move) -> bytes:
        """A move in this state as calldata; ValueError if it is longer than a contract reads."""
        data = self._move(s, m)
        if len(data) > MAX_MOVE:
            raise ValueError(f"a move of {len(data)} bytes: expected at most {MAX_MOVE}")
        return data

    def _move(self, s: State, m: Move) -> bytes:
        match m:
            case Open(values):
                return values
            case Point(index):
                return self._point(s, index)
            case Reveal(nodes):
                assert s.node is not None
                down = min(FAN, s.node.level)
                known = [x for i, x in enumerate(nodes)
                         if ((s.node.index << down) + i) << (s.node.level - down) < s.node.count]  # fmt: skip
                return b"".join(known)
            case Tensor():
                return self._tensor(s, m)
            case Leaf(data):
                return data
            case Derive():
                return self._derive(s, m)
            case Rows():
                return self._rows(s, m)
            case Prove():
                return self._prove(s, m)
            case OpenStep():
                assert s.run is not None
                before = [m.before[0]]
                if m.before_proof or m.before[1]:
                    before += [m.before[1], proof(m.before_proof)]
                opened = STEP.pack(statement=self.statement(s.statement), run=self.run(s.run),
                                   state=m.after[0], loss=m.after[1], batch=m.batch)  # fmt: skip
                return b"".join([opened, proof(m.batch_proof), *before])

    def _point(self, s: State, index: int) -> bytes:
        if s.phase is Phase.CHOOSE:
            return bytes([index]) + self.statement(s.statement)
        if s.phase is Phase.ELEMENT:
            return struct.pack(">H", index) + s.leaf
        if s.phase is Phase.ENTRY:
            return bytes([index])
        siblings, row, i = [], list(s.revealed), index
        while len(row) > 1:
            siblings.append(row[i ^ 1])
            pairs = zip(row[::2], row[1::2], strict=True)
            row = [ZERO if a == b == ZERO else node_hash(a, b) for a, b in pairs]
            i >>= 1
        return b"".join([bytes([index]), s.revealed[index], *siblings])

    def _tensor(self, s: State, m: Tensor) -> bytes:
        assert s.node is not None
        i = s.node.index
        record = self._record(s, i)
        if s.owner:
            tree = self.row_program(*s.owner[:2])[1]
            return b"".join([m.body, record, proof(tree.prove(self._first(s) + i))])
        parts = [m.body, self.statement(s.statement), record]
        if s.tree == VALUES:
            return b"".join([*parts, proof(self.record_tree.prove(i))])
        at = len(self.interface) - len(self.graph.outputs)
        parts.append(proof(self.interface_tree.prove(at + i)))
        ref = self.graph.outputs[i]
        if ref.kind is Kind.VALUE:
            parts += [self.records[ref.index], proof(self.record_tree.prove(ref.index))]
        elif ref.kind is Kind.CONST:
            raise Undecidable("an output is a constant")
        else:
            at = self.given(ref)
            parts += [self.interface[at], proof(self.interface_tree.prove(at))]
        return b"".join(parts)

    def given(self, ref: Ref) -> int:
        """Position in the interface of something that is not a value."""
        g = self.graph
        starts = {Kind.INPUT: 0, Kind.WEIGHT: len(g.inputs), Kind.STATE: len(g.inputs) + len(g.weights),
                  Kind.CONST: len(g.inputs) + len(g.weights) + len(g.states)}  # fmt: skip
        return starts[ref.kind] + ref.index

    def _blobs(self, s: State, *, counted: bool) -> list[bytes]:
        """Index rule, attributes and microcode, as the phase needs them."""
        form = self._form(s)
        if form is Form.OUTPUT:
            return []
        node, needs = self.game.scope(s).node(s.tree, s.tensor)[0], form.needs
        code = needs.code and (counted or s.entry >= len(node.inputs))
        out = []
        if code:
            out.append(microcode(node))
        elif needs.counted if counted else needs.rule:
            out.append(rule_bytes(node))
        if needs.count_attributes if counted else needs.attributes:
            out.append(encode_attrs(node))
        return out

    def _ways(self, s: State) -> Ways:
        """Where the sources of the operator under dispute lead."""
        return self.ways(s.tree, s.tensor, s.owner[:2] if s.owner else None)

    def _derive(self, s: State, m: Derive) -> bytes:
        ways = self._ways(s)
        statement = [b"\1", self.statement(s.statement)] if ways.outer else [b"\0"]
        rest = [
            self._record(s),
            *statement,
            ways.shown,
            m.entries,
            m.last.leaf,
            proof(m.last.proof),
        ]
        if m.first is not None:
            rest += [m.first.leaf, proof(m.first.proof)]
        return bundle([ways.encode(), *self._blobs(s, counted=True)], rest)

    def _rows(self, s: State, m: Rows) -> bytes:
        owner = (s.tree, s.tensor, s.element)
        program = self.game.program.row_program(s.tree, s.tensor)
        assert program is not None  # a composite
        inner = RowScope(self.game.program, owner, program)
        leaves, tree = self.row_program(s.tree, s.tensor)
        last = len(leaves) - 1
        rest = [self._record(s), leaves[last], proof(tree.prove(last)), m.rows,
                opening(inner.nodes[-1].out, m.last)]  # fmt: skip
        return bundle([], rest)

    def _prove(self, s: State, m: Prove) -> bytes:
        d = self.game.derivation(s)
        per = LEAF_BYTES // d.width
        known, scope = self._ways(s), self.game.scope(s)
        inner = scope if isinstance(scope, RowScope) else None
        blobs = [known.encode(), *self._blobs(s, counted=False)]
        shown = Shown(list(m.openings), blobs)

        def entry(i: int) -> int:
            leaf = s.leaf
            if i // per != s.leaf_index:
                o = shown.left.pop(0)
                assert isinstance(o, EntryOpening)  # the order of the rules
                shown.parts.append(o.leaf + proof(o.proof))
                leaf = o.leaf
            at = i % per * d.width
            return int.from_bytes(leaf[at : at + d.width], "little")

        def visit(o: Operand) -> None:
            if isinstance(o, EarlierEntry):
                entry(o.index)
            elif isinstance(o, ElementRead):
                walk(self, known.ways[o.source], inner, place(o, entry), shown)

        op = d.operation(s.entry)
        operands: tuple[Operand, ...] = ()
        if not isinstance(op, Witness):
            single = [getattr(op, n) for n in ("operand", "other") if hasattr(op, n)]
            operands = (*single, *getattr(op, "operands", ()))
        try:
            for o in operands:
                visit(o)
        except Undecidable:  # an index out of range, which decides
            pass
        statement = [b"\1", self.statement(s.statement)] if shown.outer else [b"\0"]
        return bundle(shown.blobs, [self._record(s), s.leaf, *statement, *shown.parts])
