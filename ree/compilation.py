"""Compiling: from a torch module to a Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ree.compiler.frontend.capture import capture
from ree.compiler.frontend.torch_types import to_numpy
from ree.errors import CaptureError, InputError, UnsupportedError, public
from ree.program import Names, Program


@public
def compile(
    module: Any,
    example_inputs: Sequence[Any] | Mapping[str, Any] | Any,
    dynamic_shapes: Any = None,
    *,
    states: bool = False,
) -> Program:
    """Compile a torch module.

    example_inputs: a tuple of positional arguments, a dict of keyword arguments, or one tensor.
    Tensors may be nested in them as torch.export takes it; numbers, text, True, False and None are
    part of the program. What the module returns, the program returns, in the same structure.
    dynamic_shapes: as torch.export's. states: what forward changes in place (a cache, a counter) is a state
    of the program, which runs in a `Session`; without it such a module is refused. Raises CaptureError,
    UnsupportedError.
    """
    import torch
    from torch.utils._pytree import tree_leaves, tree_map

    if not isinstance(module, torch.nn.Module):
        raise CaptureError(f"expected a torch.nn.Module, got {type(module).__name__}",
                           "put a function into the forward of a module")  # fmt: skip
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, Mapping | tuple | list):
        raise InputError(f"example inputs: expected a tuple, a dict or a tensor, got "
                         f"{type(example_inputs).__name__}")  # fmt: skip
    if isinstance(example_inputs, Mapping):
        args: tuple[Any, ...] = ()
        kwargs = dict(example_inputs)
    else:
        args, kwargs = tuple(example_inputs), {}
    # the examples' memory layout must not become a condition on later inputs
    given = (args, kwargs)
    args, kwargs = tree_map(dense, given)
    rearranged = any(
        a is not b for a, b in zip(tree_leaves((args, kwargs)), tree_leaves(given), strict=True)
    )
    captured = capture(module, args, kwargs, dynamic_shapes, rearranged, states)
    kept = zip(captured.input_names, captured.examples, strict=True)
    examples = {name: to_numpy(t.contiguous()) for name, t in kept}
    names = Names(captured.input_names, captured.output_names, captured.weight_names,
                  captured.state_names, captured.structure)  # fmt: skip
    return Program(captured.graph, names, captured.weights, examples, captured.initial)


def dense(x: Any) -> Any:
    """A tensor as a contiguous one, anything else as it is; UnsupportedError unless dense and real."""
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
