"""Capture: a torch module becomes an IR graph through torch.export."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.export.graph_signature import ConstantArgument, OutputKind

from ree.compiler import (  # noqa: F401  (they register importers)
    aten,
    aten_calls,
    aten_conv,
    aten_distance,
    aten_experts,
    aten_grid,
    aten_index,
    aten_math,
    aten_moves,
    aten_places,
    aten_pool,
    aten_random,
    aten_reduce,
    aten_resize,
    aten_scalar,
    aten_scan,
    aten_segments,
    fourier,
    legal,
)
from ree.compiler.branches import LOOPS, import_branches, is_branch
from ree.compiler.doubles import Double, concerns, fold
from ree.compiler.export import MUTATIONS, Exported, export, without_gradients
from ree.compiler.float_mode import clean_floats
from ree.compiler.importer import IMPORTERS, Importer, Refused
from ree.compiler.ir import Graph, Origin, Ref
from ree.compiler.nesting import examples_of, structure_of
from ree.compiler.operand_types import HALVES, meeting, stays_wide, taken
from ree.compiler.pairs import COMPLEX64, PAIRED, Pair, has_pair, view_as_complex, zeros
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.quiet import one_at_a_time
from ree.compiler.structure import CONSTANTS, Structure
from ree.compiler.torch_symbols import TorchSymbols
from ree.compiler.torch_types import TORCH_NAMES, dtype_of, to_numpy
from ree.compiler.watch import INPUT, at, short
from ree.errors import CaptureError, UnsupportedError
from ree.kernels.canonical import canonical
from ree.kernels.casts import WIDE
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
    structure: Structure
    examples: tuple[torch.Tensor, ...]


def capture(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    rearranged: bool = False,
) -> Captured:
    """The canonical graph of a module called with example inputs.

    rearranged: an example was not contiguous and has been made so; code that reads layouts is refused.
    Raises CaptureError when torch.export fails, UnsupportedError when operators are missing.
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    with one_at_a_time(), without_gradients(module):
        exported = export(module, args, kwargs, dynamic_shapes, rearranged=rearranged)
    program = exported.program
    structure = structure_of(program, module.forward)
    examples = examples_of(args, kwargs, program.call_spec.in_spec)
    return _import(exported, module.training, structure, examples)


@clean_floats
def _import(
    exported: Exported, training: bool, structure: Structure, examples: Sequence[torch.Tensor]
) -> Captured:
    program = exported.program
    signature, graph = program.graph_signature, program.graph
    fixed = {s.arg.name: s.arg.value for s in signature.input_specs
             if isinstance(s.arg, ConstantArgument)}  # fmt: skip
    imp = Importer()
    symbols = TorchSymbols(program)
    buffers = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = dict(signature.inputs_to_lifted_tensor_constants)
    used = {n.name for n in graph.nodes if n.op == "placeholder" and n.users}
    data = {**dict(program.state_dict), **dict(program.constants)}
    may_fold = {**signature.inputs_to_buffers, **constants}
    imp.env.update({name: Double(data[target]) for name, target in may_fold.items()
                    if data[target].dtype is torch.float64})  # fmt: skip
    named = sorted((target, name) for name, target in {**buffers, **constants}.items()
                   if name in used and name not in imp.env)  # fmt: skip
    weight_of: dict[str, Ref | Pair] = {}
    weights = []
    for target, name in named:
        array = to_array(data[target], target)
        weights.append(array)
        ref = imp.builder.weight(TensorType(DType.of(array.dtype), array.shape))
        weight_of[name] = view_as_complex(imp, ref) if data[target].is_complex() else ref
    input_names = []
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in weight_of:
                imp.env[node.name] = weight_of[node.name]
            elif node.name in fixed:
                imp.env[node.name] = fixed[node.name]
            elif node.name not in buffers and node.name not in constants:
                imp.env[node.name] = imp.builder.input(
                    _tensor_type(node.meta.get("val"), node.name, symbols)
                )
                input_names.append(node.name)
    refs = import_nodes(imp, program, symbols)
    for spec in signature.output_specs:
        if spec.kind in MUTATIONS:
            what = spec.target if spec.kind is not OutputKind.USER_INPUT_MUTATION else INPUT
            line = exported.changed.get(what, "")
            raise CaptureError(
                f"the model changes {MUTATIONS[spec.kind]} '{spec.target}' in place{at(line)}",
                "the module is in training mode; call model.eval() first" if training
                else "return the new value instead of assigning it",
            )  # fmt: skip
    for note in imp.notes:
        warnings.warn(note, UserWarning, stacklevel=4)
    imp.builder.symbols = symbols.used()
    try:
        g = canonicalise(imp.builder.finish(tuple(refs)))
        legal.check(g)
    except legal.IllegalGraph as e:
        raise UnsupportedError(f"beyond the limits of the contract: {e}", (str(e),)) from e
    return Captured(g, tuple(input_names), structure.output_names(), tuple(t for t, _ in named),
                    tuple(weights), structure, tuple(examples))  # fmt: skip


