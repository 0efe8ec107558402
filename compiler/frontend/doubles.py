"""float64 that follows from constants alone: computed at capture; a program holds only what comes of it.

Operations that IEEE-754 rounds exactly are torch's own. Functions are computed to 100 decimal digits and
rounded to the nearest float64, where torch's last bit depends on the machine's library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall
from ree.compiler.frontend.torch_types import to_numpy, to_torch
from ree.compiler.ir import Kind, Ref
from ree.kernels import opdef

MOST_EXACT, MOST_FUNCTION = 1 << 22, 1 << 16  # elements

EXACT = {
    "add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Scalar", "mul.Tensor", "mul.Scalar",
    "div.Tensor", "div.Scalar", "reciprocal", "sqrt", "square", "neg", "abs", "floor", "ceil", "trunc",
    "round", "sign", "maximum", "minimum", "clamp", "relu", "where.self", "eq.Tensor", "eq.Scalar",
    "ne.Tensor", "ne.Scalar", "lt.Tensor", "lt.Scalar", "le.Tensor", "le.Scalar", "gt.Tensor", "gt.Scalar",
    "ge.Tensor", "ge.Scalar", "_to_copy", "full", "full_like", "zeros", "zeros_like", "ones", "ones_like",
    "eye", "scalar_tensor", "view", "reshape", "_unsafe_view", "permute", "transpose.int", "t", "expand",
    "unsqueeze", "squeeze.dim", "squeeze.dims", "squeeze", "slice.Tensor", "select.int", "repeat", "clone",
    "alias", "detach", "contiguous", "lift_fresh_copy", "flip", "roll", "tril", "triu", "cat", "stack",
    "diagonal", "index_select", "masked_fill.Scalar",
}  # fmt: skip
FUNCTIONS = ("exp", "expm1", "log", "log1p", "sin", "cos", "tan", "tanh", "atan", "sinh", "cosh")


class Double(NamedTuple):
    """A float64 tensor that is known at capture."""

    value: torch.Tensor


def concerns(imp: Importer, node: torch.fx.Node, name: str) -> bool:
    """Whether a call has a float64 result, or a float64 constant among its arguments."""
    val = node.meta.get("val")
    known = any(isinstance(imp.env.get(a.name), Double) for a in node.all_input_nodes)
    return known or (isinstance(val, torch.Tensor) and val.dtype is torch.float64)


def fold(imp: Importer, node: torch.fx.Node, name: str) -> Any:
    """The call's result: a Double, or a constant of the program if it is of another type."""
    val = node.meta["val"]
    values = {a.name: _known(imp, imp.env[a.name]) for a in node.all_input_nodes}
    if not all(isinstance(v, torch.Tensor | int) for v in values.values()):
        if not isinstance(val, torch.Tensor) or val.dtype is torch.float64:
            raise RefusedCall("float64 computed from an input or a weight: expected float32")
        return _beside(imp, node, name)
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda a: values[a.name])
    y = _computed(node.target, name, args, kwargs)
    if y.shape != val.shape or y.dtype is not val.dtype:
        raise RefusedCall(f"expected {val.dtype} {list(val.shape)}, got {y.dtype} {list(y.shape)}")
    if y.dtype is torch.float64:
        return Double(y)
    return imp.builder.const(np.array(to_numpy(y.contiguous())))


def _computed(f: Any, name: str, args: Any, kwargs: Any) -> torch.Tensor:
    most = max((a.numel() for a in args if isinstance(a, torch.Tensor)), default=0)
    if name in EXACT and kwargs.get("alpha", 1) == 1 and most <= MOST_EXACT:
        return torch.as_tensor(f(*args, **kwargs))
    if most > MOST_FUNCTION:
        raise RefusedCall(f"{most} float64 constants: expected at most {MOST_FUNCTION}")
    if name.startswith("arange"):
        start, end, step = (*args, 1)[:3] if len(args) > 1 else (0, args[0], 1)
        n = max(int(np.ceil((end - start) / step)), 0)
        return torch.tensor(start + np.arange(n, dtype=np.float64) * step, dtype=torch.float64)
    if name.startswith("pow"):
        return _nearest("power", *(torch.as_tensor(a, dtype=torch.float64) for a in args))
    if name in FUNCTIONS:
        return _nearest(name, torch.as_tensor(args[0], dtype=torch.float64))
    raise RefusedCall(
        "an operation on float64 constants that is not among those computed at capture"
    )


def _nearest(name: str, *tensors: torch.Tensor) -> torch.Tensor:
    """A function of every element, rounded once."""
    import mpmath  # type: ignore[import-untyped]  # torch needs it, through sympy

    f: Callable[..., Any] = getattr(mpmath, name)
    with mpmath.workdps(100):
        wide = torch.broadcast_tensors(*tensors)
        rows = zip(*(x.flatten().tolist() for x in wide), strict=True)
        found = []
        for row in rows:
            try:
                y = f(*map(mpmath.mpf, row))
            except (ValueError, ZeroDivisionError) as e:
                raise RefusedCall(
                    f"{name} of {', '.join(map(str, row))} as a float64 constant"
                ) from e
            if not isinstance(y, mpmath.mpf) or not all(map(np.isfinite, row)):
                raise RefusedCall(f"{name} of {', '.join(map(str, row))} as a float64 constant")
            found.append(float(y))
    return torch.tensor(found, dtype=torch.float64).reshape(wide[0].shape)


def _beside(imp: Importer, node: torch.fx.Node, name: str) -> Any:
    """A call on float32 values in which a float64 constant of rank 0 is a number, as in torch."""

    def argument(a: torch.fx.Node) -> Any:
        x = imp.env[a.name]
        if not isinstance(x, Double):
            return x
        if x.value.dim():
            raise RefusedCall("float64 constants beside float32 values: expected float32")
        return x.value.item()

    if name not in ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor"):
        raise RefusedCall("a float64 constant beside float32 values")
    args = [argument(a) if isinstance(a, torch.fx.Node) else a for a in node.args]
    return IMPORTERS[name](imp, *args, **node.kwargs)


def _known(imp: Importer, x: Any) -> Any:
    """A value as a tensor if it follows from constants alone; otherwise None."""
    if isinstance(x, Double):
        return x.value
    if not isinstance(x, Ref):
        return x
    array = _constant(imp, x)
    return None if array is None else to_torch(np.array(array))


def _constant(imp: Importer, x: Ref) -> Any:
    if x.kind is Kind.CONST:
        return imp.builder.consts[x.index].array()
    if x.kind is not Kind.VALUE:
        return None
    node = next(n for n in reversed(imp.builder.nodes) if n.first <= x.index)
    if not all(t.is_static and t.numel <= MOST_EXACT for t in node.results):
        return None
    sources = [_constant(imp, s) for s in node.sources]
    if any(s is None for s in sources):
        return None
    try:
        types = tuple(imp.type(s) for s in node.sources)
        bound = opdef.bind(node.op, types, node.attr_map, {})
    except (ValueError, TypeError):
        return None
    reference = opdef.get(node.op).reference
    assert reference is not None
    return reference(sources, bound)[x.index - node.first]
