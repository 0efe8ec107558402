"""A trained run as a model: its last state by torch's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ree.errors import InputError
from ree.kernels.opdef import Array

PARAMETER, BUFFER = "parameter.", "buffer."


def torch_tensors(state: Mapping[str, Array]) -> dict[str, Array]:
    """Parameters and buffers of a state by the names that the module has for them."""
    out = {}
    for name, x in state.items():
        for prefix in (PARAMETER, BUFFER):
            if name.startswith(prefix):
                out[name.removeprefix(prefix)] = x
    return out


def load_into(state: Mapping[str, Array], module: Any) -> None:
    """Copy the parameters and buffers of a state into a module; InputError, before anything is changed,
    for a name, shape or dtype that does not fit."""
    import torch

    from ree.compiler.frontend.torch_types import dtype_of, to_torch
    from ree.kernels.types import DType

    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    have = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    found = torch_tensors(state)
    for name, x in found.items():
        if name not in have:
            raise InputError(
                f"the module has no '{name}'", "it must be of the model that was trained"
            )
        t = have[name]
        want = DType.of(x.dtype)
        if tuple(t.shape) != x.shape or dtype_of(t.dtype) is not want:
            raise InputError(f"'{name}': the run has {want.text}{list(x.shape)}, the module "
                             f"{t.dtype}{list(t.shape)}")  # fmt: skip
    with torch.no_grad():
        for name, x in found.items():
            have[name].copy_(to_torch(x))


def run_state(path: Path) -> tuple[dict[str, Array], dict[str, Array], int, str]:
    """(state by name, frozen tensors by name, step, program) of a run's last checkpoint; RunError."""
    from ree.training.directory import RunReader

    run = RunReader(path)
    step = run.nearest(run.steps)
    names = run.step.names
    state = dict(zip(names.states, run.state(step), strict=True))
    return (
        state,
        dict(zip(names.weights, run.step.weights, strict=True)),
        step,
        run.manifest.program,
    )


def run_model(script: Path, state: Mapping[str, Array]) -> tuple[Any, tuple[Any, ...]]:
    """The module of a TRAIN.py and example inputs: example_inputs(), or the first tensor of batch(1)."""
    from ree.training.train_file import TrainFile

    file = TrainFile(script, needs=("model", "batch"))
    if callable(file.names.get("example_inputs")):
        inputs = file.call("example_inputs")
    else:
        batch = file.batch(1)
        inputs = (batch[0] if isinstance(batch, tuple | list) else batch,)
    return file.call("model"), tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
