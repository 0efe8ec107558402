"""What of a program the contracts could not decide."""

from __future__ import annotations

import numpy as np

from ree.compiler.ir import Graph
from ree.compiler.layout import MAX_SOURCES
from ree.kernels import opdef
from ree.kernels.opdef import Bound, Form
from ree.kernels.types import DType

MAX_ELEMENTS = 2**31 - 1


def obstacles(graph: Graph) -> list[str]:
    """What of a bound program the contracts could not decide; a job with any of it is refused."""
    out = []
    typer = graph.typer()
    for n in graph.nodes:
        form = opdef.get(n.op).form
        if not form.number:
            out.append(f"{n.op}: no rule on chain")
        if len(n.sources) > MAX_SOURCES:
            out.append(f"{n.op}: {len(n.sources)} sources, at most {MAX_SOURCES}")
        b = Bound(n.op, tuple(typer(s) for s in n.sources), n.results, dict(n.attrs))
        if any(t.numel > MAX_ELEMENTS for t in (*b.inputs, *b.outputs)):
            out.append(f"{n.op}: more than {MAX_ELEMENTS} elements")
        if form in (Form.CREATE, Form.PAD) and "value" in b.attrs and not _plain(b):
            out.append(f"{n.op}: a value of another type than the elements, or NaN")
    return sorted(set(out))


def _plain(b: Bound) -> bool:
    """Whether the attribute `value` is encoded as an element of the result is."""
    value, t = b.attrs["value"], b.out.dtype
    if t is DType.F32:
        return isinstance(value, float) and not np.isnan(value)
    if t is DType.BOOL:
        return value in (0, 1) and not isinstance(value, float)
    return t in (DType.I64, DType.I32) and isinstance(value, int)
