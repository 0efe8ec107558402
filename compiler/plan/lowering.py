"""Lowering of one group: its anchor's kernel, and its pointwise nodes as a tile function."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from ree.compiler.ir import Kind, Node, Ref, bound_node
from ree.compiler.plan.fusion import Group
from ree.compiler.plan.recipe import BufferPlace, Packing, is_contiguous
from ree.kernels import opdef
from ree.kernels.abi import NO_TILE, Tile, Value
from ree.kernels.index import contiguous_strides
from ree.kernels.macro import lowering_of
from ree.kernels.opdef import StoredOperand, View
from ree.kernels.tilespec import Operand, TileSpec, TileStep
from ree.kernels.types import DType, TensorType

if TYPE_CHECKING:
    from ree.compiler.plan.planner import Planner


class GroupPlanner:
    """Plans one group; this is the `Lowering` an operator's `lower` sees."""

    def __init__(self, planner: Planner, grp: Group, needed: set[Ref]) -> None:
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
            lower = lowering_of(anchor.op)
            assert lower is not None  # checked at registration; a macro without one is written out
            lower(self)
            return
        dims = list(self.node.out.dims)
        if prod(dims) == 0:
            return
        tile, (rows, cols) = self._tile(dims, None)
        self.p.call("tile", rows=rows, columns=cols, tile=tile)

    def _place_anchor(self, anchor: Node) -> None:
        """Results of the anchor. When only the group reads a contraction's total, f32 or i32, it shares the
        buffer of the last stored f32 result: the tile function overwrites it in place. A state's old
        value is still to be read, so its buffer is not shared."""
        for i, t in enumerate(anchor.results):
            ref = Ref(Kind.VALUE, anchor.first + i)
            if not self.keep_anchor:
                same = [n for n in self.stored if n.results[0].dtype is DType.F32
                        and self.p.places[n.value].buffer.kind != "state"]  # fmt: skip
                if same:
                    shared = self.p.places[same[-1].value]
                    self.p.places[ref] = BufferPlace(
                        shared.buffer, shared.offset, t, shared.strides
                    )
                    continue
            buffer = self.p.result_buffer(ref) or self.p.arena(t.nbytes)
            self.p.places[ref] = BufferPlace(buffer, 0, t, contiguous_strides(t.dims))

    def _result_place(self, n: Node) -> None:
        t = n.results[0]
        buffer = self.p.result_buffer(n.value) or self.p.arena(t.nbytes)
        self.p.places[n.value] = BufferPlace(buffer, 0, t, contiguous_strides(t.dims))

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

    def _as_view(self, p: BufferPlace) -> View:
        return View(self.p.slot(p.buffer, p.offset), p.type.dims, p.strides, p.type.dtype)

    def offset(self, slot: int, nbytes: int) -> int:
        s = self.p.recipe.slots[slot]
        return self.p.slot(s.buffer, s.offset + nbytes)

    def scratch(self, nbytes: int) -> int:
        return self.p.slot(self.p.arena(nbytes))

    def is_weight(self, i: int) -> bool:
        place = self.p.place(self.sources[i])
        return place.buffer.kind == "weight" and place.offset == 0

    def packed(self, i: int, k: int, n: int, stride_k: int, stride_n: int) -> int:
        ref = self.sources[i]
        place = self.p.place(ref)
        if self.is_weight(i):
            base = Ref(Kind.WEIGHT, place.buffer.index)
            return self.p.slot(self.p.packing(Packing(base, k, n, stride_k, stride_n)))
        panels = (n + self.p.panel - 1) // self.p.panel
        out = self.scratch(panels * self.p.panel * k * 4)
        self.emit("pack", b=self.p.slot(place.buffer, place.offset), packed=out, k=k, n=n,
                  stride_k=stride_k, stride_n=stride_n, batch=1, b_batch=0, element_bytes=4)  # fmt: skip
        return out

    def stored_operand(self, i: int, k: int, n: int) -> StoredOperand | None:
        s = (
            self.p.stored.get(self.p.place(self.sources[i]).buffer.index)
            if self.is_weight(i)
            else None
        )
        if s is None:
            return None

        def slot(r: Ref | None, block: int) -> int | None:
            return (
                None
                if r is None
                else self._packed_weight(r, k // block, n, self.p.g.weights[r.index].dtype.size)
            )

        packed = slot(s.elements, 1)
        assert packed is not None
        return StoredOperand(
            packed, slot(s.scale, s.block), slot(s.offset, s.block), s.storage, s.block
        )

    def _packed_weight(self, ref: Ref, k: int, n: int, element_bytes: int) -> int:
        """Rows of k of a weight, whatever its shape, in panels."""
        return self.p.slot(self.p.packing(Packing(ref, k, n, 1, k, element_bytes)))

    def packed_i8(self, i: int, k: int, n: int, stride_k: int, stride_n: int) -> tuple[int, int]:
        place, group = self.p.place(self.sources[i]), self.p.byte_group
        base = Ref(Kind.WEIGHT, place.buffer.index)
        p = Packing(base, k, n, stride_k, stride_n, group=group)
        if self.is_weight(i):
            return self.p.slot(self.p.packing(p)), group
        out = self.scratch(p.bytes(self.p.panel))
        self.emit("pack_i8", b=self.p.slot(place.buffer, place.offset), packed=out, k=k, n=n,
                  stride_k=stride_k, stride_n=stride_n, group=group)  # fmt: skip
        return out, group

    def table(self, i: int) -> tuple[int, int]:
        """(slot, panel) of a dense table of rows: panel 1; or a weight's panels, where the plan has them."""
        place = self.p.place(self.sources[i])
        ref = Ref(Kind.WEIGHT, place.buffer.index)
        if self.is_weight(i) and place.contiguous and ref in self.p.in_panels:
            rows, width = place.type.dims
            return self._packed_weight(ref, width, rows, place.type.dtype.size), self.p.panel
        return self.dense(i).slot, 1

    def epilogue(self, rows: int, cols: int) -> Tile:
        if not self.grp.pointwise:
            return NO_TILE
        return self._tile(list(self.node.out.dims), (rows, cols))[0]

    def emit(self, kernel: str, /, **arguments: Value) -> None:
        self.p.call(kernel, **arguments)

    # tile functions

    def _tile(
        self, dims: list[int], region: tuple[int, int] | None
    ) -> tuple[Tile, tuple[int, int]]:
        """The tile function of the group's pointwise nodes, and its region.

        region: (rows, columns) an anchor imposes; the last axis then stays the columns.
        """
        external = self.grp.external()
        places = [self.p.place(r) for r in external]
        strides = [_broadcast(p.type.dims, p.strides, dims) for p in places]
        results = [self.p.places[n.value] for n in self.stored]
        if region is not None:
            dims = self._join_columns(dims, places, strides, region[1])
        strides += [list(contiguous_strides(dims))] * len(results)
        dims, strides = _collapse(dims, strides, keep_last=region is not None)
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
                TileStep(
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
        return Tile(self.p.tile(spec), tuple(slots), tuple(params)), (prod(rows), cols)

    def _join_columns(
        self, dims: list[int], places: list[BufferPlace], strides: list[list[int]], cols: int
    ) -> list[int]:
        """dims with the trailing axes that are the region's columns as one; a source that does not
        step evenly through them is copied."""
        n = 1
        while prod(dims[-n:]) != cols:
            n += 1
        for i, s in enumerate(strides):
            if _steps(dims[-n:], s[-n:]) is None:
                p = places[i]
                t = TensorType(p.type.dtype, tuple(dims))
                places[i] = self.p.copy(BufferPlace(p.buffer, p.offset, t, tuple(s)))
                s[:] = places[i].strides
            s[-n:] = [_steps(dims[-n:], s[-n:]) or 0]
        return [*dims[:-n], cols]


def _steps(dims: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride of several axes seen as one, or None."""
    live = [(d, s) for d, s in zip(dims, strides, strict=True) if d != 1]
    for (_, outer), (d, inner) in pairwise(live):
        if outer != inner * d:
            return None
    return live[-1][1] if live else 0


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
        if (
            out_dims
            and not alone
            and all(o[-1] == s[axis] * size for o, s in zip(out, strides, strict=True))
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
