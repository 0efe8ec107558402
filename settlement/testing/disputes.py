"""Disputes over single operators, played by the rules and on chain, for tests and figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ree.compiler.instance import Instance
from ree.compiler.ir import Builder, Node
from ree.kernels import opdef, registry
from ree.kernels.opdef import Form, Sample
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.evidence import Evidence
from ree.settlement.testing.referee import play
from ree.verde.fault import Fault, Liar
from ree.verde.game import Game
from ree.verde.moves import State
from ree.verde.party import Party, Run
from ree.verde.scope import ROW, VALUES, RowScope


def samples(many: int) -> Iterator[tuple[str, Sample]]:
    """About `many` samples of each operator that has leaves of its own."""
    for name in registry.names():
        op = opdef.get(name)
        found = [s for s in op.samples() if s.inputs or op.form is Form.CREATE]
        if op.form is not Form.MOVE:
            for s in found[:: max(1, len(found) // many)]:
                yield name, s


def program_of(name: str, sample: Sample) -> tuple[Program, Node]:
    """A program that calls one operator; its result goes through two more, so that lies spread."""
    b = Builder()
    refs = [b.input(TensorType(DType.of(x.dtype), x.shape)) for x in sample.inputs]
    node = b.add_node(name, tuple(refs), sample.attrs)
    outs = []
    for i, t in enumerate(node.results):
        ref = type(node.value)(node.value.kind, node.first + i)
        flat = b.add("view", ref, shape=(t.numel,))
        if t.dtype is DType.F32 and t.numel:
            flat = b.add("neg", flat)
        outs.append(flat)
    g = b.finish(tuple(outs))
    names = Names(
        tuple(f"i{i}" for i in range(len(refs))), tuple(f"o{i}" for i in range(len(outs))), ()
    )
    return Program(g, names, ()), node


def honest_run(program: Program, inputs: tuple[opdef.Array, ...]) -> tuple[Run, Instance]:
    """The run of a program with all its values, and the instance."""
    instance = program.instance({})
    values = program.run(*inputs, trace="ops", keep_values=True).values
    return Run(instance.graph, inputs, [np.asarray(w) for w in program.weights], values), instance


def dispute(
    run: Run, instance: Instance, value: int, rng: np.random.Generator, flip: int = 1
) -> int:
    """A lie about some operation of a value loses on chain by execution, and loses against the truth.

    Returns how many lies there were; one that vanishes in what follows it is none. AssertionError otherwise.
    """
    element = int(rng.integers(run.scope.type(VALUES, value).numel))
    program = run.scope.row_program(VALUES, value)
    row = None
    if program is None:
        d = run.scope.derivation(VALUES, value, element)
    else:
        inner = RowScope(run.scope, (VALUES, value, element), program)
        nodes = [i for i, n in enumerate(inner.nodes)
                 if opdef.get(n.op).form is not Form.MOVE and n.out.numel]  # fmt: skip
        at = int(rng.choice(nodes))
        row = (at, int(rng.integers(inner.nodes[at].out.numel)))
        d = inner.derivation(ROW, *row)
    evidence = Evidence(Game(run.scope), instance)
    honest = Party(run, instance.digest)
    lies = 0
    for operation in sorted({d.count - 1, int(rng.integers(d.count))}):
        liar = Liar(run, Fault(value, element, operation, flip, row), instance.digest)
        if liar.committed[VALUES].root == honest.committed[VALUES].root:
            continue
        lies += 1
        end = play(evidence, State(liar.statement), liar, honest)
        if end.winner != "challenger" or not end.reason.startswith("executed"):
            raise AssertionError(f"the liar as defender: {end.winner}, {end.reason}")
        end = play(evidence, State(honest.statement), honest, liar)
        if end.winner != "defender":
            raise AssertionError(f"the liar as challenger: {end.winner}, {end.reason}")
    return lies