def import_nodes(
    imp: Importer, program: torch.export.ExportedProgram, symbols: TorchSymbols | None = None
) -> list[Ref]:
    """Append the graph's calls to the importer, whose env has the placeholders; its outputs."""
    _refuse_unsupported(program.graph_module)
    symbols = symbols or TorchSymbols(program)
    problems: list[str] = []
    outputs = _calls(imp, program.graph_module, symbols, problems)
    if problems:
        raise _unsupported(problems)
    refs = []
    for out in outputs:
        if isinstance(out, torch.fx.Node) and isinstance(imp.env[out.name], Pair):
            raise CaptureError(
                f"the model returns complex numbers, made at {_origin(out).location or 'unknown line'}",
                "return torch.view_as_real of them",
            )
        if isinstance(out, CONSTANTS):
            continue  # part of the structure
        if isinstance(out, torch.fx.Node) and isinstance(imp.env[out.name], Double):
            raise CaptureError("the model returns float64", "return float32: x.float()")
        if not isinstance(out, torch.fx.Node) or not isinstance(imp.env[out.name], Ref):
            raise CaptureError("the model returns something that is not a tensor")
        refs.append(imp.env[out.name])
    return refs


def _calls(
    imp: Importer, module: torch.fx.GraphModule, symbols: TorchSymbols, problems: list[str]
) -> Sequence[Any]:
    """Append a graph's calls; the nodes that it returns."""

    def branch(part: torch.fx.GraphModule) -> tuple[Any, ...]:
        return tuple(imp.env[n.name] for n in _calls(imp, part, symbols, problems))

    outputs: Sequence[Any] = ()
    for node in module.graph.nodes:
        imp.builder.origin = _origin(node)
        if node.op == "get_attr":
            imp.env[node.name] = getattr(module, str(node.target))
        elif is_branch(node):
            try:
                imp.env[node.name] = import_branches(imp, node, branch)
            except Refused as e:
                problems.append(f"cond at {_origin(node).location or 'unknown line'}: {e}")
                imp.env[node.name] = _zeros(imp, node.meta.get("val"), symbols)
        elif node.op == "call_function":
            _call(imp, node, symbols, problems)
        elif node.op == "output":
            outputs = node.args[0]
    return outputs


def _unsupported(problems: list[str]) -> UnsupportedError:
    return UnsupportedError(
        f"{len(problems)} operator call(s) are not supported as used", tuple(problems)
    )


def _refuse_unsupported(module: torch.fx.GraphModule) -> None:
    """One error that lists every unsupported operator with the source lines it came from."""
    found: dict[str, list[str]] = {}
    graphs = [m.graph for m in module.modules() if isinstance(m, torch.fx.GraphModule)]
    for node in (n for g in graphs for n in g.nodes):
        if (
            node.op != "call_function"
            or isinstance(node.meta.get("val"), int | torch.SymInt | torch.SymBool)
            or is_branch(node)
        ):
            continue
        name = _target(node)
        if name not in IMPORTERS and name not in PAIRED:
            found.setdefault(name, []).append(_origin(node).location or "unknown line")
    if found:
        items = tuple(
            f"{name} at {', '.join(dict.fromkeys(where))}" for name, where in sorted(found.items())
        )
        raise UnsupportedError(
            f"{len(found)} operator(s) are not supported: {', '.join(sorted(found))}", items,
            "a program has no loops: write out a fixed number of steps" if found.keys() & LOOPS
            else "docs/operators.md lists what is",
        )  # fmt: skip


