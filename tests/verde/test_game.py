"""The dispute game over every operator: a consistent liar loses by execution, the honest win."""

import numpy as np
import pytest

from ree.compiler.ir import Builder
from ree.kernels import opdef, registry
from ree.kernels.opdef import Form
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.verde.fault import Fault, Liar
from ree.verde.game import Game, State
from ree.verde.party import Party, Run, play
from ree.verde.scope import ROW, VALUES, RowScope


def program_of(name, sample):
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


def honest_run(program, inputs):
    instance = program.instance({})
    values = program.run(*inputs, trace="ops", keep_values=True).values
    return Run(instance.graph, inputs, program.weights, values), instance


def samples():
    for name in registry.names():
        found = [
            s for s in opdef.get(name).samples() if s.inputs or opdef.get(name).form is Form.CREATE
        ]
        for s in found[:: max(1, len(found) // 3)]:
            yield pytest.param(name, s, id=f"{name}-{s.name}")


def flip_of(d, i, rng):
    """One bit within the entry that can change it: the low one of a bool."""
    return 1


@pytest.mark.parametrize(("name", "sample"), list(samples()))
def test_a_liar_loses_by_execution(name, sample):
    program, node = program_of(name, sample)
    if any(t.numel == 0 for t in node.results):
        pytest.skip("no elements")
    if opdef.get(name).form is Form.MOVE:
        pytest.skip("a move has no leaf of its own")
    run, instance = honest_run(program, sample.inputs)
    rng = np.random.default_rng(len(sample.name))
    element = int(rng.integers(node.results[0].numel))
    row_program = run.scope.row_program(VALUES, 0)
    row = None
    if row_program is None:
        d = run.scope.derivation(VALUES, 0, element)
    else:
        inner = RowScope(run.scope, (VALUES, 0, element), row_program)
        nodes = [
            i
            for i, n in enumerate(inner.nodes)
            if opdef.get(n.op).form is not Form.MOVE and n.out.numel
        ]
        at = int(rng.choice(nodes))
        row = (at, int(rng.integers(inner.nodes[at].out.numel)))
        d = inner.derivation(ROW, *row)
    game = Game(run.scope)
    honest = Party(run, instance.digest)
    for operation in {d.count - 1, int(rng.integers(d.count))}:
        liar = Liar(run, Fault(0, element, operation, 1, row), instance.digest)
        if liar.committed[VALUES].root == honest.committed[VALUES].root:
            continue  # the lie vanished in what follows it
        end = play(game, State(liar.statement), liar, honest)
        assert end.winner == "challenger", end.reason
        assert end.reason.startswith("executed"), end.reason
        # the other way round: the liar challenges the truth
        end = play(game, State(honest.statement), honest, liar)
        assert end.winner == "defender", end.reason
