"""The referee on chain plays every dispute as the rules in verde do."""

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.kernels import opdef, registry
from ree.settlement.compile import compile_contract
from ree.settlement.decidable import Form, form
from ree.settlement.testing.disputes import dispute, honest_run, program_of, samples
from ree.settlement.testing.referee import PARTS, referee


@pytest.mark.parametrize(
    ("name", "sample"), [pytest.param(n, s, id=f"{n}-{s.name}") for n, s in samples(1)]
)
def test_a_liar_loses_on_chain(name, sample):
    program, node = program_of(name, sample)
    if any(t.numel == 0 for t in node.results):
        pytest.skip("no elements")
    run, instance = honest_run(program, sample.inputs)
    dispute(run, instance, 0, np.random.default_rng(len(sample.name)))


def test_the_contracts_are_deployable():
    for part in PARTS:
        assert len(compile_contract(part).runtime) <= 24_576, part


def test_chain_and_table_agree_on_what_is_decidable():
    known = {opdef.get(name).opcode: form(name) for name in registry.names()}
    for opcode in range(400):
        if opcode in known or opcode >= 200:
            want = known.get(opcode, Form.NONE) is not Form.NONE
            assert referee().call("decides", opcode) == want, opcode
