"""Recipes on a GPU through Triton, or without one in Triton's interpreter.

The recipe is the one the CPU runs; each kernel call becomes launches (kernels/gpu/launch.py). Memory is
planned once per program and shape; after a first run the launches of a CUDA device are recorded as a
CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.compiler.frontend.torch_types import to_numpy, torch_dtype
from ree.compiler.ir import Graph
from ree.compiler.plan.recipe import Recipe
from ree.errors import InputError, PlatformError
from ree.kernels.constants import DIGEST_BYTES
from ree.kernels.gpu.launch import (
    ERROR,
    PANEL,
    SCRATCH,
    KernelCall,
    Launch,
    Ptr,
    kernel_call,
    table,
)
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.runtime.gpu_device import out_of_memory

if TYPE_CHECKING:
    from ree.runtime.ptx_device import PtxDevice

ALIGN = 256
POISON = 0xB5  # bytes that nobody wrote, where PTX is executed


class GpuExecutable:
    """Runs one instance on one device; the counterpart of executable.Executable.

    Inputs and outputs have buffers of their own, so that a recorded graph can be replayed.
    """

    def __init__(
        self,
        graph: Graph,
        recipe: Recipe,
        device: Any,
        weights: Sequence[Any],
        packed: MutableMapping[Any, Any],
        traced: bool,
        ptx: PtxDevice | None = None,
    ) -> None:
        import torch

        self.ptx = ptx  # where PTX is executed, in place of a GPU

        self.graph, self.recipe, self.device = graph, recipe, device
        self._torch = torch
        self._types = {"input": list(graph.inputs),
                       "output": list(map(graph.typer(), graph.outputs))}  # fmt: skip
        try:
            self._allocate(weights, packed, traced)
        except torch.OutOfMemoryError as e:
            raise out_of_memory(device, self._wanted) from e
        self._graph: Any = None
        self._runs = 0

    _wanted = 0

    def _allocate(
        self, weights: Sequence[Any], packed: MutableMapping[Any, Any], traced: bool
    ) -> None:
        self._buffers: dict[str, list[Any]] = {
            "weight": list(weights),
            "const": [self._upload(c.array()) for c in self.graph.consts],
            "input": [self._bytes(t.nbytes) for t in self._types["input"]],
            "output": [self._bytes(t.nbytes) for t in self._types["output"]],
            "digest": [self._bytes(DIGEST_BYTES * len(self.recipe.digests))],
        }
        arena = self._bytes(self.recipe.arena_bytes)
        self._buffers["arena"] = [
            arena[o : o + n] for o, n in zip(self.recipe.offsets, self.recipe.arena, strict=True)
        ]
        self._buffers["packed"] = [self._pack(p, packed) for p in self.recipe.packings]
        self._error = self._bytes(4)
        self._error.zero_()
        self._io_digests = self._bytes(
            DIGEST_BYTES * (len(self._types["input"]) + len(self._types["output"])) if traced else 0
        )
        self._launches, self._scratch_bytes, checks = schedule(self.recipe)
        first, last = self._io_calls(traced)
        self._scratch = self._bytes(
            max([self._scratch_bytes, *(c.scratch for c in (*first, *last))])
        )
        self._checks = checks
        self._bound = []
        for x in (*_all(first), *self._launches, *_all(last)):
            self._bound.append(self._bind(x))

    def _bind(self, x: Launch) -> Callable[[], object]:
        """What runs a launch."""
        args = [self._argument(a) for a in x.args]
        if self.ptx is not None:
            return self.ptx.bind(
                x, args, [self._memory(a)[0] for a in x.args if isinstance(a, Ptr)]
            )
        y, options = self._choice(x, args)
        return partial(y.kernel[y.grid], *args, **options)

    def _choice(self, x: Launch, args: Sequence[Any]) -> tuple[Launch, dict[str, Any]]:
        """The first schedule of a launch that does not spill, with its options. What spills is not run:
        its machine code is not what the audit has passed."""
        if self.device.type != "cuda":
            return x, x.options()
        for y, limit in x.choices():
            options = y.options(limit)
            with self._torch.cuda.device(self.device):
                made = y.kernel.warmup(*args, grid=y.grid, **options)
                made._init_handles()
            if not made.n_spills:
                return y, options
        raise PlatformError(f"kernel '{x.name}' spills registers on this GPU in every schedule",
                                "report the model and the GPU; it runs on the CPU")  # fmt: skip

    def _bytes(self, nbytes: int) -> Any:
        self._wanted = max(nbytes, ALIGN)
        if self.ptx is not None:  # nothing behind it, so that an access there is seen
            return self._torch.full((max(nbytes, 1),), POISON, dtype=self._torch.uint8)
        return self._torch.empty(self._wanted, dtype=self._torch.uint8, device=self.device)

    def _upload(self, x: Array) -> Any:
        raw = np.frombuffer(np.ascontiguousarray(x).tobytes() or bytes(ALIGN), np.uint8).copy()
        return self._torch.from_numpy(raw).to(self.device)

    def _pack(self, p: Any, cache: MutableMapping[Any, Any]) -> Any:
        key = (str(self.device), p)
        if key not in cache:
            out = self._bytes(p.bytes(PANEL))
            out.zero_()
            call = KernelCall(*p.call(0, 1))
            table()[call.kernel](call)
            pair = (self._buffers["weight"][p.source.index], out)
            for x in call.launches:
                args = [typed(pair[a.slot], a) if isinstance(a, Ptr) else a for a in x.args]
                if self.ptx is not None:
                    self.ptx.bind(x, args, pair)()
                else:
                    x.kernel[x.grid](*args, **x.options())
            cache[key] = out
        return cache[key]

    def _io_calls(self, traced: bool) -> tuple[list[KernelCall], list[KernelCall]]:
        """Calls before and after the recipe: inputs made canonical, inputs and outputs hashed. Their
        slots count from the end of the recipe's: inputs, outputs, digests."""
        base, n_in = len(self.recipe.slots), len(self._types["input"])
        types = [*self._types["input"], *self._types["output"]]
        self._extra = [*self._buffers["input"], *self._buffers["output"], self._io_digests]
        first, last = [], []
        for i, t in enumerate(types):
            if i < n_in and t.dtype is DType.F32 and t.numel:
                call = kernel_call("canonical_copy", x=base + i, y=base + i, n=t.numel)
                table()["canonical_copy"](call)
                first.append(call)
        if traced:
            n = len(types)
            call = kernel_call("tree_hash_many", data=range(base, base + n), roots=base + n, count=n,
                               bytes=[t.nbytes for t in types])  # fmt: skip
            table()["tree_hash_many"](call)
            last.append(call)
        return first, last

    def _argument(self, a: Ptr | int) -> Any:
        if not isinstance(a, Ptr):
            return a
        buffer, offset = self._memory(a)
        return typed(buffer[offset:], a)

    def _memory(self, a: Ptr) -> tuple[Any, int]:
        """The bytes that a pointer is into, and where in them its slot begins."""
        if a.slot == SCRATCH:
            return self._scratch, 0
        if a.slot == ERROR:
            return self._error, 0
        if a.slot >= len(self.recipe.slots):
            return self._extra[a.slot - len(self.recipe.slots)], 0
        s = self.recipe.slots[a.slot]
        return self._buffers[s.buffer.kind][s.buffer.index], s.offset

    def run(
        self, inputs: Sequence[Any]
    ) -> tuple[list[Any], dict[int, bytes], list[bytes], dict[int, Array]]:
        """(outputs, body roots by value, body roots of inputs and outputs, kept values)."""
        torch = self._torch
        for buffer, x, t in zip(self._buffers["input"], inputs, self._types["input"], strict=True):
            if t.numel:
                view(buffer, t).copy_(x)
        try:
            self._execute()
        except torch.OutOfMemoryError as e:
            raise out_of_memory(self.device, 0) from e
        if self._checks and int(
            view(self._error, TensorType(DType.F32, (1,))).view(torch.int32)[0]
        ):
            self._error.zero_()
            raise InputError(
                "an index is out of range, or an integer is divided by 0",
                "see the bounds of embedding, index and gather",
            )
        outputs = [view(b, t).clone()
                   for b, t in zip(self._buffers["output"], self._types["output"], strict=True)]  # fmt: skip
        raw = bytes(self._buffers["digest"][0].cpu().numpy())
        digests = {
            v: raw[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)]
            for i, v in enumerate(self.recipe.digests)
        }
        raw = bytes(self._io_digests.cpu().numpy())
        ends = [
            raw[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i in range(len(raw) // DIGEST_BYTES)
        ]
        return outputs, digests, ends, self._kept(outputs)

    def _execute(self) -> None:
        self._runs += 1
        if self.device.type != "cuda":
            with np.errstate(all="ignore"):
                self._launch_all()
        elif self._runs == 1:  # compiles kernels, which must not happen while recording
            with self._torch.cuda.device(self.device):
                self._launch_all()
        else:
            with self._torch.cuda.device(self.device):
                if self._graph is None:
                    graph = self._torch.cuda.CUDAGraph()
                    self._torch.cuda.synchronize()
                    with self._torch.cuda.graph(graph):
                        self._launch_all()
                    self._graph = graph
                self._graph.replay()

    def _launch_all(self) -> None:
        for run in self._bound:
            run()

    def _kept(self, outputs: Sequence[Any]) -> dict[int, Array]:
        types = self.graph.value_types()
        values = {}
        for v, b in self.recipe.values.items():
            x = (
                outputs[b.index]
                if b.kind == "output"
                else view(self._buffers[b.kind][b.index], types[v])
            )
            values[v] = to_numpy(x).copy()
        return values


def schedule_calls(recipe: Recipe) -> list[KernelCall]:
    """The recipe's calls with the launches made for each."""
    out = []
    for call in recipe.calls:
        tile = recipe.tiles[call.tile] if call.tile >= 0 else None
        k = KernelCall(call.kernel, call.slots, call.params, tile)
        table()[call.kernel](k)
        out.append(k)
    return out


def schedule(recipe: Recipe) -> tuple[list[Launch], int, bool]:
    """(launches of a recipe in order, bytes of scratch memory they share, whether any sets the error
    flag)."""
    calls = schedule_calls(recipe)
    launches = _all(calls)
    errors = any(isinstance(a, Ptr) and a.slot == ERROR for x in launches for a in x.args)
    return launches, max((k.scratch for k in calls), default=0), errors


def _all(calls: Sequence[KernelCall]) -> list[Launch]:
    return [x for c in calls for x in c.launches]


_TORCH = {
    "fp32": "float32",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u32": "uint32",
}
_SIZE = {"fp32": 4, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "u32": 4}


def typed(raw: Any, p: Ptr) -> Any:
    """Bytes seen as the element type of a pointer argument."""
    import torch

    size = _SIZE[p.dtype]
    rest = raw[p.offset :]
    return rest[: rest.numel() // size * size].view(getattr(torch, _TORCH[p.dtype]))


def view(raw: Any, t: TensorType) -> Any:
    """The first bytes of a buffer as a tensor of a type."""
    return raw[: t.nbytes].view(torch_dtype(t.dtype)).reshape(t.dims)
