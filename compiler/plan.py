"""Planning: a bound graph becomes kernel calls over buffer slots, with memory assigned.

A `Recipe` is pure data: it names kernels, slots and parameters and holds no pointer, so it is the
same for every process. The runtime fills in addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from ree.compiler.emit.tile import Operand, Step, TileSpec
from ree.compiler.fusion import Group, group
from ree.compiler.ir import Graph, Kind, Node, Ref, bound_node
from ree.kernels import opdef
from ree.kernels.index import IndexRule, contiguous_strides
from ree.kernels.opdef import Bound, View
from ree.kernels.types import DType, TensorType

ALIGN = 64
DIGEST = 32


@dataclass(frozen=True)
class Buffer:
    """Memory of one kind: "arena" (index into `Recipe.arena`), "weight", "const", "input",
    "output", "packed", "digest"."""

    kind: str
    index: int


@dataclass(frozen=True)
class Slot:
    """A place kernels are given: byte `offset` into a buffer."""

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True)
class Call:
    """One kernel call. `tile` names the tile function whose address goes to params[tile_at]."""

    kernel: str
    slots: tuple[int, ...]
    params: tuple[int, ...]
    tile: int = -1
    tile_at: int = -1


@dataclass(frozen=True)
class Packing:
    """A weight in panel layout: [ceil(n/panel)][k][panel], made once at load."""

    source: Ref
    k: int
    n: int
    stride_k: int
    stride_n: int


@dataclass
class Recipe:
    """Everything needed to run a bound graph on one instruction set."""

    calls: list[Call] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    tiles: list[TileSpec] = field(default_factory=list)
    packings: list[Packing] = field(default_factory=list)
    arena: list[int] = field(default_factory=list)  # size of each arena buffer
    offsets: list[int] = field(default_factory=list)  # its place
    arena_bytes: int = 0
    groups: int = 0
    digests: list[int] = field(default_factory=list)  # values hashed, in digest order
    values: dict[int, Buffer] = field(default_factory=dict)  # kept values (keep_values only)


@dataclass
class _Place:
    """Where a value lies: a buffer, byte offset and strides in elements."""

    buffer: Buffer
    offset: int
    type: TensorType
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        return is_contiguous(self.type.dims, self.strides)


def is_contiguous(dims: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether strides are row-major for dims, ignoring axes of size 1."""
    want = contiguous_strides(dims)
    return 0 in dims or all(
        d == 1 or s == w for d, s, w in zip(dims, strides, want, strict=True)
    )


def plan(
    g: Graph, *, panel: int, hash_values: bool = False, keep_values: bool = False, fuse: bool = True
) -> Recipe:
    """The recipe of a bound graph.

    panel: columns of a packed panel on the instruction set. hash_values: every value that is not a
    pure move is materialised and its body root written to the digests. keep_values: arena memory is
    not reused, so that values can be read after the run.
    """
    return _Planner(g, panel, hash_values, keep_values, fuse).run()


