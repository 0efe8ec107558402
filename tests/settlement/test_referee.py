"""The referee on chain plays every dispute as the rules in verde do."""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.kernels import opdef, registry
from ree.settlement.compile import compile_contract
from ree.settlement.local_referee import PARTS
from ree.settlement.testing.referee import play_for, referee
from ree.verde.testing import dispute_samples, operators


@pytest.mark.parametrize("op", operators())
def test_a_liar_loses_on_chain(op):
    found = dispute_samples(op, 1, play_for)
    assert found
    assert all(lies for _, lies in found)


def test_the_contracts_are_deployable():
    for part in PARTS:
        assert len(compile_contract(part).runtime) <= 24_576, part


def test_chain_and_table_agree_on_what_is_decidable():
    known = {opdef.get(name).opcode: opdef.get(name).form.number for name in registry.names()}
    for opcode in range(400):
        if opcode in known or opcode >= 200:
            want = known.get(opcode, 0) != 0
            assert referee().call("decides", opcode) == want, opcode
