"""Compiling: from a torch module to a Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ree.compiler.capture import capture
from ree.compiler.torch_types import to_numpy
from ree.errors import UnsupportedError
from ree.program import Names, Program


def compile(
    module: Any,
    example_inputs: Sequence[Any] | Mapping[str, Any] | Any,
    dynamic_shapes: Any = None,
) -> Program:
    """Compile a torch module.

    example_inputs: a tuple of positional tensors, a dict of keyword tensors, or one tensor.
    dynamic_shapes: as torch.export's. Raises CaptureError, UnsupportedError.
    """
    import torch

    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    if isinstance(example_inputs, Mapping):
        args: tuple[Any, ...] = ()
        kwargs = dict(example_inputs)
    else:
        args, kwargs = tuple(example_inputs), {}
    # the examples' memory layout must not become a condition on later inputs
    args = tuple(_contiguous(a) for a in args)
    kwargs = {k: _contiguous(v) for k, v in kwargs.items()}
    captured = capture(module, args, kwargs, dynamic_shapes)
    given = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
    examples = {
        name: to_numpy(t.contiguous()) for name, t in zip(captured.input_names, given, strict=False)
    }
    names = Names(captured.input_names, captured.output_names, captured.weight_names)
    return Program(captured.graph, names, captured.weights, examples)


def _contiguous(x: Any) -> Any:
    import torch

    if not isinstance(x, torch.Tensor):
        return x
    if x.layout is not torch.strided or x.is_quantized:
        kind = "quantised" if x.is_quantized else str(x.layout)
        raise UnsupportedError(f"an input is {kind}", (), "pass a dense tensor: x.to_dense()")
    if x.is_complex():
        raise UnsupportedError(
            "an input is complex", (),
            "pass torch.view_as_real of it, and call torch.view_as_complex in the model",
        )  # fmt: skip
    return x.contiguous()
