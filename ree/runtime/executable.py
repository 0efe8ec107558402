"""Executables: a recipe with code behind it; frames: the memory of a run."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

import numpy as np

from ree import _core
from ree.compiler.emit.tile import compiled
from ree.compiler.frontend.aten.division import said
from ree.compiler.frontend.torch_types import DLPACK
from ree.compiler.ir import Graph
from ree.compiler.plan.recipe import Packing, PlannedCall, Recipe
from ree.errors import InputError
from ree.kernels.abi import signature
from ree.kernels.constants import ALIGN, DIGEST_BYTES
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.runtime import settings

PAGES = 1 << 16  # bytes from which memory is mapped
HUGE = 1 << 21  # bytes of a large page, and where it starts
PLAIN = (
    DType.F32,
    DType.I64,
    DType.I32,
    DType.I16,
    DType.I8,
    DType.U8,
)  # inputs that are taken as they are
SPARE = 2  # frames that an executable keeps for the runs to come


class Executable:
    """One instance compiled for one instruction set. It does not change: runs have frames of their own."""

    def __init__(
        self,
        graph: Graph,
        recipe: Recipe,
        isa: str,
        weights: Sequence[Array],
        packed: MutableMapping[Any, Array],
        made: Sequence[Array] = (),
    ) -> None:
        """weights: of which only those are kept that are read as they are; made: more of them, of this
        program alone. packed: panels that programs of the same weights share."""
        self.graph, self.recipe, self.isa = graph, recipe, isa
        self._given = len(weights)

        def weight(i: int) -> Array:
            return weights[i] if i < len(weights) else made[i - len(weights)]

        # what is packed has a slot too, as it is, which no call may read
        used = {i for call in recipe.calls for i in call.slots}
        places = [s.buffer for i, s in enumerate(recipe.slots) if i in used]
        self._weights = {b.index: weight(b.index) for b in places if b.kind == "weight"}
        self._consts = [c.array() for c in graph.consts]
        self._packed = self._pack(recipe.packings, weight, packed)
        self._code = compiled(recipe.tiles, isa)
        code = [c.address for c in self._code]
        self.plans = [_core.Plan(isa) for _ in range(2 if recipe.commit else 1)]
        for i, call in enumerate(recipe.calls):
            p = self.plans[-1 if i >= recipe.commit else 0]
            p.add(call.kernel, call.slots, _params(call, code))
        self.out_types = [(t.dims, t.dtype.numpy) for t in map(graph.typer(), graph.outputs)]
        fixed: dict[str, Sequence[Array] | Mapping[int, Array]]
        fixed = {"weight": self._weights, "const": self._consts, "packed": self._packed}
        self.table = [0] * len(recipe.slots)  # addresses that are the same in every run
        self.in_arena: list[tuple[int, int]] = []  # slot, place in the arena
        self.in_digests: list[tuple[int, int]] = []
        self.moving: dict[str, list[tuple[int, int, int]]] = {}  # kind -> slot, index, offset
        for i, s in enumerate(recipe.slots):
            kind = s.buffer.kind
            if kind == "arena":
                self.in_arena.append((i, recipe.offsets[s.buffer.index] + s.offset))
            elif kind == "digest":
                self.in_digests.append((i, s.offset))
            elif kind in fixed and i in used:
                self.table[i] = fixed[kind][s.buffer.index].ctypes.data + s.offset
            elif kind not in fixed:
                self.moving.setdefault(kind, []).append((i, s.buffer.index, s.offset))
        self._spare: list[Frame] = []
        self._call: tuple[_core.Pool, _core.Call | None] | None = None

    def run(
        self, inputs: Sequence[Array], pool: _core.Pool
    ) -> tuple[list[Array], dict[int, bytes], dict[int, Array]]:
        """(outputs, body roots by value, kept values by value) of a program without states."""
        try:
            frame = self._spare.pop()
        except IndexError:
            frame = Frame(self)
        outputs = [np.empty(dims, dtype) for dims, dtype in self.out_types]
        frame.bind("input", inputs)
        frame.bind("output", outputs)
        frame.run_part(0, pool)
        digests, kept = frame.digests(), frame.kept(outputs)
        if not kept and len(self._spare) < SPARE:  # kept values lie in the frame's memory
            self._spare.append(frame)
        return outputs, digests, kept

    def call(self, pool: _core.Pool, scan: AbstractSet[int]) -> _core.Call | None:
        """A run by the settings as they are, of torch tensors; scan: the inputs in which a NaN is looked for.
        None for what needs more: parts, digests, kept values, types of which bits are made canonical."""
        before = self._call
        # of pools with one thread each thread has its own: one of them is served
        if before is None or (before[0] is not pool and pool.threads + before[0].threads > 2):
            before = self._call = pool, self._make_call(pool, scan)
        return before[1]

    def _make_call(self, pool: _core.Pool, scan: AbstractSet[int]) -> _core.Call | None:
        torch, recipe = sys.modules.get("torch"), self.recipe
        given, got = self.graph.inputs, [*map(self.graph.typer(), self.graph.outputs)]
        if torch is None or len(self.plans) > 1 or recipe.digests or recipe.values:
            return None
        if not all(t.dtype in PLAIN for t in given) or not all(t.numel for t in (*given, *got)):
            return None
        frame = self._spare.pop() if self._spare else Frame(self)

        def ends(kind: str, types: Sequence[TensorType], scan: AbstractSet[int]) -> list[_core.End]:
            places: list[list[tuple[int, int]]] = [[] for _ in types]
            for slot, index, offset in self.moving.get(kind, ()):
                places[index].append((slot, offset))
            return [(*DLPACK[t.dtype], t.dtype is DType.F32 and i in scan, t.dims, places[i])
                    for i, t in enumerate(types)]  # fmt: skip

        keep = (frame.memory, self._code, self._weights, self._consts, self._packed)
        try:
            return _core.Call(self.plans[0], pool, torch.Tensor, ends("input", given, scan),
                              ends("output", got, set()), frame.table, *settings.said(), keep)  # fmt: skip
        except (AttributeError, ValueError):  # a torch without DLPack's interface, or with another
            self._spare.append(frame)
            return None

    def panels(self) -> dict[Packing, Array]:
        """The packed ones of the weights that programs may share."""
        return {p: x for p, x in zip(self.recipe.packings, self._packed, strict=True)
                if p.source.index < self._given}  # fmt: skip

    def _pack(
        self,
        packings: Sequence[Packing],
        weight: Callable[[int], Array],
        cache: MutableMapping[Any, Array],
    ) -> list[Array]:
        """The weights in panels, those that are not in the cache in one piece of memory."""
        panel = _core.panel(self.isa)
        # what is made of the weights differs between programs that share them
        keys = [(self.isa, p, *([weight(p.source.index).ctypes.data] if p.source.index >= self._given else ()))
                for p in packings]  # fmt: skip
        made = [cache.get(k) for k in keys]
        sizes = [p.bytes(panel) if m is None else 0 for p, m in zip(packings, made, strict=True)]
        rest = aligned(sum(-(-n // ALIGN) * ALIGN for n in sizes))
        for i, (p, n) in enumerate(zip(packings, sizes, strict=True)):
            if made[i] is not None:
                continue
            out, rest = rest[:n], rest[-(-n // ALIGN) * ALIGN :]
            w = weight(p.source.index)
            plan = _core.Plan(self.isa)
            plan.add(*p.call(0, 1))
            plan.run(settings.pool(), [w.ctypes.data, out.ctypes.data])
            cache[keys[i]] = made[i] = out
        return [m for m in made if m is not None]


class Frame:
    """Memory for one run at a time: the arena, digests, and the addresses that the kernels are given."""

    def __init__(self, executable: Executable, arena: Array | None = None) -> None:
        self.executable, recipe = executable, executable.recipe
        self._arena = aligned(recipe.arena_bytes) if arena is None else arena
        self._digests = np.zeros(max(DIGEST_BYTES * len(recipe.digests), 1), np.uint8)
        self.table = list(executable.table)
        for place, array in (
            (executable.in_arena, self._arena),
            (executable.in_digests, self._digests),
        ):
            start = array.ctypes.data
            for i, offset in place:
                self.table[i] = start + offset
        self.memory = (self._arena, self._digests)

    def bind(self, kind: str, arrays: Sequence[Array]) -> None:
        """Say where inputs, outputs or states lie, which change from run to run. The arrays stay with the
        caller, who keeps them until the run is over."""
        table = self.table
        for i, index, offset in self.executable.moving.get(kind, ()):
            table[i] = _core.address(arrays[index]) + offset

    def run_part(self, part: int, pool: _core.Pool) -> None:
        """Run the calls up to the commit point (0) or the rest (1); without one part 0 is all."""
        e = self.executable
        try:
            # a signal must not leave states half new: the last part may write them in place
            whole = bool(e.recipe.in_place) and part == len(e.plans) - 1
            e.plans[part].run(pool, self.table, not whole)
        except IndexError as error:
            raise InputError(said(str(error))) from error

    def digests(self) -> dict[int, bytes]:
        """Body roots by value."""
        values = self.executable.recipe.digests
        if not values:
            return {}
        raw = self._digests.tobytes()
        return {v: raw[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i, v in enumerate(values)}

    def kept(self, outputs: Sequence[Array]) -> dict[int, Array]:
        """Values that the recipe keeps; they share the frame's memory."""
        recipe, values = self.executable.recipe, {}
        if recipe.values:
            types = self.executable.graph.value_types()
            for v, buffer in recipe.values.items():
                if buffer.kind == "output":
                    values[v] = outputs[buffer.index]
                else:
                    start, t = recipe.offsets[buffer.index], types[v]
                    values[v] = (
                        self._arena[start : start + t.nbytes].view(t.dtype.numpy).reshape(t.dims)
                    )
        return values


def _params(call: PlannedCall, code: Sequence[int]) -> Sequence[int]:
    if call.tile < 0:
        return call.params
    return signature(call.kernel).with_tile(call.params, code[call.tile])


def aligned(nbytes: int) -> Array:
    """An uninitialised byte array whose address is a multiple of ALIGN. A large one is pages of its own, which
    go back to the system with it; freed in the heap they would leave holes that the next size does not fit."""
    if nbytes >= PAGES:
        huge = nbytes >= 2 * HUGE and hasattr(mmap, "MADV_HUGEPAGE")
        try:
            pages = mmap.mmap(-1, nbytes + HUGE * huge, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as e:
            raise MemoryError(f"{nbytes} bytes") from e
        if huge:
            with suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        raw, align = np.frombuffer(pages, np.uint8), HUGE if huge else ALIGN
    else:
        raw, align = np.empty(nbytes + ALIGN, np.uint8), ALIGN
    start = -raw.ctypes.data % align
    return raw[start : start + nbytes]
