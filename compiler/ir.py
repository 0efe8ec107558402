"""The intermediate representation: a small SSA graph with typed values and symbolic dimensions.

A program's identity is the SHA-256 of its canonical text; the text has no names, no source lines,
no device. Sources of a node are references (kind, index); only operator results are values.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ree.kernels import opdef
from ree.kernels.canonical import canonical
from ree.kernels.numerics import CONTRACT
from ree.kernels.opdef import Array, AttrValue
from ree.kernels.schema import check_attrs
from ree.kernels.types import Dim, DType, TensorType, check_extents


class Kind(enum.IntEnum):
    """Where a source comes from; the number is its code in node records."""

    VALUE = 0
    WEIGHT = 1
    STATE = 2
    INPUT = 3
    CONST = 4


PREFIX = {
    Kind.VALUE: "%", Kind.WEIGHT: "@w", Kind.STATE: "@s", Kind.INPUT: "@i",
    Kind.CONST: "@c",
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Ref:
    """A source: value v, or entry `index` of the weights, inputs, constants, ..."""

    kind: Kind
    index: int

    def __str__(self) -> str:
        return f"{PREFIX[self.kind]}{self.index}"


@dataclass(frozen=True)
class Origin:
    """Where in the user's program a node comes from; never part of the program's identity."""

    name: str = ""  # the name the capture gave it
    target: str = ""  # the framework operator
    location: str = ""  # file:line
    code: str = ""  # the source line
    module: str = ""  # path of the module that was running


@dataclass(frozen=True)
class Node:
    """An operator applied to sources; its results are values first, first + 1, ..."""

    op: str
    sources: tuple[Ref, ...]
    attrs: tuple[tuple[str, AttrValue], ...]
    results: tuple[TensorType, ...]
    first: int
    origin: Origin = field(default_factory=Origin, compare=False)

    @property
    def attr_map(self) -> Mapping[str, AttrValue]:
        return dict(self.attrs)

    @property
    def value(self) -> Ref:
        return Ref(Kind.VALUE, self.first)


@dataclass(frozen=True)
class Symbol:
    """A symbolic dimension and its inclusive range."""

    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Const:
    """A tensor that is part of the program."""

    type: TensorType
    data: bytes  # little-endian, row-major

    def array(self) -> Array:
        return np.frombuffer(self.data, self.type.dtype.numpy).reshape(self.type.dims)

    @classmethod
    def of(cls, x: Array) -> Const:
        """The constant of an array, in canonical bits."""
        x = canonical(np.ascontiguousarray(x).reshape(x.shape))
        return cls(TensorType(DType.of(x.dtype), x.shape), x.tobytes())


@dataclass(frozen=True)
class Graph:
    """A program: symbols, interface types, constants, nodes in execution order, outputs.

    With states, the program is a step: output i is what state i becomes, and further outputs follow.
    """

    symbols: tuple[Symbol, ...]
    inputs: tuple[TensorType, ...]
    weights: tuple[TensorType, ...]
    consts: tuple[Const, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Ref, ...]
    contract: str = CONTRACT
    states: tuple[TensorType, ...] = ()

    @property
    def n_values(self) -> int:
        return sum(len(n.results) for n in self.nodes)

    def value_types(self) -> list[TensorType]:
        """Types of the values, in program order."""
        return [t for n in self.nodes for t in n.results]

    def type_of(self, ref: Ref) -> TensorType:
        """Type of a source; IndexError if it does not exist."""
        match ref.kind:
            case Kind.VALUE:
                return self.value_types()[ref.index]
            case Kind.WEIGHT:
                return self.weights[ref.index]
            case Kind.STATE:
                return self.states[ref.index]
            case Kind.INPUT:
                return self.inputs[ref.index]
            case Kind.CONST:
                return self.consts[ref.index].type
        raise IndexError(f"source {ref} is not part of a {self.contract} graph")

    def typer(self) -> Typer:
        """A faster `type_of` for repeated use."""
        return Typer(self)

    def producers(self) -> list[Node]:
        """The node that defines each value."""
        return [n for n in self.nodes for _ in n.results]

    def program_hash(self) -> bytes:
        """SHA-256 of the canonical text."""
        from ree.compiler.text import print_graph

        return hashlib.sha256(print_graph(self).encode()).digest()


class Typer:
    """Types of a graph's sources."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._values = graph.value_types()

    def __call__(self, ref: Ref) -> TensorType:
        if ref.kind is Kind.VALUE:
            return self._values[ref.index]
        return self._graph.type_of(ref)


