"""Reverse-mode differentiation on the intermediate representation.

A rule says, for one operator, the gradient of each source as nodes of the same graph, so a backward pass
has the order, the kernels and the dispute of any other program. Nodes are visited in reverse program
order; contributions to one value are added in the order in which they are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

from ree.compiler.frontend.importer import Importer
from ree.compiler.ir import Kind, Node, Ref
from ree.kernels.types import DType, TensorType

FLOATS = (DType.F32, DType.F16, DType.BF16)


@dataclass(frozen=True)
class Piece:
    """A gradient that is zero but for elements start .. of one axis."""

    value: Ref
    dim: int
    start: int


Thunk = Callable[[], Ref | Piece]
Rule = Callable[["Site"], Sequence[Thunk | None]]

RULES: dict[str, Rule] = {}
CONSTANT: set[str] = (
    set()
)  # operators whose result does not vary with their sources, almost everywhere
REFUSED: set[str] = {"digamma", "linear_i8"}  # operators that no rule differentiates


def gradient(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of one or more operators; TypeError if one has a rule already."""

    def wrap(f: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise TypeError(f"two gradient rules for {name}")
            RULES[name] = f
        return f

    return wrap


class NoGradient(Exception):
    """An operator between the loss and a parameter that cannot be differentiated as used."""


class Site:
    """One operator to be differentiated: its sources, results and the gradients of its results."""

    def __init__(self, m: Importer, node: Node, grads: Sequence[Ref | None]) -> None:
        self.m, self.node, self.grads = m, node, tuple(grads)
        self.sources = m.rules[node.value][0] if node.value in m.rules else node.sources
        self.attrs: dict[str, Any] = dict(node.attrs)

    @property
    def x(self) -> Ref:
        return self.sources[0]

    @property
    def y(self) -> Ref:
        return self.node.value

    @property
    def dy(self) -> Ref:
        """Gradient of the first result."""
        g = self.grads[0]
        return g if g is not None else self.zeros(self.m.type(self.y))

    def op(self, name: str, *sources: Ref | float, **attrs: Any) -> Ref:
        """Append an operator; floats become scalar constants."""
        refs = [s if isinstance(s, Ref) else self.m.scalar(float(s), DType.F32) for s in sources]
        return self.m.add(name, *refs, **attrs)

    def mul(self, a: Ref | float, b: Ref | float) -> Ref:
        return self.op("mul", a, b)

    def dims(self, x: Ref) -> tuple[int, ...]:
        return self.m.type(x).dims

    def zeros(self, t: TensorType) -> Ref:
        value: Any = 0.0 if t.dtype in FLOATS else 0
        return self.m.add("full", shape=t.shape, value=value, dtype=t.dtype)

    def fit(self, g: Ref, shape: tuple[int, ...]) -> Ref:
        """g summed over the axes along which a source of `shape` was broadcast."""
        have = self.dims(g)
        if have == shape:
            return g
        lead = len(have) - len(shape)
        if lead and have[lead:] == shape:
            rows = self.m.view(g, (prod(have[:lead]), *shape))
            return self.m.add("sum", rows, dim=0, keepdim=False)
        axes = tuple(i for i, d in enumerate(have)
                     if i < lead or (shape[i - lead] == 1 and d != 1))  # fmt: skip
        return self.m.view(self.m.reduce("sum", g, axes, False) if axes else g, shape)

    def restore(self, g: Ref, dim: int, keepdim: bool) -> Ref:
        """The gradient of a reduction, with the reduced axis back as one of size 1."""
        shape = list(self.dims(self.x))
        shape[dim] = 1
        return g if keepdim else self.m.view(g, tuple(shape))


def backward(m: Importer, loss: Ref, wanted: Sequence[Ref], start: int = 0) -> list[Ref | None]:
    """Gradients of a scalar f32 value with respect to sources; None where it does not depend on one.

    Nodes are appended to m's builder; `start` is the first node of the forward pass. Values in
    `m.stopped` count as constants, those in `m.rules` have rules of their own. NoGradient names the
    operator that cannot be differentiated.
    """
    nodes = m.builder.nodes[start:]
    active = set(wanted)
    for n in nodes:
        own = m.rules.get(n.value)
        if (n.op in CONSTANT and own is None) or n.value in m.stopped:
            continue
        if any(s in active for s in (own[0] if own else n.sources)):
            active.update(
                Ref(Kind.VALUE, n.first + i) for i, t in enumerate(n.results) if t.dtype in FLOATS
            )
    seed = m.scalar(1.0, DType.F32)
    found: dict[Ref, list[Ref | Piece]] = {loss: [seed]}
    for n in reversed(nodes):
        results = [Ref(Kind.VALUE, n.first + i) for i in range(len(n.results))]
        if not any(r in found and r in active for r in results):
            continue
        sources, rule = m.rules.get(n.value, (n.sources, RULES.get(n.op)))
        if not any(s in active for s in sources):
            continue
        m.builder.origin = replace(n.origin, name=f"{n.origin.name}.grad")
        where = f"{n.op} at {n.origin.location or n.origin.name or 'unknown line'}"
        if rule is None:
            raise NoGradient(f"{where} has no gradient")
        site = Site(m, n, [_total(m, r, found.pop(r)) if r in found else None for r in results])
        for s, thunk in zip(sources, rule(site), strict=True):
            if s not in active:
                continue
            if thunk is None:
                raise NoGradient(f"{where} has no gradient for this source")
            g = thunk()
            if isinstance(g, Ref) and m.type(g).shape != m.type(s).shape:
                raise AssertionError(f"gradient of {where}: {m.type(g)} for {m.type(s)}")
            found.setdefault(s, []).append(g)
    return [_total(m, w, found[w]) if w in found else None for w in wanted]


def _total(m: Importer, source: Ref, parts: list[Ref | Piece]) -> Ref:
    """The sum of what was found, in order; pieces of one axis that do not overlap are put side by side
    first, at the place of the first of them."""
    dims = m.type(source).dims
    todo = list(parts)
    total: Ref | None = None
    while todo:
        part = todo.pop(0)
        if isinstance(part, Piece):
            dim, beside = part.dim, [part]
            for other in [p for p in todo if isinstance(p, Piece) and p.dim == dim]:
                ends = [(p.start, p.start + m.type(p.value).dims[dim]) for p in (*beside, other)]
                if all(a[1] <= b[0] for a, b in pairwise(sorted(ends))):
                    beside.append(other)
                    todo.remove(other)
            part = _joined(m, dims, dim, sorted(beside, key=lambda p: p.start))
        total = part if total is None else _sum(m, total, part)
    assert total is not None  # something was found
    return total


def _joined(m: Importer, dims: tuple[int, ...], dim: int, pieces: list[Piece]) -> Ref:
    """Pieces side by side along an axis, zeros in the gaps."""
    rest, at = [], 0
    t = m.type(pieces[0].value)

    def gap(n: int) -> Ref:
        return m.add("full", shape=(*dims[:dim], n, *dims[dim + 1 :]), value=0.0, dtype=t.dtype)

    for p in pieces:
        if p.start > at:
            rest.append(gap(p.start - at))
        rest.append(p.value)
        at = p.start + m.type(p.value).dims[dim]
    if at < dims[dim]:
        rest.append(gap(dims[dim] - at))
    while len(rest) > 1:  # a node has four sources
        rest = [m.add("cat", *rest[i : i + 4], dim=dim) if len(rest[i : i + 4]) > 1 else rest[i]
                for i in range(0, len(rest), 4)]  # fmt: skip
    return rest[0]


def _sum(m: Importer, a: Ref, b: Ref) -> Ref:
    dtype = m.type(a).dtype
    return m.cast(m.add("add", m.as_float(a), m.as_float(b)), dtype)
