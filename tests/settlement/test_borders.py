"""The contracts decide for an honest defender as the rules do, at sizes around the leaves of entries."""

from functools import partial

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.evidence import Evidence
from ree.settlement.testing.referee import step
from ree.verde.game import Game
from ree.verde.party import Party, run_of
from ree.verde.rehearsal import in_values, prove, shown
from ree.verde.scope import VALUES
from ree.verde.testing import along, program_of

# sizes at which the operation after the last of a leaf is the last but one, the last, none
SIZES = {"sort": (63, 64, 65), "argmax": (63, 64, 65), "amin": (127, 128, 129), "sum": (65, 127, 128),
         "cumsum": (127, 128, 129), "scatter_add": (63, 127, 128)}  # fmt: skip


@pytest.mark.parametrize(("op", "n"), [(op, n) for op, sizes in SIZES.items() for n in sizes])
def test_the_contracts_agree_at_the_borders(op, n):
    sample = along(op, n)
    program, _ = program_of(op, sample)
    run, instance = run_of(program, sample.inputs)
    party, size = Party(run, instance.digest), run.scope.type(VALUES, 0).numel
    evidence = Evidence(Game(run.scope), instance)
    at = shown(party, in_values(party), 0, size - 1)
    for i, end in prove(party, partial(step, evidence), at):
        assert end.winner == "defender", (op, n, i, end.reason)