def _call(imp: Importer, node: torch.fx.Node, symbols: TorchSymbols, problems: list[str]) -> None:
    val = node.meta.get("val")
    if isinstance(val, torch.SymBool):
        imp.env[node.name] = True  # what torch.export asserts about sizes
        return
    if isinstance(val, torch.SymInt | int) and not isinstance(val, bool):
        try:
            imp.env[node.name] = symbols.dim(val)
        except CaptureError as e:
            if problems:  # the operator with a shape that depends on data is among them
                raise _unsupported(problems) from e
            raise
        return
    name = _target(node)
    widen = name not in MOVES
    if name == "_assert_tensor_metadata":
        return
    if concerns(imp, node, name):
        try:
            imp.env[node.name] = fold(imp, node, name)
        except (Refused, RuntimeError, TypeError) as e:
            problems.append(f"{name} at {_origin(node).location or 'unknown line'}: {e}")
            imp.env[node.name] = _zeros(imp, val, symbols)
        return
    meet = meeting(node, name)

    def operand(at: int, a: Any) -> Any:
        if meet is None or (meet in HALVES and stays_wide(name, at, a)):
            return resolve(a)
        if isinstance(a, int | float):
            return taken(a, meet, name)
        val = a.meta.get("val") if isinstance(a, torch.fx.Node) else None
        if not isinstance(val, torch.Tensor) or val.dtype is meet:
            return resolve(a)
        if meet not in HALVES and val.dtype is not torch.int64:  # of rank 0
            return resolve(a)
        return _widened(imp, imp.cast(imp.env[a.name], cast(DType, dtype_of(meet))))

    def resolve(a: Any) -> Any:
        if isinstance(a, torch.fx.Node):
            x = imp.env[a.name]
            return _widened(imp, x) if widen else x
        if isinstance(a, list | tuple):
            return tuple(resolve(x) for x in a)
        if a is torch.complex64:
            return COMPLEX64
        if isinstance(a, torch.dtype):
            dtype = dtype_of(a)
            if dtype is None:
                raise Refused(f"dtype {a}")
            return dtype if name in CASTS else WIDE.get(dtype, dtype)
        return a

    try:
        if name == "as_strided":
            _laid_out(node.args[0])
        args = [operand(i, a) for i, a in enumerate(node.args)]
        kwargs = {k: operand(-1, v) if k == "alpha" else resolve(v) for k, v in node.kwargs.items()}
        call = _importer(name, has_pair(*args, *kwargs.values()))
        result = _narrowed(imp, call(imp, *args, **kwargs), val)
        imp.env[node.name] = result
        _check_type(imp, node, result, symbols)
    except (Refused, ValueError, KeyError, TypeError) as e:
        problems.append(f"{name} at {_origin(node).location or 'unknown line'}: {e}")
        imp.env[node.name] = _zeros(imp, val, symbols)


def _importer(name: str, on_pairs: bool) -> Callable[..., Any]:
    """The importer of a call with or without complex values among its arguments."""
    if on_pairs and name in PAIRED:
        return PAIRED[name]
    if on_pairs:
        raise Refused("not supported on complex numbers")
    return IMPORTERS[name] if name in IMPORTERS else PAIRED[name]


# these move elements of any type; others compute on f32, i64 and bool, and their results are rounded to
# the type that torch gives them
MOVES = {
    "view", "reshape", "_unsafe_view", "permute", "transpose.int", "t", "expand", "unsqueeze", "squeeze.dim",
    "squeeze.dims", "squeeze", "slice.Tensor", "select.int", "split_with_sizes", "split.Tensor", "chunk",
    "getitem", "<built-in function getitem>", "repeat", "clone", "alias", "detach", "contiguous",
    "lift_fresh_copy", "embedding", "index.Tensor", "gather", "view.dtype",
}  # fmt: skip


CASTS = {
    "_to_copy",
    "to.dtype",
    "view.dtype",
}  # straight to the type asked for: i32 saturates, i64 would be cut


def _laid_out(base: Any) -> None:
    """as_strided reads the memory of its base: Refused unless that is its elements in order."""
    val = base.meta.get("val")
    symbolic = any(not isinstance(d, int) for d in val.shape)
    if symbolic or not val.is_contiguous() or val.storage_offset() != 0:
        raise Refused("as_strided of a tensor that is not contiguous from the start of its memory")


