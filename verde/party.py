"""Parties: what a defender and a challenger do, from nothing but a run that they can make again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from ree.compiler.instance import Instance
from ree.compiler.ir import Graph, Kind, Ref
from ree.kernels import opdef, rowprogram
from ree.kernels.opdef import Array
from ree.kernels.rowprogram import RowProgram
from ree.program import Program, Result
from ree.runtime.body_tree import BodyTree
from ree.traces.encoding import ZERO
from ree.traces.merkle import MerkleTree
from ree.traces.tensor import LEAF_BYTES
from ree.verde.commitments import Entries, Kept, Tensors, descendants, first_difference
from ree.verde.derivation import (
    Bits,
    Derivation,
    EarlierEntry,
    ElementRead,
    Operand,
    Witness,
    execute,
    place,
    resolve,
)
from ree.verde.game import Game
from ree.verde.moves import (
    FAN,
    Derive,
    EntryOpening,
    Leaf,
    Move,
    Open,
    Opening,
    Phase,
    Point,
    Prove,
    Reveal,
    Rows,
    State,
    Statement,
    Tensor,
    TreeNode,
)
from ree.verde.protocol import TreeKind
from ree.verde.scope import (
    INPUTS,
    OUTPUTS,
    ROW,
    STATES,
    VALUES,
    WEIGHTS,
    ElementPlace,
    ProgramScope,
)
from ree.verde.selections import Sort
from ree.verde.sources import moved, result


class Run:
    """A run in memory: the arrays of every committed tensor, by tree. Moves have no array of their own."""

    def __init__(
        self,
        graph: Graph,
        inputs: Sequence[Array],
        weights: Sequence[Array],
        values: Mapping[int, Array],
        states: Sequence[Array] = (),
        outputs: Sequence[Array] | None = None,
        hashes: Mapping[str, Sequence[bytes]] | None = None,
        weight_bodies: Sequence[BodyTree] | None = None,
    ) -> None:
        """hashes: tensor hashes that are known, by tree."""
        self.scope = ProgramScope(graph)
        self.hashes, self.weight_bodies = dict(hashes or {}), weight_bodies
        self.graph, self.values = graph, dict(values)
        self._given = {Kind.INPUT: list(inputs), Kind.WEIGHT: list(weights), Kind.STATE: list(states),
                       Kind.CONST: [c.array() for c in graph.consts]}  # fmt: skip
        self._moved: dict[int, Array] = {}
        outs = [self.of(r) for r in graph.outputs] if outputs is None else list(outputs)
        self.arrays: dict[str, list[Array | None]] = {
            INPUTS: list(inputs), WEIGHTS: list(weights), STATES: list(states), OUTPUTS: list(outs),
            VALUES: [self.values.get(v) for v in range(graph.n_values)],
        }  # fmt: skip

    def with_values(self, values: Mapping[int, Array]) -> Run:
        """The same call with other values, and the outputs that they make."""
        same = {t: h for t, h in self.hashes.items() if t not in (VALUES, OUTPUTS)}
        return Run(self.graph, self._given[Kind.INPUT], self._given[Kind.WEIGHT], values,
                   self._given[Kind.STATE], None, same, self.weight_bodies)  # fmt: skip

    def of(self, ref: Ref) -> Array:
        """The array of a source."""
        if ref.kind is not Kind.VALUE:
            return self._given[ref.kind][ref.index]
        if ref.index in self.values:
            return self.values[ref.index]
        chain = []  # of moves, the last one first; a long one must not recurse
        at = ref
        while at.kind is Kind.VALUE and at.index not in self.values and at.index not in self._moved:
            chain.append(at.index)
            at = self.scope.producers[at.index].sources[0]
        for v in reversed(chain):
            sources = [self.of(s) for s in self.scope.producers[v].sources]
            self._moved[v] = moved(self.scope.node(VALUES, v)[0], sources)
        return self._moved[ref.index]

    def sources(self, value: int) -> list[Array]:
        """The arrays that the operator of a value reads."""
        return [self.of(s) for s in self.scope.producers[value].sources]


def run_of(
    program: Program, arrays: Sequence[Array], threads: int | None = None
) -> tuple[Run, Instance]:
    """One execution of a program on inputs, every value hashed and kept, and its instance."""
    arrays = program.arrays(arrays)
    instance = program.instance(program.bind_symbols(arrays))
    result = program.run(*arrays, trace="ops", keep_values=True, threads=threads)
    return Run(instance.graph, arrays, program.weights, result.values, hashes=hashes_of(program, result),
               weight_bodies=program.weight_bodies), instance  # fmt: skip


def hashes_of(program: Program, result: Result) -> dict[str, Sequence[bytes]]:
    """The tensor hashes that a traced execution has made."""
    trace = result.trace
    assert trace is not None  # of operators
    return {VALUES: trace.values, INPUTS: trace.inputs, OUTPUTS: trace.outputs,
            WEIGHTS: program.weight_hashes}  # fmt: skip


class Party:
    """Plays both roles for one run. It keeps no state of its own: a move follows from the state of the
    dispute, so a party may be restarted at any point."""

    def __init__(self, run: Run, instance: bytes) -> None:
        self.run = run
        self.game = Game(run.scope)
        self.committed = {
            tree: Tensors(
                arrays, run.hashes.get(tree), run.weight_bodies if tree == WEIGHTS else None
            )
            for tree, arrays in run.arrays.items()
        }
        self.loss = b""
        if run.arrays[
            STATES
        ]:  # a training step: the last output is the loss, beside the new states
            self.loss = self.committed[OUTPUTS].hashes[-1]
            outputs = self.committed[OUTPUTS]
            self._outputs = Tensors(outputs.arrays[:-1], outputs.hashes[:-1])
        else:
            self._outputs = self.committed[OUTPUTS]
        given, weights, states = (self.committed[t].root for t in (INPUTS, WEIGHTS, STATES))
        self.statement = Statement(instance, given, weights, states, self._outputs.root, self.loss)
        self._rows = lru_cache(maxsize=4)(self._make_rows)
        self._locals = lru_cache(maxsize=4)(self.row_values)
        self._kept = Kept()

    def move(self, s: State) -> Move:
        """The move that is due, whoever's it is; ValueError when the dispute is over."""
        match s.phase:
            case Phase.OPEN:
                return Open(self.committed[VALUES].root)
            case Phase.CHOOSE:
                if self.committed[VALUES].root != s.values:
                    return Point(0)
                return Point(1 if self._outputs.root != s.statement.outputs or not self.loss else 2)
            case Phase.REVEAL:
                assert s.node is not None
                return Reveal(descendants(self._tree(s), s.node))
            case Phase.PICK:
                return self._pick(s)
            case Phase.TENSOR:
                assert s.node is not None
                tensors, i = self.tensors(s), s.node.index
                is_move = self.game.scope(s).is_move(s.tree, i)
                return Tensor(tensors.hashes[i], ZERO if is_move else tensors.body(i).root())
            case Phase.BODY:
                assert s.node is not None
                return Leaf(self.tensors(s).leaf(s.tensor, s.node.index))
            case Phase.ELEMENT:
                mine = self.tensors(s).leaf(s.tensor, s.leaf_index)
                size = self.game.scope(s).type(s.tree, s.tensor).dtype.size
                return Point(first_difference(s.leaf, mine, size))
            case Phase.DERIVE:
                return self._derive(s)
            case Phase.ROWS:
                return self._commit_rows(s)
            case Phase.ENTRIES:
                assert s.node is not None
                return Leaf(self.entries(s).leaf(s.node.index))
            case Phase.ENTRY:
                return self._entry_point(s)
            case Phase.PROVE:
                return self._prove(s)
        raise ValueError("the dispute is decided")

    def _pick(self, s: State) -> Point:
        """The first descendant that differs from one's own."""
        assert s.node is not None
        if s.node.kind == TreeKind.ENTRIES:
            return self._pick_entries(s, s.node)
        mine = descendants(self._tree(s), s.node)
        return Point(
            next((i for i, (a, b) in enumerate(zip(s.revealed, mine, strict=True)) if a != b), 0)
        )

    def _pick_entries(self, s: State, node: TreeNode) -> Point:
        """The first descendant with an entry that does not follow."""
        if self._out_of_range(s):
            return Point(0)
        entries, false = self._expected(s)
        down = min(FAN, node.level)
        low = node.level - down
        false_leaf = -1 if false is None else entries.leaf_of(false)
        return Point(
            next((i for i, x in enumerate(descendants(entries.tree, node))
                  if x != s.revealed[i] or false_leaf >> low == (node.index << down) + i), 0)
        )  # fmt: skip

    def _entry_point(self, s: State) -> Point:
        """The first entry of the open leaf that does not follow."""
        if self._out_of_range(s):
            return Point(0)
        width = self.game.derivation(s).width
        entries, false = self._expected(s)
        mine = entries.leaf(s.leaf_index)
        if false is not None and entries.leaf_of(false) == s.leaf_index:
            position = false % (LEAF_BYTES // width)
            if s.leaf[: position * width] == mine[: position * width]:
                return Point(position)
        return Point(first_difference(s.leaf, mine, width))

    def _out_of_range(self, s: State) -> bool:
        """Whether the defender has chosen what it may not: entry 0 itself is false."""
        d = self.game.derivation(s)
        return isinstance(d, Sort) and s.chosen >= d.n

    def _expected(self, s: State) -> tuple[Entries, int | None]:
        """All entries as they follow from what the defender has chosen, and one that is false whatever it
        holds: the claim that a wrong index has the right place."""
        own, d = self.entries(s), self.game.derivation(s)
        if not isinstance(d, Sort) or s.chosen in (-1, own[0]):
            return own, None
        key = (s.owner, s.tree, s.tensor, s.element, s.chosen)
        return self._kept.get(key, lambda: d.naming(s.chosen, self._sources(s))), d.n + 1

    def tensors(self, s: State) -> Tensors:
        """One's own tensors of the tree under dispute."""
        return self._rows(s.owner) if s.owner else self.committed[s.tree]

    def _tree(self, s: State) -> MerkleTree | BodyTree:
        """One's own tree of the node under dispute."""
        assert s.node is not None
        if s.node.kind == TreeKind.TENSORS:
            return self._outputs.tree if s.tree == OUTPUTS and not s.owner else self.tensors(s).tree
        if s.node.kind == TreeKind.BODY:
            return self.tensors(s).body(s.tensor)
        return self.entries(s).tree

    # elements

    def _make_rows(self, owner: tuple[str, int, int]) -> Tensors:
        """The row program of an element, run."""
        return Tensors(self._nodes_of(owner, self._locals(owner)))

    def row_values(self, owner: tuple[str, int, int]) -> list[Array]:
        """Every local of an element's row program; a liar overrides this."""
        program = self._program(owner)
        values = rowprogram.given(program, self.run.sources(owner[1]), owner[2])
        for n, node in zip(program.nodes, self.run.scope.inside(owner).nodes, strict=True):
            values.append(result(node, [values[i] for i in n.sources]))
        return values

    def _program(self, owner: tuple[str, int, int]) -> RowProgram:
        program = self.run.scope.row_program(*owner[:2])
        assert program is not None  # the game entered a composite
        return program

    def _nodes_of(self, owner: tuple[str, int, int], values: list[Array]) -> list[Array | None]:
        """The arrays of a row program's nodes, None for moves."""
        program = self._program(owner)
        moves = [opdef.get(n.op).form is opdef.Form.MOVEMENT for n in program.nodes]
        return [None if m else x for m, x in zip(moves, values[program.first :], strict=True)]

    def _sources(self, s: State) -> list[Array]:
        if s.owner:
            values = self._locals(s.owner)
            return [values[i] for i in self._program(s.owner).nodes[s.tensor].sources]
        if s.tree == OUTPUTS:
            return [self.run.of(self.run.graph.outputs[s.tensor])]
        return self.run.sources(s.tensor)

    def entries(self, s: State) -> Entries:
        """All entries of the derivation under dispute."""

        def make() -> Array:
            d = self.game.derivation(s)
            return d.packed(self.derived(s, d, self._sources(s)))

        return self._kept.get((s.owner, s.tree, s.tensor, s.element), make)

    def derived(self, s: State, d: Derivation, sources: Sequence[Array]) -> Sequence[int] | Array:
        """All entries of a derivation; a liar overrides this."""
        return d.entries(sources)

    def _derive(self, s: State) -> Derive:
        d, entries = self.game.derivation(s), self.entries(s)
        first = entries.open(0) if d.chosen and entries.tree.count > 1 else None
        return Derive(entries.tree.root(), entries.open(d.count - 1), first)

    def execute(self, s: State, i: int) -> None:
        """Operation i of the element under dispute by exact integer arithmetic; ValueError unless it gives the
        entry, and the last one the element."""
        d, entries, sources = self.game.derivation(s), self.entries(s), self._sources(s)
        op = d.operation(i)
        if isinstance(op, Witness):
            same = entries[i] < op.bound
        else:
            same = entries[i] == execute(op, lambda o: resolve(o, entries.__getitem__, sources))
        if not same or (i == d.count - 1 and entries[i] != s.bits):
            raise ValueError(f"{d.node.op}, {d.where(i)} of element {s.element}: another result")

    def _commit_rows(self, s: State) -> Rows:
        owner = (s.tree, s.tensor, s.element)
        rows, scope = self._rows(owner), self.run.scope.inside(owner)
        last = len(scope.nodes) - 1
        return Rows(
            rows.root, rows.open(ElementPlace(ROW, last, scope.type(ROW, last), scope.element))
        )

    def _prove(self, s: State) -> Prove:
        d = self.game.derivation(s)
        entries = self.entries(s)
        out: list[Opening | EntryOpening] = []

        def entry(i: int) -> int:
            if entries.leaf_of(i) != s.leaf_index:
                out.append(entries.open(i))
            return entries[i]

        def visit(o: Operand) -> None:
            if isinstance(o, EarlierEntry):
                entry(o.index)
            elif isinstance(o, ElementRead):
                flat = place(o, entry)
                at = self.game.scope(s).resolve(s.tree, s.tensor, o.source, flat)
                if not isinstance(at, Bits):
                    tensors = (
                        self._rows(s.owner)
                        if at.tree == ROW and s.owner
                        else self.committed[at.tree]
                    )
                    out.append(tensors.open(at))

        op = d.operation(s.entry)
        if not isinstance(op, Witness):
            for name in ("operand", "other"):
                if hasattr(op, name):
                    visit(getattr(op, name))
            for o in getattr(op, "operands", ()):
                visit(o)
        return Prove(tuple(out))


def play(game: Game, s: State, defender: Party, challenger: Party) -> State:
    """A dispute between two parties in this process, to its end."""
    while s.phase is not Phase.OVER:
        s = game.apply(s, (defender if s.player == "defender" else challenger).move(s))
    return s
