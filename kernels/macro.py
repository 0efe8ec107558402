"""Macro operators: a node that stands for a list of ordinary nodes, whose number its sizes may decide.

A program holds the node; once its symbols are bound, its expansion takes its place, and no instance, record
or dispute knows of it. So a macro has no opcode and no form. It may have a kernel, with the bytes of its
expansion, for runs of which nobody asks what lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ree.kernels import opdef
from ree.kernels.opdef import Bound, Infer, Lowering, Sample
from ree.kernels.schema import AttrValue, Schema

S = TypeVar("S")  # a source of a node, whatever names it


class Expander(Protocol[S]):
    """What `expand` may ask for one bound node."""

    node: Bound

    @property
    def sources(self) -> Sequence[S]: ...

    def add(self, op: str, *sources: S, **attrs: AttrValue) -> S:
        """Append an ordinary operator; its first result."""

    def result(self, first: S, i: int) -> S:
        """Result i of the operator whose first result this is."""

    def at(self, step: int | None) -> None:
        """Nodes from here on are of this step, or of none, for people to read."""


@dataclass(frozen=True)
class Macro:
    """A macro operator of the contract.

    rule: its meaning in one line. schema: the attributes. most_sources: how many sources it has at most.
    infer: shape rule, symbolic. count: nodes of the expansion. expand: appends them and names the results,
    each the result of one of them. samples: cases. lower: emits kernel calls that give the same bytes, if any.
    """

    name: str
    rule: str
    schema: Schema
    most_sources: int
    infer: Infer
    count: Callable[[Bound], int]
    expand: Callable[[Expander[Any]], tuple[Any, ...]]
    samples: Callable[[], Iterable[Sample]]
    lower: Callable[[Lowering], None] | None = None

    def __post_init__(self) -> None:
        if list(self.schema) != sorted(self.schema):
            raise TypeError(f"macro '{self.name}': the schema's names are not in order")
        object.__setattr__(self, "infer", opdef.within_limits(self.name, self.schema, self.infer))

    @property
    def closed_schema(self) -> Schema:
        return self.schema


class Counter:
    """An expander that only counts."""

    def __init__(self, node: Bound) -> None:
        self.node, self.sources, self.made = node, range(-len(node.inputs), 0), 0

    def add(self, op: str, *sources: int, **attrs: AttrValue) -> int:
        self.made += 1
        return self.made

    def result(self, first: int, i: int) -> int:
        return first

    def at(self, step: int | None) -> None:
        """Steps have no names here."""


_BY_NAME: dict[str, Macro] = {}


def register(m: Macro) -> Macro:
    """Add a macro; TypeError if its name is taken."""
    opdef.register_typed(m)
    _BY_NAME[m.name] = m
    return m


def names() -> tuple[str, ...]:
    """Names of all macros, in order."""
    return tuple(sorted(_BY_NAME))


def get(name: str) -> Macro | None:
    """The macro called `name`, or None."""
    return _BY_NAME.get(name)


def with_kernels() -> frozenset[str]:
    """Names of the macros that kernels run as they are."""
    return frozenset(name for name, m in _BY_NAME.items() if m.lower is not None)


def lowering_of(name: str) -> Callable[[Lowering], None] | None:
    """What emits the kernel calls of an operator or macro, if it has kernels of its own."""
    m = get(name)
    return opdef.get(name).lower if m is None else m.lower
