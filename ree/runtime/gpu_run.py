"""One run of a program on a GPU: inputs in, outputs and trace out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ree.compiler.frontend.torch_types import dtype_of, to_torch
from ree.compiler.plan.planner import plan
from ree.errors import InputError
from ree.kernels.gpu.launch import PANEL
from ree.kernels.types import DType, TensorType
from ree.program import SHAPES, Program, Result
from ree.runtime.cache import LeastRecent
from ree.runtime.gpu import GpuExecutable, find_device, out_of_memory
from ree.runtime.hashing import tensor_hash_of
from ree.runtime.inputs import array_of


@dataclass
class OnDevice:
    """What a program keeps on one device."""

    device: Any
    weights: list[Any]
    packed: dict[Any, Any] = field(default_factory=dict)
    executables: LeastRecent[tuple[object, ...], GpuExecutable] = field(
        default_factory=lambda: LeastRecent(SHAPES)
    )


def run_on(
    program: Program, values: Sequence[Any], device: str, trace: str | None, fuse: bool, keep: bool
) -> Result:
    """Run on `device`; outputs are torch tensors there. Errors as `Program.run` and `find_device`."""
    with program.lock:
        state = _state(program, device)
        inputs = [
            _to_tensor(n, v, t, state.device)
            for n, v, t in zip(program.names.inputs, values, program.graph.inputs, strict=True)
        ]
        env = program.bind_symbols(inputs)
        executable = _executable(program, state, env, trace, fuse, keep)
        outputs, digests, ends, kept = executable.run(inputs)
        made = None
        if trace is not None:
            types = list(map(executable.graph.typer(), executable.graph.outputs))
            types = [*executable.graph.inputs, *types]
            hashes = [tensor_hash_of(t, d) for t, d in zip(types, ends, strict=False)]
            n = len(inputs)
            made = program.make_trace(env, hashes[:n], hashes[n : len(types)],
                                      digests if trace == "ops" else None)  # fmt: skip
    return Result(tuple(outputs), made, kept)


def _state(program: Program, name: str) -> OnDevice:
    device = find_device(name)
    key = f"{name}/{device}"
    if key not in program.on_device:
        import torch

        weights = []
        for w in program.weights:
            raw = np.ascontiguousarray(w).reshape(-1).view(np.uint8)
            host = torch.from_numpy(raw if raw.flags.writeable else raw.copy())
            if not host.numel():
                host = torch.zeros(1, dtype=torch.uint8)
            try:
                weights.append(host.to(device))
            except torch.OutOfMemoryError as e:
                raise out_of_memory(device, host.numel()) from e
        program.on_device[key] = OnDevice(device, weights)
    state: OnDevice = program.on_device[key]
    return state


def _executable(
    program: Program, state: OnDevice, env: Any, trace: str | None, fuse: bool, keep: bool
) -> GpuExecutable:
    def make() -> GpuExecutable:
        recipe = plan(graph, panel=PANEL, hash_values=trace == "ops", keep_values=keep, fuse=fuse)
        return GpuExecutable(
            graph, recipe, state.device, state.weights, state.packed, trace is not None
        )

    graph = program.bound(env)
    return state.executables.get_or_make((program.sizes(env), trace, fuse, keep), make)


def _to_tensor(name: str, value: Any, t: TensorType, device: Any) -> Any:
    """The input as a contiguous tensor on the device, its dtype checked."""
    import torch

    if not isinstance(value, torch.Tensor):
        return to_torch(array_of(name, value, t)).to(device)
    if value.is_sparse or dtype_of(value.dtype) is not t.dtype:
        raise InputError(f"input '{name}': expected {t}, got {value.dtype}")
    value = value.detach().to(device).contiguous()
    if t.dtype in (DType.F16, DType.BF16) and bool(value.isnan().any()):
        value = value.masked_fill(
            value.isnan(), float("nan")
        )  # f32 is made canonical by the recipe
    return value
