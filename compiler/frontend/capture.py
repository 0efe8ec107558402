"""Capture: a torch module becomes an IR graph through torch.export."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import ConstantArgument, OutputKind

from ree.compiler import legal
from ree.compiler.frontend.aten.pairs import Pair, view_as_complex
from ree.compiler.frontend.cumulative_norms import cumulative_norms
from ree.compiler.frontend.doubles import Double
from ree.compiler.frontend.export import MUTATIONS, Exported, export, without_gradients
from ree.compiler.frontend.follow import refuse_lazy
from ree.compiler.frontend.importer import Importer
from ree.compiler.frontend.nesting import examples_of, structure_of
from ree.compiler.frontend.nodes import import_nodes
from ree.compiler.frontend.quiet import one_at_a_time
from ree.compiler.frontend.source_lines import returned_at, used_at
from ree.compiler.frontend.structure import Structure
from ree.compiler.frontend.torch_symbols import TorchSymbols, tensor_type
from ree.compiler.frontend.torch_types import dtype_of, to_numpy
from ree.compiler.frontend.watch import INPUT, at
from ree.compiler.ir import Graph, Ref
from ree.compiler.passes.canonical import canonicalise
from ree.errors import CaptureError, UnsupportedError
from ree.float_mode import clean_floats
from ree.kernels.canonical import canonical
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType


@dataclass(frozen=True)
class Captured:
    """A graph with the names and data that belong beside it."""

    graph: Graph
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    weight_names: tuple[str, ...]
    weights: tuple[Array, ...]
    state_names: tuple[str, ...]
    initial: tuple[Array, ...]
    structure: Structure
    examples: tuple[torch.Tensor, ...]


def capture(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    rearranged: bool = False,
    states: bool = False,
) -> Captured:
    """The canonical graph of a module called with example inputs.

    rearranged: an example was not contiguous and has been made so; code that reads layouts is refused.
    states: buffers and parameters that forward changes are states; they are refused otherwise.
    Raises CaptureError when torch.export fails, UnsupportedError when operators are missing.
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    refuse_lazy(module)
    with one_at_a_time(), without_gradients(module) as required, cumulative_norms(module):
        exported = export(
            module, args, kwargs, dynamic_shapes, rearranged=rearranged, required=required
        )
    program = exported.program
    structure = structure_of(program, module.forward)
    examples = examples_of(args, kwargs, program.call_spec.in_spec)
    return _import(exported, module, structure, examples, states)