class _Planner:
    def __init__(self, g: Graph, panel: int, hash_values: bool, keep: bool, fuse: bool) -> None:
        self.g, self.panel, self.hash_values, self.keep, self.fuse = g, panel, hash_values, keep, fuse
        self.recipe = Recipe()
        self.typer = g.typer()
        self.producers = g.producers()
        self.places: dict[Ref, _Place] = {}
        self.dense: dict[Ref, _Place] = {}
        self.slot_index: dict[Slot, int] = {}
        self.tile_index: dict[TileSpec, int] = {}
        self.packed_index: dict[Packing, int] = {}

    def run(self) -> Recipe:
        groups = group(self.g, self.fuse)
        self.recipe.groups = len(groups)
        needed = self._needed_outside(groups)
        for grp in groups:
            _GroupPlanner(self, grp, needed).run()
            if self.hash_values:
                for n in grp.nodes:
                    for i in range(len(n.results)):
                        self._digest(Ref(Kind.VALUE, n.first + i))
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

    def call(
        self, kernel: str, slots: Sequence[int], params: Sequence[int], tile: int = -1, at: int = -1
    ) -> None:
        self.recipe.calls.append(Call(kernel, tuple(slots), tuple(params), tile, at))

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

    def place(self, ref: Ref) -> _Place:
        """Where a source lies; a move of something is a view of it where strides allow."""
        if ref in self.places:
            return self.places[ref]
        t = self.typer(ref)
        if ref.kind is Kind.VALUE:
            node = self.producers[ref.index]  # a move: everything else is placed when it is planned
            found = self._view(bound_node(node, self.typer), node.sources[0])
        else:
            kind = {Kind.WEIGHT: "weight", Kind.INPUT: "input", Kind.CONST: "const"}[ref.kind]
            found = _Place(Buffer(kind, ref.index), 0, t, contiguous_strides(t.dims))
        self.places[ref] = found
        return found

    def _view(self, node: Bound, source: Ref) -> _Place:
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
                return _Place(src.buffer, offset, node.out, strides)
        raise AssertionError(f"{node.op} of a contiguous source has no view")

    def dense_place(self, ref: Ref) -> _Place:
        """A contiguous place of a source, copying it once if need be."""
        p = self.place(ref)
        if p.contiguous:
            return p
        if ref not in self.dense:
            self.dense[ref] = self.copy(p)
        return self.dense[ref]

    def copy(self, p: _Place, target: Buffer | None = None) -> _Place:
        out = target or self.arena(p.type.nbytes)
        strides = contiguous_strides(p.type.dims)
        if p.type.numel:
            self.call("strided_copy", [self.slot(p.buffer, p.offset), self.slot(out)],
                      [p.type.dtype.size, p.type.rank, *p.type.dims, *p.strides, *strides])  # fmt: skip
        return _Place(out, 0, p.type, strides)

    # ends

    def _digest(self, ref: Ref) -> None:
        p = self.places[ref]
        slot = self.slot(Buffer("digest", 0), DIGEST * len(self.recipe.digests))
        self.call("tree_hash", [self.slot(p.buffer, p.offset), slot], [p.type.nbytes])
        self.recipe.digests.append(ref.index)
        if self.keep:
            self.recipe.values[ref.index] = p.buffer

    def _outputs(self) -> None:
        """Results go straight to the output buffer where the planner placed them there; the rest
        (views, inputs, repeated outputs) is copied."""
        for i, ref in enumerate(self.g.outputs):
            p = self.place(ref)
            if p.buffer != Buffer("output", i):
                self.copy(p, Buffer("output", i))

    def output_buffer(self, ref: Ref) -> Buffer | None:
        return Buffer("output", self.g.outputs.index(ref)) if ref in self.g.outputs else None

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
        r.offsets = [0] * len(r.arena)
        placed: list[int] = []
        for i in sorted(first, key=lambda j: (-r.arena[j], j)):
            taken = sorted(
                (r.offsets[j], r.offsets[j] + r.arena[j])
                for j in placed
                if self.keep or not (last[j] < first[i] or last[i] < first[j])
            )
            at = 0
            for lo, hi in taken:
                if at + r.arena[i] <= lo:
                    break
                at = max(at, (hi + ALIGN - 1) // ALIGN * ALIGN)
            r.offsets[i] = at
            r.arena_bytes = max(r.arena_bytes, at + r.arena[i])
            placed.append(i)


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


class _GroupPlanner:
    """Plans one group; this is the `Lowering` an operator's `lower` sees."""

    def __init__(self, planner: _Planner, grp: Group, needed: set[Ref]) -> None:
        self.p, self.grp = planner, grp
        first = grp.nodes[0]
        self.node = bound_node(first, planner.typer)
        self.sources = first.sources
        if planner.hash_values:
            self.stored = list(grp.pointwise)
        else:
            self.stored = [n for n in grp.pointwise if n.value in needed]
        self.keep_anchor = planner.hash_values or first.value in needed or not grp.pointwise

    def run(self) -> None:
        for n in self.stored:
            self._result_place(n)
        anchor = self.grp.anchor
        if anchor is not None:
            self._place_anchor(anchor)
            lower = opdef.get(anchor.op).lower
            assert lower is not None  # checked at registration
            lower(self)
            return
        dims = list(self.node.out.dims)
        if prod(dims) == 0:
            return
        spec, slots, params, (rows, cols) = self._tile(dims, None)
        self.p.call("tile", slots, [0, rows, cols, *params], self.p.tile(spec), 0)

    def _place_anchor(self, anchor: Node) -> None:
        """Results of the anchor. When only the group reads a contraction's total, it shares the
        buffer of the last stored f32 result: the tile function overwrites it in place."""
        for i, t in enumerate(anchor.results):
            ref = Ref(Kind.VALUE, anchor.first + i)
            if not self.keep_anchor:
                same = [n for n in self.stored if n.results[0].dtype is DType.F32]
                if same:
                    self.p.places[ref] = self.p.places[same[-1].value]
                    continue
            buffer = self.p.output_buffer(ref) or self.p.arena(t.nbytes)
            self.p.places[ref] = _Place(buffer, 0, t, contiguous_strides(t.dims))

    def _result_place(self, n: Node) -> None:
        t = n.results[0]
        buffer = self.p.output_buffer(n.value) or self.p.arena(t.nbytes)
        self.p.places[n.value] = _Place(buffer, 0, t, contiguous_strides(t.dims))

    # Lowering

    def source(self, i: int) -> View:
        return self._as_view(self.p.place(self.sources[i]))

    def dense(self, i: int, trailing: int | None = None) -> View:
        p = self.p.place(self.sources[i])
        n = p.type.rank if trailing is None else trailing
        tail = slice(p.type.rank - n, None)
        if not is_contiguous(p.type.dims[tail], p.strides[tail]):
            p = self.p.dense_place(self.sources[i])
        return self._as_view(p)

    def result(self, i: int = 0) -> View:
        return self._as_view(self.p.places[Ref(Kind.VALUE, self.grp.nodes[0].first + i)])

    def _as_view(self, p: _Place) -> View:
        return View(self.p.slot(p.buffer, p.offset), p.type.dims, p.strides, p.type.dtype)

    def offset(self, slot: int, nbytes: int) -> int:
        s = self.p.recipe.slots[slot]
        return self.p.slot(s.buffer, s.offset + nbytes)

    def scratch(self, nbytes: int) -> int:
        return self.p.slot(self.p.arena(nbytes))

    def packed(self, i: int, k: int, n: int, stride_k: int, stride_n: int) -> int:
        ref = self.sources[i]
        place = self.p.place(ref)
        if place.buffer.kind == "weight":
            base = Ref(Kind.WEIGHT, place.buffer.index)
            if place.offset == 0:
                return self.p.slot(self.p.packing(Packing(base, k, n, stride_k, stride_n)))
        panels = (n + self.p.panel - 1) // self.p.panel
        out = self.scratch(panels * self.p.panel * k * 4)
        self.emit("pack", [self.p.slot(place.buffer, place.offset), out],
                  [k, n, stride_k, stride_n, 1, 0])  # fmt: skip
        return out

    def epilogue(self, rows: int, cols: int) -> tuple[int, list[int], list[int]]:
        if not self.grp.pointwise:
            return 0, [], []
        spec, slots, params, _ = self._tile(list(self.node.out.dims), (rows, cols))
        self._pending = self.p.tile(spec)
        return 0, slots, params

    _pending = -1
    # where the tile function's address goes among a kernel's parameters
    _TILE_AT = {"gemm": 9, "bmm": 16}

    def emit(self, kernel: str, slots: Sequence[int], params: Sequence[int]) -> None:
        at = self._TILE_AT.get(kernel, -1)
        if at >= 0 and self._pending >= 0:
            self.p.call(kernel, slots, params, self._pending, at)
            self._pending = -1
        else:
            self.p.call(kernel, slots, params)

    # tile functions

    def _tile(
        self, dims: list[int], region: tuple[int, int] | None
    ) -> tuple[TileSpec, list[int], list[int], tuple[int, int]]:
        """The tile function of the group's pointwise nodes, its slots, parameters and region.

        region: (rows, columns) an anchor imposes; the last axis then stays the columns.
        """
        external = self.grp.external()
        places = [self.p.place(r) for r in external]
        strides = [_broadcast(p.type.dims, p.strides, dims) for p in places]
        results = [self.p.places[n.value] for n in self.stored]
        dims, strides = _collapse(dims, [*strides, *(list(p.strides) for p in results)],
                                  keep_last=region is not None)  # fmt: skip
        rows, cols = dims[:-1], dims[-1]

        def operand(t: TensorType, s: list[int]) -> Operand:
            inner = s[-1] if s[-1] in (0, 1) and cols != 1 else (0 if cols == 1 else 2)
            return Operand(t.dtype, inner, tuple(x != 0 for x in s[:-1]))

        n_src = len(external)
        index = {r: i for i, r in enumerate(external)}
        steps = []
        for j, n in enumerate(self.grp.pointwise):
            b = bound_node(n, self.p.typer)
            scalar = opdef.get(n.op).scalar
            assert scalar is not None  # checked at registration
            steps.append(
                Step(
                    scalar([t.dtype for t in b.inputs], b.attrs), tuple(index[s] for s in n.sources)
                )
            )
            index[n.value] = n_src + j
        stores = []
        for n, p, s in zip(self.stored, results, strides[n_src:], strict=True):
            o = operand(p.type, s)
            stores.append((index[n.value] - n_src, Operand(o.dtype, 1, o.rows)))
        spec = TileSpec(
            tuple(operand(p.type, s) for p, s in zip(places, strides, strict=False)),
            tuple(steps),
            tuple(stores),
        )
        params = list(rows)
        for s in strides:
            params += s
        slots = [self.p.slot(p.buffer, p.offset) for p in (*places, *results)]
        return spec, slots, params, (prod(rows), cols)


def _broadcast(src: Sequence[int], strides: Sequence[int], out: Sequence[int]) -> list[int]:
    """Strides over `out` of a source broadcast to it."""
    pad = len(out) - len(src)
    return [0] * pad + [0 if d == 1 else s for d, s in zip(src, strides, strict=True)]


def _collapse(
    dims: list[int], strides: list[list[int]], keep_last: bool
) -> tuple[list[int], list[list[int]]]:
    """Merge neighbouring axes that every operand steps through evenly; at least (rows, columns)."""
    out_dims: list[int] = []
    out: list[list[int]] = [[] for _ in strides]
    last = len(dims) - 1
    for axis, size in enumerate(dims):
        alone = keep_last and axis == last
        if size == 1 and not alone:
            continue
        if out_dims and not alone and all(
            o[-1] == s[axis] * size for o, s in zip(out, strides, strict=True)
        ):
            out_dims[-1] *= size
            for o, s in zip(out, strides, strict=True):
                o[-1] = s[axis]
            continue
        out_dims.append(size)
        for o, s in zip(out, strides, strict=True):
            o.append(s[axis])
    while len(out_dims) < 2:
        out_dims.insert(0, 1)
        for o in out:
            o.insert(0, 0)
    return out_dims, out
