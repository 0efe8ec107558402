"""Conformance: every operator's samples as one-node programs, and digests of their results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ree.compiler.ir import Builder, Graph
from ree.kernels import opdef, registry  # noqa: F401
from ree.kernels.opdef import Array, Sample
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program


@dataclass(frozen=True)
class Case:
    """A sample of an operator as a program, with the reference's results."""

    op: str
    sample: Sample
    program: Program
    expected: tuple[Array, ...]


def graph_of(op: str, sample: Sample) -> Graph:
    """The program that applies op to its inputs and returns all results."""
    b = Builder()
    sources = tuple(b.input(TensorType(DType.of(x.dtype), x.shape)) for x in sample.inputs)
    node = b.add_node(op, sources, sample.attrs)
    from ree.compiler.ir import Kind, Ref

    return b.finish(tuple(Ref(Kind.VALUE, node.first + i) for i in range(len(node.results))))


def program_of(g: Graph) -> Program:
    """A program of a graph without weights; inputs are in0, in1, ..."""
    names = Names(
        tuple(f"in{i}" for i in range(len(g.inputs))),
        tuple(f"out{i}" for i in range(len(g.outputs))),
        (),
    )
    return Program(g, names, ())


def cases(op: str) -> Iterator[Case]:
    """All samples of an operator."""
    for sample in opdef.get(op).samples():
        yield Case(op, sample, program_of(graph_of(op, sample)),
                   opdef.apply(op, sample.inputs, sample.attrs))  # fmt: skip


def digest(results: Iterator[tuple[Array, ...]]) -> str:
    """SHA-256 over results, each with its dtype and shape."""
    h = hashlib.sha256()
    for arrays in results:
        for x in arrays:
            h.update(f"{x.dtype.str}{list(x.shape)}".encode())
            h.update(x.tobytes())
    return h.hexdigest()


def reference_digest(op: str) -> str:
    """Digest of the reference over all samples of an operator."""
    return digest(opdef.apply(op, s.inputs, s.attrs) for s in opdef.get(op).samples())
