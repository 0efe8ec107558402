"""The operators whose disputes the contracts decide, and by which form; contracts/forms.vy has the same."""

from __future__ import annotations

import enum

import numpy as np

from ree.compiler.ir import Graph, Kind
from ree.kernels import opdef
from ree.kernels.opdef import Bound
from ree.kernels.types import DType


class Form(enum.IntEnum):
    """How an element comes about; the number stands in states."""

    NONE = 0
    POINTWISE = 1
    CONTRACTION = 2
    SUM = 3
    EXTREME = 4
    ARGUMENT = 5
    CUMSUM = 6
    SORT = 7
    MOVED = 8
    TABLE = 9
    CAT = 10
    PAD = 11
    CREATE = 12
    SCATTER = 13
    COMPOSITE = 14
    OUTPUT = 15


_BY_NAME = {
    "amax": Form.EXTREME, "amin": Form.EXTREME, "argmax": Form.ARGUMENT, "argmin": Form.ARGUMENT,
    "cumsum": Form.CUMSUM, "sort": Form.SORT, "embedding": Form.TABLE, "index": Form.TABLE,
    "gather": Form.TABLE, "cat": Form.CAT, "pad": Form.PAD, "scatter": Form.SCATTER,
    "scatter_add": Form.SCATTER, "index_put": Form.SCATTER, "index_add": Form.SCATTER, "sum": Form.SUM,
    "full": Form.CREATE, "iota": Form.CREATE,
}  # fmt: skip
_BY_FORM = {
    opdef.Form.POINTWISE: Form.POINTWISE, opdef.Form.CONTRACTION: Form.CONTRACTION,
    opdef.Form.MOVE: Form.MOVED, opdef.Form.COMPOSITE: Form.COMPOSITE,
}  # fmt: skip
MAX_SOURCES = 4
MAX_ELEMENTS = 2**31 - 1


def form(op: str) -> Form:
    """The form of an operator; NONE if disputes about it cannot be decided."""
    return _BY_NAME.get(op) or _BY_FORM.get(opdef.get(op).form) or Form.NONE


def obstacles(graph: Graph) -> list[str]:
    """What of a bound program the contracts could not decide; a job with any of it is refused."""
    out = []
    typer = graph.typer()
    for n in graph.nodes:
        if form(n.op) is Form.NONE:
            out.append(f"{n.op}: no rule on chain")
        if len(n.sources) > MAX_SOURCES:
            out.append(f"{n.op}: {len(n.sources)} sources, at most {MAX_SOURCES}")
        b = Bound(n.op, tuple(typer(s) for s in n.sources), n.results, dict(n.attrs))
        if any(t.numel > MAX_ELEMENTS for t in (*b.inputs, *b.outputs)):
            out.append(f"{n.op}: more than {MAX_ELEMENTS} elements")
        if n.op in ("full", "pad") and not _plain(b):
            out.append(f"{n.op}: a value of another type than the elements")
    return sorted(set(out))


def _plain(b: Bound) -> bool:
    """Whether the attribute `value` is encoded as an element of the result is."""
    value, t = b.attrs["value"], b.out.dtype
    if t is DType.F32:
        return isinstance(value, float) and not np.isnan(value)
    if t is DType.BOOL:
        return value in (0, 1) and not isinstance(value, float)
    return t in (DType.I64, DType.I32) and isinstance(value, int)


__all__ = ["Form", "Kind", "form", "obstacles"]
