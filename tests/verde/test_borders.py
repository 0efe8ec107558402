"""Whatever operation a challenger points at, an honest defender wins: at sizes around the leaves of entries."""

import pytest

from ree.verde.party import Party, run_of
from ree.verde.rehearsal import in_values, prove, shown
from ree.verde.scope import VALUES
from ree.verde.testing import along, program_of

SIZES = [62, 63, 64, 65, 127, 128, 129, 191]
OPS = ["sort", "amax", "amin", "argmax", "argmin", "sum", "cumsum", "linear", "scatter", "scatter_add",
       "index_put", "index_add"]  # fmt: skip


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("op", OPS)
def test_the_honest_defender_answers_every_pointer(op, n):
    sample = along(op, n)
    program, node = program_of(op, sample)
    run, instance = run_of(program, sample.inputs)
    party = Party(run, instance.digest)
    for tensor in range(len(node.results)):
        size = run.scope.type(VALUES, tensor).numel
        for element in sorted({0, size // 2, size - 1}):
            at = shown(party, in_values(party), tensor, element)
            every = range(run.scope.derivation(VALUES, tensor, element).count)
            for i, end in prove(party, party.game.apply, at, every):
                assert end.winner == "defender", (tensor, element, i, end.reason)