def _widened(imp: Importer, x: Any) -> Any:
    if isinstance(x, tuple) and not isinstance(x, Pair):
        return tuple(_widened(imp, y) for y in x)
    if not isinstance(x, Ref):
        return x
    dtype = imp.type(x).dtype
    y = imp.cast(x, WIDE.get(dtype, dtype))
    imp.narrow[y] = dtype
    return y


def _narrowed(imp: Importer, x: Any, val: Any) -> Any:
    """A result as the type that torch says it has."""
    if isinstance(x, tuple) and not isinstance(x, Pair) and isinstance(val, list | tuple):
        return tuple(_narrowed(imp, y, v) for y, v in zip(x, val, strict=True))
    if not isinstance(x, Ref) or not isinstance(val, torch.Tensor):
        return x
    want = dtype_of(val.dtype)
    return imp.cast(x, want) if want in WIDE and imp.type(x).dtype is WIDE[want] else x


def _zeros(imp: Importer, val: Any, symbols: TorchSymbols) -> Any:
    """What stands for a refused call's result, so that later calls can be checked too."""
    if isinstance(val, tuple | list):
        return tuple(_zeros(imp, v, symbols) for v in val)
    try:
        if val.dtype is torch.complex64:
            return zeros(imp, tuple(symbols.dim(d) for d in val.shape))
        return imp.zeros(_tensor_type(val, "", symbols))
    except (CaptureError, AttributeError, ValueError):  # a type that we lack, or beyond the limits
        return imp.zeros(TensorType(DType.F32, ()))


def _check_type(imp: Importer, node: torch.fx.Node, result: Any, symbols: TorchSymbols) -> None:
    """The importer's result must have the dtype and rank that torch says it has."""
    val = node.meta.get("val")
    if isinstance(result, Pair):
        for part in result:
            _check_part(imp, val, part, symbols, DType.F32)
    elif isinstance(result, Ref):
        _check_part(imp, val, result, symbols, dtype_of(getattr(val, "dtype", None)))


def _check_part(
    imp: Importer, val: Any, result: Ref, symbols: TorchSymbols, want: DType | None
) -> None:
    if isinstance(val, torch.Tensor):
        t = imp.builder.type_of(result)
        if t.dtype is not want or t.rank != val.dim():
            raise Refused(
                f"expected {want.text if want else val.dtype} of rank {val.dim()}, got {t}"
            )
        for have, d in zip(t.shape, val.shape, strict=True):
            expected = symbols.dim(d)
            if isinstance(have, int) and isinstance(expected, int) and have != expected:
                raise Refused(f"expected shape {tuple(val.shape)}, got {t}")


def _target(node: torch.fx.Node) -> str:
    return str(node.target).removeprefix("aten.").removesuffix(".default")


def to_array(t: torch.Tensor, name: str) -> Array:
    """A weight as an array of its own, NaNs canonical; UnsupportedError for a type we lack."""
    if t.dtype is torch.complex64:
        t = torch.view_as_real(t.resolve_conj())
    if dtype_of(t.dtype) is None or t.layout is not torch.strided:
        raise UnsupportedError(
            f"weight '{name}' has dtype {t.dtype}", (name,), "convert the model with model.float()"
        )
    array = np.array(to_numpy(t.detach().contiguous()))
    return canonical(array)


def _tensor_type(val: Any, name: str, symbols: TorchSymbols) -> TensorType:
    if not isinstance(val, torch.Tensor):
        raise CaptureError(f"input '{name}' is not a tensor", "inputs must be tensors")
    dtype = dtype_of(val.dtype)
    if dtype is None:
        raise UnsupportedError(
            f"'{name}' has unsupported dtype {val.dtype}", (name,),
            "supported: " + ", ".join(TORCH_NAMES.values()),
        )  # fmt: skip
    return TensorType(dtype, tuple(symbols.dim(d) for d in val.shape))


# a line of code follows, if the source can be read
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (.+)(?:\n(?!\s*File ")\s*(.*))?')


def _origin(node: torch.fx.Node) -> Origin:
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    location = code = ""
    if frames:
        path, line, _, code = frames[-1]
        location = f"{short(path)}:{line}"
    stack = node.meta.get("nn_module_stack") or {}
    module = next(reversed(stack.values()))[0] if stack else ""
    return Origin(node.name, str(node.target), location, code.strip()[:200], str(module))