@clean_floats
def _import(
    exported: Exported,
    module: torch.nn.Module,
    structure: Structure,
    examples: Sequence[torch.Tensor],
    states: bool,
) -> Captured:
    program = exported.program
    signature, graph = program.graph_signature, program.graph
    changed = {s.target: i for i, s in enumerate(signature.output_specs) if s.kind in MUTATIONS}
    fixed = {s.arg.name: s.arg.value for s in signature.input_specs
             if isinstance(s.arg, ConstantArgument)}  # fmt: skip
    imp = Importer()
    symbols = TorchSymbols(program)
    buffers = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = dict(signature.inputs_to_lifted_tensor_constants)
    used = {n.name for n in graph.nodes if n.op == "placeholder" and n.users}
    data = {**dict(program.state_dict), **dict(program.constants)}
    may_fold = {
        k: v for k, v in {**signature.inputs_to_buffers, **constants}.items() if v not in changed
    }
    imp.env.update({name: Double(data[target]) for name, target in may_fold.items()
                    if data[target].dtype is torch.float64})  # fmt: skip
    named = sorted((target, name) for name, target in {**buffers, **constants}.items()
                   if (name in used or target in changed) and name not in imp.env)  # fmt: skip
    given: dict[str, Ref | Pair] = {}
    weights, initial = {}, {}
    place = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    for target, name in named:
        array = to_array(data[target], target, used_at(place[name]))
        t = TensorType(DType.of(array.dtype), array.shape)
        if target in changed and states:
            _must_be_alone(target, data)
            initial[target], ref = array, imp.builder.state(t)
        else:
            weights[target], ref = array, imp.builder.weight(t)
        given[name] = view_as_complex(imp, ref) if data[target].is_complex() else ref
    input_names = []
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in given:
                imp.env[node.name] = given[node.name]
            elif node.name in fixed:
                imp.env[node.name] = fixed[node.name]
            elif node.name not in buffers and node.name not in constants:
                if not isinstance(node.meta.get("val"), torch.Tensor):
                    raise _no_tensor(node)
                imp.env[node.name] = imp.builder.input(
                    tensor_type(node.meta.get("val"), node.name, symbols)
                )
                input_names.append(node.name)
    refs = import_nodes(imp, program, symbols)
    if (changed and not states) or signature.user_inputs_to_mutate:
        raise _changes(exported, module.training, states)
    refs = [*(refs[changed[target]] for target in initial), *refs[len(changed) :]]
    for note in imp.notes:
        warnings.warn(note, UserWarning, stacklevel=4)
    if not refs:
        raise CaptureError(f"the model returns no tensor{at(returned_at(module.forward))}",
                           "return the tensor that it computes")  # fmt: skip
    imp.builder.symbols = symbols.used()
    try:
        g = canonicalise(imp.builder.finish(tuple(refs)))
        legal.check(g)
    except legal.IllegalGraph as e:
        raise UnsupportedError(f"beyond the limits of the contract: {e}", (str(e),)) from e
    outputs = (*(f"new.{target}" for target in initial), *structure.output_names())
    return Captured(g, tuple(input_names), outputs, tuple(weights), tuple(weights.values()), tuple(initial),
                    tuple(initial.values()), structure, tuple(examples))  # fmt: skip


def _changes(exported: Exported, training: bool, states: bool) -> CaptureError:
    """The refusal of a module that changes a tensor which is not its own value."""
    specs = exported.program.graph_signature.output_specs
    kinds = {OutputKind.USER_INPUT_MUTATION} if states else MUTATIONS
    spec = next(s for s in specs if s.kind in kinds)
    of_input = spec.kind is OutputKind.USER_INPUT_MUTATION
    line = exported.changed.get(INPUT if of_input else str(spec.target), "")
    if of_input:
        what = "return the new value instead of assigning it"
    elif training:
        what = (
            "the module is in training mode: call model.eval() first, or compile with states=True"
        )
    else:
        what = "return the new value, or compile with states=True to keep it from run to run"
    return CaptureError(
        f"the model changes {MUTATIONS[spec.kind]} '{spec.target}' in place{at(line)}", what
    )


def _must_be_alone(target: str, data: Mapping[str, torch.Tensor]) -> None:
    """A state has one name: what reads it by another would see the old value."""
    mine = data[target]
    if mine.is_complex():
        raise UnsupportedError(
            f"state '{target}' is complex", (target,), "hold torch.view_as_real of it"
        )
    for name, t in data.items():
        if name != target and t.untyped_storage().data_ptr() == mine.untyped_storage().data_ptr():
            raise CaptureError(
                f"state '{target}' shares its memory with '{name}'", "clone one of them"
            )


def _no_tensor(node: torch.fx.Node) -> CaptureError:
    """The refusal of what a graph reads and is neither a tensor nor a number."""
    val = node.meta.get("val")
    kind = getattr(val, "script_class_name", type(val).__name__).rpartition(".")[2]
    return CaptureError(
        f"{kind} '{node.name}' is used{at(used_at(node))}", "inputs must be tensors"
    )


def to_array(t: torch.Tensor, name: str, line: str = "") -> Array:
    """A weight as an array of its own, NaNs canonical; UnsupportedError for a type we lack."""
    if t.dtype is torch.complex64:
        t = torch.view_as_real(t.resolve_conj())
    if dtype_of(t.dtype) is None or t.layout is not torch.strided:
        raise UnsupportedError(
            f"weight '{name}'{at(line)} has dtype {t.dtype}",
            (name,),
            "convert the model with model.float()",
        )
    array = np.array(to_numpy(t.detach().contiguous()))
    return canonical(array)
