"""Importers of products grouped by expert, as mixtures of experts are exported: rows sorted by
expert, and where each expert's rows end.

An element is the contraction of its row with its expert's column, whatever the other rows are.
"""

from __future__ import annotations

from typing import Any

from ree.compiler.frontend.aten.reduce import sum_of
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, aten
from ree.compiler.ir import Kind, Ref
from ree.kernels.types import Dim, DType

MOST_DENSE = 32  # experts of which all are computed; of more, each row gathers its own


@aten("transformers.grouped_mm_fallback")
def _grouped(m: Importer, x: Ref, w: Ref, ends: Ref) -> Ref:
    """x [S,K] times w [E,K,N], row s by the expert e with ends[e-1] <= s < ends[e]; +0 beyond the last."""
    rows, experts, width = m.type(x).shape[0], m.type(w).shape[0], m.type(w).shape[2]
    if not isinstance(experts, int) or experts == 0:
        raise RefusedCall(f"{experts} experts")
    expert, inside = _expert_of_row(m, m.cast(ends, DType.I64), rows, experts)
    if experts <= MOST_DENSE:
        y = _all_experts(m, x, w)
        y = m.add("index", y, m.add("iota", n=rows, start=0, step=1), expert)
    else:
        own = m.add("index", w, expert)
        y = m.add("matmul", m.view(x, (rows, 1, m.type(x).shape[1])), own)
        y = m.view(y, (rows, width))
    zero = m.scalar(0.0, DType.F32)
    return m.add("where", m.view(inside, (rows, 1)), y, zero)


def _expert_of_row(m: Importer, ends: Ref, rows: Dim, experts: int) -> tuple[Ref, Ref]:
    """The number of ends at or before each row, at most the last expert; and whether it was below that."""
    row = m.view(m.add("iota", n=rows, start=0, step=1), (rows, 1))
    passed = m.add("ge", row, m.view(ends, (1, experts)))
    count = sum_of(m, passed, (1,), False)
    last = m.scalar(experts - 1, DType.I64)
    return m.add("minimum", count, last), m.add("le", count, last)


def _all_experts(m: Importer, x: Ref, w: Ref) -> Ref:
    """x [S,K] times every expert's w [E,K,N], as one product: [S,E,N]."""
    experts, k, width = m.type(w).shape
    rows = _untransposed(m, w) or m.transpose(w, 1, 2)
    y = m.add("linear", x, m.view(rows, (experts * width, k)))
    return m.view(y, (m.type(x).shape[0], experts, width))


def _untransposed(m: Importer, w: Ref) -> Ref | None:
    """The source of which w is the transpose of the last two axes."""
    if w.kind is Kind.VALUE:
        node = next(n for n in reversed(m.builder.nodes) if n.first <= w.index)
        if node.op == "permute" and node.attr_map["dims"] == (0, 2, 1):
            return node.sources[0]
    return None


@aten("_grouped_mm")
def _grouped_mm(m: Importer, x: Ref, w: Ref, ends: Ref | None = None, bias: Ref | None = None,
                out_dtype: DType | None = None) -> Ref:  # fmt: skip
    if (m.type(x).rank, m.type(w).rank) != (2, 3) or ends is None or bias is not None:
        raise RefusedCall("grouped_mm: expected rows [S,K], weights [E,K,N], offsets and no bias")
    return _grouped(m, x, w, ends)  # type: ignore[no-any-return]


@aten("empty_permuted")
def _empty_permuted(m: Importer, sizes: Any, order: Any, **how: Any) -> Ref:
    """Its layout in memory is nobody's concern."""
    return IMPORTERS["empty.memory_format"](m, sizes, **how)  # type: ignore[no-any-return]