class Builder:
    """Builds a graph node by node; shapes are inferred, never stated."""

    def __init__(self, contract: str = CONTRACT) -> None:
        self.contract = contract
        self.symbols: list[Symbol] = []
        self.inputs: list[TensorType] = []
        self.weights: list[TensorType] = []
        self.states: list[TensorType] = []
        self.consts: list[Const] = []
        self.nodes: list[Node] = []
        self.values: list[TensorType] = []
        self.origin = Origin()
        self._const_index: dict[Const, Ref] = {}

    def input(self, t: TensorType) -> Ref:
        self.inputs.append(t)
        return Ref(Kind.INPUT, len(self.inputs) - 1)

    def weight(self, t: TensorType) -> Ref:
        self.weights.append(t)
        return Ref(Kind.WEIGHT, len(self.weights) - 1)

    def state(self, t: TensorType) -> Ref:
        self.states.append(t)
        return Ref(Kind.STATE, len(self.states) - 1)

    def const(self, x: Array | Const) -> Ref:
        """A constant tensor; equal constants share one entry."""
        c = x if isinstance(x, Const) else Const.of(np.asarray(x))
        if c not in self._const_index:
            self._const_index[c] = Ref(Kind.CONST, len(self.consts))
            self.consts.append(c)
        return self._const_index[c]

    def type_of(self, ref: Ref) -> TensorType:
        match ref.kind:
            case Kind.VALUE:
                return self.values[ref.index]
            case Kind.WEIGHT:
                return self.weights[ref.index]
            case Kind.STATE:
                return self.states[ref.index]
            case Kind.INPUT:
                return self.inputs[ref.index]
            case _:
                return self.consts[ref.index].type

    def add(self, op: str, *sources: Ref, **attrs: AttrValue) -> Ref:
        """Append a node and return its first result; ValueError when the shape rule refuses."""
        return self.add_node(op, sources, attrs).value

    def add_node(
        self,
        op: str,
        sources: tuple[Ref, ...],
        attrs: Mapping[str, AttrValue],
        origin: Origin | None = None,
    ) -> Node:
        attrs = {k: math.nan if v != v else v for k, v in attrs.items()}  # NaNs become canonical
        typed = opdef.typed(op)
        if typed is None:
            raise KeyError(op)
        results = typed.infer([self.type_of(s) for s in sources], attrs)
        node = Node(op, sources, tuple(sorted(attrs.items())), results, len(self.values),
                    origin or self.origin)  # fmt: skip
        self.nodes.append(node)
        self.values.extend(results)
        return node

    def add_again(self, n: Node, place: dict[Ref, Ref], origin: Origin | None = None) -> None:
        """Append a node of another graph; `place` has those of its sources that are others here, and takes its
        results."""
        sources = tuple(place.get(s, s) for s in n.sources)
        made = self.add_node(n.op, sources, n.attr_map, origin or n.origin)
        for i in range(len(n.results)):
            place[Ref(Kind.VALUE, n.first + i)] = Ref(Kind.VALUE, made.first + i)

    def finish(self, outputs: tuple[Ref, ...]) -> Graph:
        return Graph(tuple(self.symbols), tuple(self.inputs), tuple(self.weights),
                     tuple(self.consts), tuple(self.nodes), outputs, self.contract,
                     tuple(self.states))  # fmt: skip


def bind_graph(graph: Graph, env: Mapping[str, Dim]) -> Graph:
    """The graph with symbols replaced and every result type inferred again."""
    from ree.compiler.text import print_attrs

    values: list[TensorType] = []
    nodes = []
    known: dict[tuple[object, ...], opdef.Bound] = {}  # most nodes of a large graph are alike
    inputs = tuple(t.bind(env) for t in graph.inputs)
    for t in inputs:
        check_extents(t)
    partial = Graph((), inputs, graph.weights, graph.consts, (), (), graph.contract, graph.states)
    for n in graph.nodes:
        types = [values[s.index] if s.kind is Kind.VALUE else partial.type_of(s) for s in n.sources]
        typed = opdef.typed(n.op)
        if typed is None:
            raise KeyError(n.op)
        check_attrs(n.op, typed.closed_schema, n.attr_map)  # their text may look alike
        key = (n.op, tuple(types), print_attrs(n))
        if key not in known:
            known[key] = opdef.bind(n.op, types, n.attr_map, env)
        b = known[key]
        attrs = tuple(sorted(b.attrs.items())) if n.attrs else ()
        nodes.append(Node(n.op, n.sources, attrs, b.outputs, n.first, n.origin))
        values.extend(b.outputs)
    left = tuple(s for s in graph.symbols if s.name not in env)
    return Graph(left, inputs, graph.weights, graph.consts, tuple(nodes), graph.outputs,
                 graph.contract, graph.states)  # fmt: skip


def bound_node(node: Node, typer: Typer) -> opdef.Bound:
    """The operator view of a node of a bound graph."""
    return opdef.Bound(node.op, tuple(typer(s) for s in node.sources), node.results, node.attr_map)


def users(graph: Graph) -> Iterator[tuple[Ref, Node]]:
    """(source, node) for every use of every source."""
    for n in graph.nodes:
        for s in n.sources:
            yield s, n
