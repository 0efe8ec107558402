"""The calls of a captured graph, imported one by one; what is not supported is refused with its lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from ree.compiler.frontend.aten import (  # noqa: F401  (they register importers)
    basic,
    calls,
    conv,
    distance,
    experts,
    fourier,
    grid,
    index,
    math,
    places,
    pool,
    random,
    recurrent,
    reduce,
    resize,
    sampling,
    scalar,
    scan,
    segments,
    shape,
    spaces,
)
from ree.compiler.frontend.aten.pairs import COMPLEX64, PAIRED, Pair, has_pair, zeros
from ree.compiler.frontend.branches import LOOPS, import_branches, is_branch
from ree.compiler.frontend.doubles import Double, concerns, fold
from ree.compiler.frontend.effects import CHECKS
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall
from ree.compiler.frontend.operand_types import (
    HALVES,
    SPACES,
    meeting,
    operands_asked,
    stays_wide,
    taken,
)
from ree.compiler.frontend.origins import origin_of
from ree.compiler.frontend.source_lines import used_at
from ree.compiler.frontend.structure import CONSTANTS
from ree.compiler.frontend.torch_symbols import TorchSymbols, tensor_type
from ree.compiler.frontend.torch_types import dtype_of
from ree.compiler.frontend.watch import at
from ree.compiler.ir import Ref
from ree.errors import CaptureError, UnsupportedError
from ree.kernels.ops.casts import WIDE
from ree.kernels.types import DType, TensorType


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
                f"the model returns complex numbers, made at {origin_of(out).location or 'unknown line'}",
                "return torch.view_as_real of them",
            )
        if isinstance(out, CONSTANTS):
            continue  # part of the structure
        if isinstance(out, torch.fx.Node) and isinstance(imp.env[out.name], Double):
            raise CaptureError(
                f"the model returns float64{at(used_at(out))}", "return float32: x.float()"
            )
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
        imp.builder.origin = origin_of(node)
        if node.op == "get_attr":
            imp.env[node.name] = getattr(module, str(node.target))
        elif is_branch(node):
            try:
                imp.env[node.name] = import_branches(imp, node, branch)
            except RefusedCall as e:
                problems.append(f"cond at {origin_of(node).location or 'unknown line'}: {e}")
                imp.env[node.name] = _zeros(imp, node.meta.get("val"), symbols)
        elif node.op == "call_function":
            _call(imp, node, symbols, problems)
        elif node.op == "output":
            outputs = node.args[0]
    return outputs


def _unsupported(problems: list[str]) -> UnsupportedError:
    problems = list(dict.fromkeys(problems))
    return UnsupportedError(
        f"{len(problems)} operator call(s) are not supported as used", tuple(problems)
    )


def _refuse_unsupported(module: torch.fx.GraphModule) -> None:
    """One error that lists every unsupported operator with the source lines it came from."""
    found: dict[str, list[str]] = {}
    graphs = [m.graph for m in module.modules() if isinstance(m, torch.fx.GraphModule)]
    for node in (n for g in graphs for n in g.nodes):
        if node.op != "call_function" or isinstance(node.meta.get("val"), SIZES) or is_branch(node):
            continue
        name = _target(node)
        if name not in IMPORTERS and name not in PAIRED and name not in CHECKS:
            found.setdefault(name, []).append(origin_of(node).location or "unknown line")
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
    name = _target(node)
    widen = name not in MOVES and name not in OF_BYTES
    if name in CHECKS:
        return
    if isinstance(val, SIZES) and name not in IMPORTERS:
        try:
            imp.env[node.name] = _of_sizes(val, symbols)
        except CaptureError as e:
            if problems:  # the operator with a shape that depends on data is among them
                raise _unsupported(problems) from e
            raise CaptureError(
                f"{e.message}, at {origin_of(node).location or 'unknown line'}", e.hint
            ) from e
        return
    if concerns(imp, node, name):
        try:
            imp.env[node.name] = fold(imp, node, name)
        except (RefusedCall, RuntimeError, TypeError) as e:
            problems.append(f"{name} at {origin_of(node).location or 'unknown line'}: {e}")
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
            if isinstance(x, NotAnInteger):
                raise RefusedCall(
                    f"{x.what} is used as a number; write it with tensors: torch.tensor(size)"
                )
            return _widened(imp, x) if widen else x
        if isinstance(a, list | tuple):
            return tuple(resolve(x) for x in a)
        if a is torch.complex64:
            return COMPLEX64
        if isinstance(a, torch.dtype):
            dtype = dtype_of(a)
            if dtype is None:
                raise RefusedCall(f"dtype {a}")
            return dtype if name in CASTS else WIDE.get(dtype, dtype)
        return a

    try:
        if isinstance(val, torch.Tensor) and val.device.type == "meta":
            raise RefusedCall("its result is on the meta device, and has no elements")
        if name == "as_strided":
            _laid_out(node.args[0])
        args = [operand(i, a) for i, a in enumerate(node.args)]
        kwargs = {k: operand(-1, v) if k == "alpha" else resolve(v) for k, v in node.kwargs.items()}
        asked = next((a for a in (*node.args, *node.kwargs.values()) if a in HALVES), None)
        if asked is not None and name not in CASTS:
            # torch takes operands to the half type before it sums, multiplies or takes exponentials
            for i in operands_asked(name, node.args):
                if isinstance(args[i], Ref):
                    args[i] = imp.as_float(imp.cast(args[i], cast(DType, dtype_of(asked))))
                elif name.startswith(SPACES):
                    args[i] = taken(args[i], asked, name)
        call = _importer(name, has_pair(*args, *kwargs.values()))
        result = _narrowed(imp, call(imp, *args, **kwargs), val)
        imp.env[node.name] = result
        _check_type(imp, node, result, symbols)
    except (RefusedCall, ValueError, KeyError, TypeError) as e:
        problems.append(f"{name} at {origin_of(node).location or 'unknown line'}: {e}")
        imp.env[node.name] = _zeros(imp, val, symbols)


class NotAnInteger:
    """A number made of sizes that the program does not compute; what torch.export asserts may need it."""

    def __init__(self, what: str) -> None:
        self.what = what


def _of_sizes(val: Any, symbols: TorchSymbols) -> Any:
    """A number that is computed from sizes. CaptureError."""
    if isinstance(val, bool | torch.SymBool):
        return NotAnInteger("a comparison of sizes")
    if isinstance(val, float | torch.SymFloat):
        return NotAnInteger("a fraction of a size")
    return symbols.dim(val)


def _importer(name: str, on_pairs: bool) -> Callable[..., Any]:
    """The importer of a call with or without complex values among its arguments."""
    if on_pairs and name in PAIRED:
        return PAIRED[name]
    if on_pairs:
        raise RefusedCall("not supported on complex numbers")
    return IMPORTERS[name] if name in IMPORTERS else PAIRED[name]


# these move elements of any type; others compute on f32, i64 and bool, and their results are rounded to
# the type that torch gives them
MOVES = {
    "view", "reshape", "_unsafe_view", "permute", "transpose.int", "t", "expand", "unsqueeze", "squeeze.dim",
    "squeeze.dims", "squeeze", "slice.Tensor", "select.int", "split_with_sizes", "split.Tensor", "chunk",
    "getitem", "<built-in function getitem>", "repeat", "clone", "alias", "detach", "contiguous",
    "lift_fresh_copy", "embedding", "index.Tensor", "gather", "view.dtype",
}  # fmt: skip
OF_BYTES = {"_int_mm"}  # computes on 8-bit integers as they are


# results that are no tensors
SIZES = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
# straight to the type asked for: i32 saturates, i64 would be cut
CASTS = {"_to_copy", "to.dtype", "view.dtype"}


def _laid_out(base: Any) -> None:
    """as_strided reads the memory of its base: Refused unless that is its elements in order."""
    val = base.meta.get("val")
    symbolic = any(not isinstance(d, int) for d in val.shape)
    if symbolic or not val.is_contiguous() or val.storage_offset() != 0:
        raise RefusedCall(
            "as_strided of a tensor that is not contiguous from the start of its memory"
        )


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
        return imp.zeros(tensor_type(val, "", symbols))
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
            raise RefusedCall(
                f"expected {want.text if want else val.dtype} of rank {val.dim()}, got {t}"
            )
        for have, d in zip(t.shape, val.shape, strict=True):
            expected = symbols.dim(d)
            if isinstance(have, int) and isinstance(expected, int) and have != expected:
                raise RefusedCall(f"expected shape {tuple(val.shape)}, got {t}")


def _target(node: torch.fx.Node) -> str:
    return str(node.target).removeprefix("aten.").removesuffix(".default")
