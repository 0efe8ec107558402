"""Planning: a bound graph becomes a recipe, with memory assigned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ree.compiler.ir import Graph, Kind, Ref, bound_node
from ree.compiler.plan.fusion import Group, bases, group
from ree.compiler.plan.in_place import in_place_states
from ree.compiler.plan.lowering import GroupPlanner
from ree.compiler.plan.recipe import (
    Buffer,
    BufferPlace,
    Packing,
    PlannedCall,
    Recipe,
    Slot,
    is_contiguous,
)
from ree.compiler.plan.stored import Stored, stored_matrices
from ree.kernels import opdef
from ree.kernels.abi import NO_TILE, Tile, Value, signature
from ree.kernels.constants import ALIGN, DIGEST_BYTES
from ree.kernels.index import IndexRule, contiguous_strides
from ree.kernels.opdef import Bound
from ree.kernels.tilespec import TileSpec
from ree.kernels.types import LARGEST


def plan(
    g: Graph,
    *,
    panel: int,
    hash_values: bool = False,
    keep_values: bool = False,
    fuse: bool = True,
    commit_after: int | None = None,
    tables_in_panels: bool = False,
    stored: Mapping[int, Stored] | None = None,
    byte_group: int = 2,
) -> Recipe:
    """The recipe of a bound graph.

    panel: columns of a packed panel on the instruction set. hash_values: every value that is not a
    pure move is materialised and its body root written to the digests. keep_values: arena memory is
    not reused, so that values can be read after the run. commit_after: an output that is final before
    any state is overwritten, so that whoever runs it may look at it and stop. tables_in_panels: a weight
    that is both multiplied by and a table of rows is read in panels alone. stored: weights, by index, that
    are there in a narrow form alone. byte_group: how many 8-bit integers the kernels take at once (`gemm_i8`).
    """
    p = Planner(g, panel, hash_values, keep_values, fuse, commit_after)
    p.stored = stored or {}
    p.byte_group = byte_group
    if tables_in_panels:
        p.in_panels = multiplied_by(g) | {r for s in p.stored.values() for r in s.weights}
    return p.run()


def multiplied_by(g: Graph) -> frozenset[Ref]:
    """Weights that are packed whole, for products with them."""
    found = [n.sources[1] for n in g.nodes if n.op == "linear"]
    found += [r for s in stored_matrices(g).values() for r in s.weights]
    return frozenset(r for r in found if r.kind is Kind.WEIGHT)


class Planner:
    def __init__(
        self, g: Graph, panel: int, hash_values: bool, keep: bool, fuse: bool, commit: int | None
    ) -> None:
        self.g, self.panel, self.fuse = g, panel, fuse
        self.hash_values, self.keep, self.commit = hash_values, keep, commit
        self.byte_group = 2
        self.over_state: dict[Ref, int] = {}  # values that lie in the memory of a state
        self.recipe = Recipe()
        self.typer = g.typer()
        self.producers = g.producers()
        self.places: dict[Ref, BufferPlace] = {}
        self.dense: dict[Ref, BufferPlace] = {}
        self.slot_index: dict[Slot, int] = {}
        self.tile_index: dict[TileSpec, int] = {}
        self.packed_index: dict[Packing, int] = {}
        self.in_panels: frozenset[Ref] = frozenset()  # weights that are not read as they are
        self.stored: Mapping[int, Stored] = {}
        self._placed: set[tuple[int, str]] = set()
        self._first_output = {r: i for i, r in reversed(list(enumerate(g.outputs)))}
        self.origins: tuple[str, ...] = ()  # of the calls being planned

    def run(self) -> Recipe:
        groups = group(self.g, self.fuse)
        self.recipe.groups = len(groups)
        final = self._commit_group(groups)
        if not self.keep and not self.hash_values:
            self.over_state = in_place_states(self.g, groups, final)
            new = self.g.outputs[: len(self.g.states)]
            self.recipe.in_place = frozenset(
                i for i, r in enumerate(new) if self.over_state.get(r) == i
            )
        needed = self._needed_outside(groups)
        if final < 0 and self.commit is not None:  # the output is a source
            self._commit()
        for at, grp in enumerate(groups):
            self.origins = tuple(dict.fromkeys(
                f"{n.op} ({n.origin.location or n.origin.name})" for n in grp.nodes))  # fmt: skip
            GroupPlanner(self, grp, needed).run()
            if self.hash_values:
                for n in grp.nodes:
                    for i in range(len(n.results)):
                        self._digest(Ref(Kind.VALUE, n.first + i))
            if at == final:
                self._commit()
        self.origins = ()
        self._outputs()
        self._assign()
        return self.recipe

    def _needed_outside(self, groups: list[Group]) -> set[Ref]:
        """Values that somebody outside their group reads."""
        home = {n.first: i for i, grp in enumerate(groups) for n in grp.nodes}
        needed = set(self.g.outputs)
        for n in self.g.nodes:
            for s in n.sources:
                if s.kind is Kind.VALUE and home.get(n.first) != home.get(
                    self.producers[s.index].first, -1
                ):
                    needed.add(s)
        return needed

    # buffers and slots

    def arena(self, nbytes: int) -> Buffer:
        self.recipe.arena.append(max(nbytes, 1))
        return Buffer("arena", len(self.recipe.arena) - 1)

    def slot(self, buffer: Buffer, offset: int = 0) -> int:
        key = Slot(buffer, offset)
        if key not in self.slot_index:
            self.slot_index[key] = len(self.recipe.slots)
            self.recipe.slots.append(key)
        return self.slot_index[key]

    def call(self, kernel: str, /, **arguments: Value) -> None:
        """Add a call of a kernel with these arguments by name."""
        tile = arguments.get("tile", NO_TILE)
        assert isinstance(tile, Tile)
        slots, params = signature(kernel).pack(arguments)
        self.recipe.calls.append(PlannedCall(kernel, slots, params, tile.index, self.origins))

    def tile(self, spec: TileSpec) -> int:
        if spec not in self.tile_index:
            self.tile_index[spec] = len(self.recipe.tiles)
            self.recipe.tiles.append(spec)
        return self.tile_index[spec]

    def packing(self, p: Packing) -> Buffer:
        if p not in self.packed_index:
            self.packed_index[p] = len(self.recipe.packings)
            self.recipe.packings.append(p)
        return Buffer("packed", self.packed_index[p])

    # places

    def place(self, ref: Ref) -> BufferPlace:
        """Where a source lies; a move of something is a view of it where strides allow."""
        chain = [ref]  # a long chain of moves is placed from its start, without recursion
        while chain[-1] not in self.places and chain[-1].kind is Kind.VALUE:
            chain.append(self.producers[chain[-1].index].sources[0])
        for r in reversed(chain):
            if r not in self.places:
                self.places[r] = self._new_place(r)
        return self.places[ref]

    def _new_place(self, ref: Ref) -> BufferPlace:
        """The place of a source; that of what it is a move of is known."""
        t = self.typer(ref)
        if ref.kind is Kind.VALUE:
            node = self.producers[ref.index]  # a move: everything else is placed when it is planned
            return self._view(bound_node(node, self.typer), node.sources[0])
        kind = {Kind.WEIGHT: "weight", Kind.STATE: "state", Kind.INPUT: "input",
                Kind.CONST: "const"}[ref.kind]  # fmt: skip
        return BufferPlace(Buffer(kind, ref.index), 0, t, contiguous_strides(t.dims))

    def _view(self, node: Bound, source: Ref) -> BufferPlace:
        index_rule = opdef.get(node.op).index_rule
        assert index_rule is not None
        rule = index_rule(node)
        for src in (self.place(source), None):
            src = src or self.dense_place(source)
            strides = view_strides(rule, src.type.dims, src.strides, node.out.dims)
            if strides is not None:
                coords = rule.accesses[0].coords
                if src.contiguous:
                    start = sum(c.offset * c.stride for c in coords)
                else:
                    start = sum(c.offset * s for c, s in zip(coords, src.strides, strict=True))
                offset = src.offset + start * src.type.dtype.size
                return BufferPlace(src.buffer, offset, node.out, strides)
        raise AssertionError(f"{node.op} of a contiguous source has no view")

    def dense_place(self, ref: Ref) -> BufferPlace:
        """A contiguous place of a source, copying it once if need be."""
        p = self.place(ref)
        if p.contiguous:
            return p
        if ref not in self.dense:
            self.dense[ref] = self.copy(p)
        return self.dense[ref]

    def copy(self, p: BufferPlace, target: Buffer | None = None) -> BufferPlace:
        out = target or self.arena(p.type.nbytes)
        strides = contiguous_strides(p.type.dims)
        if p.type.numel:
            self.call("strided_copy", x=self.slot(p.buffer, p.offset), y=self.slot(out),
                      element_bytes=p.type.dtype.size, rank=p.type.rank, extents=p.type.dims,
                      x_strides=p.strides, y_strides=strides)  # fmt: skip
        return BufferPlace(out, 0, p.type, strides)

    # ends

    def _digest(self, ref: Ref) -> None:
        p = self.places[ref]
        slot = self.slot(Buffer("digest", 0), DIGEST_BYTES * len(self.recipe.digests))
        self.call("tree_hash", data=self.slot(p.buffer, p.offset), root=slot, bytes=p.type.nbytes)
        self.recipe.digests.append(ref.index)
        if self.keep:
            self.recipe.values[ref.index] = p.buffer

    def _outputs(self) -> None:
        """Results go straight to the output buffer where the planner placed them there; the rest
        (views, inputs, repeated outputs) is copied."""
        for i in range(len(self.g.outputs)):
            self._place_output(i)

    def _place_output(self, i: int) -> None:
        p, kind = self.place(self.g.outputs[i]), "state" if i in self.recipe.in_place else "output"
        if p.buffer != Buffer(kind, i) and (i, kind) not in self._placed:
            self.copy(p, Buffer(kind, i))
        self._placed.add((i, kind))

    def result_buffer(self, ref: Ref) -> Buffer | None:
        """Where a value must lie: over a state, or in the first output that it is."""
        if ref in self.over_state:
            return Buffer("state", self.over_state[ref])
        i = self._first_output.get(ref)
        return None if i is None else Buffer("output", i)

    def _commit(self) -> None:
        """What comes from here on may overwrite states."""
        assert self.commit is not None
        self._place_output(self.commit)
        self.recipe.commit = len(self.recipe.calls)

    def _commit_group(self, groups: list[Group]) -> int:
        """The group that makes the output to commit after; -1 if none does."""
        if self.commit is None:
            return -1
        ref = bases(self.g)(self.g.outputs[self.commit])
        if ref.kind is not Kind.VALUE:
            return -1
        first = self.producers[ref.index].first
        return next(i for i, grp in enumerate(groups) if any(n.first == first for n in grp.nodes))

    def _assign(self) -> None:
        """Offsets of arena buffers: largest first, lowest gap not used by an overlapping life."""
        r = self.recipe
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for step, call in enumerate(r.calls):
            for s in call.slots:
                if s >= 0 and r.slots[s].buffer.kind == "arena":
                    i = r.slots[s].buffer.index
                    first.setdefault(i, step)
                    last[i] = step
        order = sorted(first, key=lambda j: (-r.arena[j], j))
        sizes = [r.arena[i] for i in order]
        lives = None if self.keep else [(first[i], last[i]) for i in order]
        r.offsets = [0] * len(r.arena)
        for i, size, at in zip(order, sizes, first_fit(sizes, lives), strict=True):
            r.offsets[i] = at
            r.arena_bytes = max(r.arena_bytes, at + size)


def first_fit(sizes: Sequence[int], lives: Sequence[tuple[int, int]] | None) -> list[int]:
    """Aligned offsets of buffers, one after the other: each in the lowest gap that no earlier buffer takes
    while it lives (first and last step; None: always)."""
    offsets: list[int] = []
    if lives is None:  # no gap is wider than what aligns the next one
        end = 0
        for size in sizes:
            offsets.append(end)
            end += _aligned(size)
        return offsets
    # of the buffers placed so far, by offset; one comparison of arrays finds those that are in the way
    low, high, born, died = (np.empty(len(sizes), np.int64) for _ in range(4))
    for n, (size, (first, last)) in enumerate(zip(sizes, lives, strict=True)):
        taken = np.flatnonzero((died[:n] >= first) & (born[:n] <= last))
        ends = np.maximum.accumulate(high[taken])
        starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        fits = starts + size <= low[taken]
        if fits.any():
            at = int(starts[fits.argmax()])
        else:
            at = int(ends[-1]) if len(ends) else 0
        offsets.append(at)
        i = int(np.searchsorted(low[:n], at))
        for known, new in ((low, at), (high, at + _aligned(size)), (born, first), (died, last)):
            known[i + 1 : n + 1] = known[i:n].copy()
            known[i] = new
    return offsets


def _aligned(n: int) -> int:
    return (n + ALIGN - 1) // ALIGN * ALIGN


def view_strides(
    rule: IndexRule, src: Sequence[int], strides: Sequence[int], out: Sequence[int]
) -> tuple[int, ...] | None:
    """Strides over `out` of the source seen through the rule, or None if a copy is needed."""
    access = rule.accesses[0]
    flat_rule = len(access.coords) != len(src)
    if flat_rule and not is_contiguous(src, strides):
        return None
    steps = [c.stride for c in access.coords] if flat_rule else list(strides)
    if not flat_rule and is_contiguous(src, strides):
        steps = list(contiguous_strides(src))
    per_digit = [
        sum(c.coeffs[d] * s for c, s in zip(access.coords, steps, strict=True))
        for d in range(len(rule.out_digits))
    ]
    # the step of a digit that is always 0 is never taken; a chain of moves must not let it overflow
    per_digit = [
        0 if n < 2 and abs(s) > LARGEST else s
        for n, s in zip(rule.out_digits, per_digit, strict=True)
    ]
    if tuple(rule.out_digits) == tuple(out):
        return tuple(per_digit)
    # digits are finer than the output's axes: an axis is a run of digits that steps evenly
    result, at = [], 0
    for size in out:
        stride, extent, run = 0, 1, []
        while extent < size:
            run.append(at)
            extent *= rule.out_digits[at]
            at += 1
        if run:
            stride = per_digit[run[-1]]
            inner = 1
            for d in reversed(run):
                if per_digit[d] != stride * inner:
                    return None
                inner *= rule.out_digits[d]
        result.append(stride)
    return tuple(result)
