"""Executables: a recipe with memory and code behind it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from ree import _core
from ree.compiler.division import said
from ree.compiler.emit.tile import addresses
from ree.compiler.ir import Graph
from ree.compiler.recipe import Call, Packing, Recipe
from ree.errors import InputError
from ree.kernels.abi import call as kernel_call
from ree.kernels.abi import signature
from ree.kernels.constants import ALIGN, DIGEST_BYTES
from ree.kernels.opdef import Array


class Executable:
    """Runs one instance on one instruction set. Memory is allocated once, here; a run allocates only
    its outputs. A run whose values are kept gives its memory away with them, and the next one has its own."""

    def __init__(
        self,
        graph: Graph,
        recipe: Recipe,
        isa: str,
        weights: Sequence[Array],
        packed: MutableMapping[Any, Array],
    ) -> None:
        self.graph, self.recipe, self.isa = graph, recipe, isa
        self._weights = list(weights)
        self._consts = [c.array() for c in graph.consts]
        self._arena = aligned(recipe.arena_bytes)
        self._digests = np.zeros(max(DIGEST_BYTES * len(recipe.digests), 1), np.uint8)
        self._packed = [self._pack(p, packed) for p in recipe.packings]
        code = addresses(recipe.tiles, isa)
        self._plans = [_core.Plan(isa) for _ in range(2 if recipe.checked else 1)]
        for i, call in enumerate(recipe.calls):
            p = self._plans[-1 if i >= recipe.checked else 0]
            p.add(call.kernel, call.slots, _params(call, code))
        self._fixed = {
            "weight": [w.ctypes.data for w in self._weights],
            "const": [c.ctypes.data for c in self._consts],
            "packed": [p.ctypes.data for p in self._packed],
            "digest": [self._digests.ctypes.data],
        }
        self._out_types = list(map(graph.typer(), graph.outputs))
        self._table = [0] * len(recipe.slots)
        self._moving = []  # slots whose address changes from run to run
        self._in_arena = []
        for i, s in enumerate(recipe.slots):
            if s.buffer.kind == "arena":
                self._in_arena.append((i, recipe.offsets[s.buffer.index] + s.offset))
            elif s.buffer.kind in ("input", "output", "state"):
                self._moving.append((i, s.buffer.kind, s.buffer.index, s.offset))
            else:
                self._table[i] = self._fixed[s.buffer.kind][s.buffer.index] + s.offset
        self._given_away = False
        self._place_arena()

    def _place_arena(self) -> None:
        start = self._arena.ctypes.data
        for i, offset in self._in_arena:
            self._table[i] = start + offset

    def run(
        self, inputs: Sequence[Array], pool: _core.Pool
    ) -> tuple[list[Array], dict[int, bytes], dict[int, Array]]:
        """(outputs, body roots by value, kept values by value)."""
        if self._given_away:
            self._arena = aligned(self.recipe.arena_bytes)
            self._place_arena()
            self._given_away = False
        outputs = [np.empty(t.dims, t.dtype.numpy) for t in self._out_types]
        self.bind({"input": inputs, "output": outputs})
        for part in range(len(self._plans)):
            self.run_part(part, pool)
        digests = self.digests()
        return outputs, digests, self._kept(outputs)

    def bind(self, arrays: Mapping[str, Sequence[Array]]) -> None:
        """Say where the buffers that change from run to run lie: inputs, outputs and states."""
        for i, kind, index, offset in self._moving:
            self._table[i] = arrays[kind][index].ctypes.data + offset

    def run_part(self, part: int, pool: _core.Pool) -> None:
        """Run the calls up to the loss (0) or the rest (1); a program without states has part 0 alone."""
        try:
            # a signal must not leave states half new: the last part may write them in place
            whole = part == len(self._plans) - 1 and bool(self.recipe.in_place)
            self._plans[part].run(pool, self._table, not whole)
        except IndexError as e:
            raise InputError(said(str(e))) from e

    def digests(self) -> dict[int, bytes]:
        """Body roots by value."""
        if not self.recipe.digests:
            return {}
        raw = self._digests.tobytes()
        return {
            v: raw[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)]
            for i, v in enumerate(self.recipe.digests)
        }

    def _kept(self, outputs: Sequence[Array]) -> dict[int, Array]:
        values = {}
        types = self.graph.value_types()
        for v, buffer in self.recipe.values.items():
            t = types[v]
            if buffer.kind == "output":
                values[v] = outputs[buffer.index]
            else:
                start = self.recipe.offsets[buffer.index]
                raw = self._arena[start : start + t.nbytes]
                values[v] = raw.view(t.dtype.numpy).reshape(t.dims)
                self._given_away = True
        return values

    def _pack(self, p: Packing, cache: MutableMapping[Any, Array]) -> Array:
        key = (self.isa, p)
        if key not in cache:
            panel = _core.panel(self.isa)
            w = self._weights[p.source.index]
            out = aligned((p.n + panel - 1) // panel * panel * p.k * 4)
            plan = _core.Plan(self.isa)
            plan.add(*kernel_call("pack", b=0, packed=1, k=p.k, n=p.n, stride_k=p.stride_k,
                                  stride_n=p.stride_n, batch=1, b_batch=0))  # fmt: skip
            from ree.settings import pool

            plan.run(pool(), [w.ctypes.data, out.ctypes.data])
            cache[key] = out
        return cache[key]


def _params(call: Call, code: Sequence[int]) -> Sequence[int]:
    if call.tile < 0:
        return call.params
    return signature(call.kernel).with_tile(call.params, code[call.tile])


def aligned(nbytes: int) -> Array:
    """An uninitialised byte array whose address is a multiple of ALIGN."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes]
