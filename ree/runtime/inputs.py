"""Inputs as given become arrays of the program's types, in canonical bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ree import _core
from ree.compiler.frontend.torch_types import dtype_of, is_tensor, to_numpy
from ree.compiler.ir import Graph
from ree.errors import InputError
from ree.kernels.canonical import canonical
from ree.kernels.opdef import Array
from ree.kernels.ops.casts import cast_function, store
from ree.kernels.scalar.emit_numpy import evaluate as evaluate_scalar
from ree.kernels.types import DType, TensorType, affine, evaluate
from ree.runtime import settings


def array_of(
    name: str, value: Any, t: TensorType, threads: int | None = None, scan: bool = True
) -> Array:
    """A contiguous array of the input's dtype in canonical bits, but f32 only if `scan`; may be the caller's
    memory."""
    a = plain_array("input", name, value, t)
    if a.dtype != t.dtype.numpy:
        a = _converted(name, value, a, t)
    if not a.flags.c_contiguous:
        a = np.ascontiguousarray(a)
    return canonical_array(a, threads) if scan or t.dtype is not DType.F32 else a


def tensors_among(values: Sequence[Any]) -> tuple[bool, str | None]:
    """Whether any is a torch tensor, and the first device that is not the CPU."""
    any_tensor, home = False, None
    for v in values:
        if is_tensor(v):
            any_tensor = True
            if home is None and v.is_cuda:
                home = str(v.device)
    return any_tensor, home


def check_tensor(kind: str, name: str, value: Any, t: TensorType) -> None:
    """InputError for a tensor that is not dense, of no dtype that programs have, or without data."""
    if dtype_of(value.dtype) is None or str(value.layout) != "torch.strided" or value.is_nested:
        what = "nested" if value.is_nested else value.layout
        raise InputError(f"{kind} '{name}': expected {t}, got {value.dtype}, {what}")
    if value.is_meta:
        raise InputError(
            f"{kind} '{name}': expected {t}, got a tensor on the meta device, without data"
        )
    try:
        has_data = value.data_ptr() or not value.numel() or value._is_zerotensor()
    except RuntimeError as e:  # of a transform, or of shapes alone
        raise InputError(f"{kind} '{name}': expected {t}, got a tensor without data") from e
    if not has_data:  # its array would be memory of somebody else
        raise InputError(f"{kind} '{name}': expected {t}, got a tensor without data of its own")


def plain_array(kind: str, name: str, value: Any, t: TensorType) -> Array:
    """A tensor, or what NumPy takes, as an array of its own dtype; may be the caller's memory. InputError,
    which calls it a `kind` that should have type t."""
    try:
        if is_tensor(value):
            check_tensor(kind, name, value, t)
            return to_numpy(value)
        return np.asarray(value)
    except InputError:
        raise
    except Exception as e:  # what is no array says so in many ways
        said = (str(e).splitlines() or [type(e).__name__])[0][:100]
        raise InputError(f"{kind} '{name}': expected {t}, got no array: {said}") from e


def canonical_array(a: Array, threads: int | None = None) -> Array:
    """A contiguous array in canonical bits; itself if it has no others."""
    if a.dtype != np.float32:
        return canonical(a)
    pool = settings.pool(threads) if a.size > _core.SCAN_ALONE else None
    return canonical(a) if _core.has_nan(a, pool) else a


def _converted(name: str, value: Any, a: Array, t: TensorType) -> Array:
    """Python's numbers as an array of another dtype; InputError for anything else."""
    if isinstance(value, bool | int | float | list | tuple) and a.dtype.kind in "bif":
        return _exactly(name, a, t)
    try:
        dtype = DType.of(a.dtype)
    except ValueError as e:
        raise InputError(f"input '{name}': expected {t}, got dtype {a.dtype}") from e
    raise InputError(f"input '{name}': expected dtype {t.dtype.text}, got {dtype.text}")


def _exactly(name: str, a: Array, t: TensorType) -> Array:
    """Python's numbers as t: rounded to a float type; InputError if an integer type cannot hold one."""
    if t.dtype is DType.BF16:
        with np.errstate(over="ignore"):
            return store(
                evaluate_scalar(cast_function(DType.F32, t.dtype), a.astype(np.float32)), t.dtype
            )
    with np.errstate(all="ignore"):
        y = a.astype(t.dtype.numpy)
        if t.dtype not in (DType.F32, DType.F16):
            lost = np.nonzero((y.astype(a.dtype) != a).reshape(-1))[0]
            if lost.size:
                value = a.reshape(-1)[lost[0]]
                raise InputError(f"input '{name}': expected {t}, got {value}, which it cannot hold")
    return y


def bind_symbols(graph: Graph, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, int]:
    """Values of the symbols that the input shapes imply; InputError where they do not fit."""
    env: dict[str, int] = {}
    if not graph.symbols and all(
        a.shape == t.shape for t, a in zip(graph.inputs, arrays, strict=True)
    ):
        return env
    for name, t, a in zip(names, graph.inputs, arrays, strict=True):
        if a.ndim != t.rank:
            raise InputError(f"input '{name}': expected {t}, got rank {a.ndim}")
        for d, size in zip(t.shape, a.shape, strict=True):
            form = affine(d)
            if form is None:
                continue
            symbol, factor, more = form
            value, rest = divmod(size - more, factor)
            if rest or value < 0:
                raise InputError(f"input '{name}': expected {t}, got shape {list(a.shape)}")
            if env.setdefault(symbol, value) != value:
                raise InputError(
                    f"input '{name}': expected {t} with {symbol}={env[symbol]}, got shape {list(a.shape)}"
                )
    for s in graph.symbols:
        if not s.low <= env[s.name] <= s.high:
            raise InputError(f"dimension {s.name}: expected {s.low} to {s.high}, got {env[s.name]}")
    for name, t, a in zip(names, graph.inputs, arrays, strict=True):
        want = tuple(evaluate(d, env) for d in t.shape)
        if a.shape != want:
            raise InputError(f"input '{name}': expected shape {list(want)}, got {list(a.shape)}")
    return env
