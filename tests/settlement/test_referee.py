"""The referee on chain plays every dispute as the rules in verde do."""

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.compiler.ir import Builder
from ree.kernels import opdef, registry
from ree.kernels.opdef import Form
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.evidence import Evidence
from ree.settlement.testing.referee import play, referee
from ree.verde.fault import Fault, Liar
from ree.verde.game import Game, State
from ree.verde.party import Party, Run
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


def samples(many):
    for name in registry.names():
        found = [
            s for s in opdef.get(name).samples() if s.inputs or opdef.get(name).form is Form.CREATE
        ]
        if opdef.get(name).form is Form.MOVE:
            continue
        for s in found[:: max(1, len(found) // many)]:
            yield pytest.param(name, s, id=f"{name}-{s.name}")


def dispute(name, sample, seed=0):
    """A liar about an operator loses on chain by execution, and loses against the truth."""
    program, node = program_of(name, sample)
    if any(t.numel == 0 for t in node.results):
        pytest.skip("no elements")
    run, instance = honest_run(program, sample.inputs)
    rng = np.random.default_rng(len(sample.name) + seed)
    element = int(rng.integers(node.results[0].numel))
    row_program = run.scope.row_program(VALUES, 0)
    row = None
    if row_program is None:
        d = run.scope.derivation(VALUES, 0, element)
    else:
        inner = RowScope(run.scope, (VALUES, 0, element), row_program)
        nodes = [i for i, n in enumerate(inner.nodes)
                 if opdef.get(n.op).form is not Form.MOVE and n.out.numel]  # fmt: skip
        at = int(rng.choice(nodes))
        row = (at, int(rng.integers(inner.nodes[at].out.numel)))
        d = inner.derivation(ROW, *row)
    evidence = Evidence(Game(run.scope), instance)
    honest = Party(run, instance.digest)
    for operation in {d.count - 1, int(rng.integers(d.count))}:
        liar = Liar(run, Fault(0, element, operation, 1, row), instance.digest)
        if liar.committed[VALUES].root == honest.committed[VALUES].root:
            continue  # the lie vanished in what follows it
        end = play(evidence, State(liar.statement), liar, honest)
        assert end.winner == "challenger", end.reason
        assert end.reason.startswith("executed"), end.reason
        end = play(evidence, State(honest.statement), honest, liar)
        assert end.winner == "defender", end.reason


@pytest.mark.parametrize(("name", "sample"), list(samples(1)))
def test_a_liar_loses_on_chain(name, sample):
    dispute(name, sample)


def test_the_size_of_the_contracts():
    from ree.settlement.compile import compile_contract
    from ree.settlement.testing.referee import PARTS

    for part in PARTS:
        assert len(compile_contract(part).runtime) <= 24_576, part
    assert referee().call("decides", 200)
