"""Running on a GPU, or in Triton's interpreter: weights on the device, executables by shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.compiler.frontend.torch_types import dtype_of, to_numpy, to_torch
from ree.compiler.passes.load_time import Prelude, stored_weights
from ree.compiler.plan.planner import plan
from ree.compiler.plan.stored import stored_matrices
from ree.errors import InputError
from ree.kernels import macro
from ree.kernels.gpu.launch import PANEL, table
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.runtime import settings
from ree.runtime.backend import SHAPES, BackendResult, Options, Source
from ree.runtime.cache import LeastRecent
from ree.runtime.gpu_device import find_device, out_of_memory
from ree.runtime.gpu_executable import GpuExecutable
from ree.runtime.hashing import tensor_hash_of
from ree.runtime.inputs import array_of, check_tensor

if TYPE_CHECKING:
    from ree.runtime.ptx_device import PtxDevice


class Gpu:
    """One device, for one program. PlatformError as `find_device`, and where the weights do not fit."""

    def __init__(self, name: str, weights: Sequence[Array]) -> None:
        self.name, self.ptx = name, _ptx(name)
        self.device = find_device("ptx" if self.ptx else name)
        self.weights = [_upload(w, self.device) for w in weights]
        self.packed: dict[Any, Any] = {}
        self.executables: LeastRecent[tuple[object, ...], GpuExecutable] = LeastRecent(SHAPES)
        self._lock = settings.ForkLock()  # runs of one executable share its buffers

    def take(self, source: Source, values: Sequence[Any], options: Options) -> list[Any]:
        for option in ("threads", "isa"):
            if getattr(options, option) is not None:
                raise InputError(f"{option}: has no effect on {self.name}", "leave it out")
        return [_to_tensor(n, v, t, self.device)
                for n, v, t in zip(source.names.inputs, values, source.graph.inputs, strict=True)]  # fmt: skip

    def run(
        self, source: Source, inputs: Sequence[Any], env: Mapping[str, int], options: Options
    ) -> BackendResult:
        with self._lock:
            executable = self.executable(source, env, options)
            outputs, digests, ends, kept = executable.run(inputs)
        types = [*executable.graph.inputs, *map(executable.graph.typer(), executable.graph.outputs)]
        hashes = [tensor_hash_of(t, d) for t, d in zip(types, ends, strict=False)]
        return BackendResult(outputs, hashes, digests, kept)

    def give(self, outputs: Sequence[Any], as_torch: bool, home: str | None) -> tuple[Any, ...]:
        return tuple(x.to(home or "cpu") if as_torch else to_numpy(x) for x in outputs)

    def executable(self, source: Source, env: Mapping[str, int], options: Options) -> GpuExecutable:
        """The compiled code for bound symbols."""
        trace, keep, fuse = options.trace, options.keep, options.fuse

        def make() -> GpuExecutable:
            # matrices that are kept narrow are read so; what else follows from the weights, runs make
            stored = {} if trace == "ops" else stored_matrices(source.graph)
            before = Prelude((), stored)
            whole = trace == "ops" or keep  # each value that a macro stands for is wanted
            graph = source.bound(
                env, before, () if whole else macro.with_kernels() & table().keys()
            )
            recipe = plan(graph, panel=PANEL, hash_values=trace == "ops", keep_values=keep, fuse=fuse,
                          stored=stored_weights(before, len(self.weights)))  # fmt: skip
            return GpuExecutable(
                graph, recipe, self.device, self.weights, self.packed, trace is not None, self.ptx
            )

        return self.executables.get_or_make((source.sizes(env), trace, keep, fuse), make)


def _ptx(name: str) -> PtxDevice | None:
    """Where a device's name says that PTX is executed, what does."""
    if not name.startswith("ptx:"):
        return None
    from ree.runtime.ptx_device import PtxDevice

    return PtxDevice(name)


def _upload(w: Array, device: Any) -> Any:
    import torch

    raw = np.ascontiguousarray(w).reshape(-1).view(np.uint8)
    host = torch.from_numpy(raw if raw.flags.writeable else raw.copy())
    if not host.numel():
        host = torch.zeros(1, dtype=torch.uint8)
    try:
        return host.to(device)
    except torch.OutOfMemoryError as e:
        raise out_of_memory(device, host.numel()) from e


def _to_tensor(name: str, value: Any, t: TensorType, device: Any) -> Any:
    """The input as a contiguous tensor on the device, its dtype checked."""
    import torch

    if not isinstance(value, torch.Tensor):
        return to_torch(array_of(name, value, t)).to(device)
    check_tensor("input", name, value, t)
    if dtype_of(value.dtype) is not t.dtype:
        raise InputError(f"input '{name}': expected {t}, got {value.dtype}")
    value = value.detach().to(device).contiguous()
    if t.dtype in (DType.F16, DType.BF16) and bool(value.isnan().any()):
        value = value.masked_fill(
            value.isnan(), float("nan")
        )  # f32 is made canonical by the recipe
    return value
