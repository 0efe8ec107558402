"""The numbers of the contracts are those of the kernels."""

from ree.settlement import numbers
from ree.settlement.compile import CONTRACTS


def test_contracts_have_the_numbers_of_the_kernels():
    assert (CONTRACTS / "numbers.vy").read_text() == numbers.text(), (
        "run python -P -m ree.settlement.numbers"
    )


def test_no_contract_says_them_again():
    named = {line.split(":")[0] for line in numbers.text().splitlines() if ": constant(" in line}
    for path in CONTRACTS.rglob("*.vy"):
        if path.name != "numbers.vy":
            lines = path.read_text().splitlines()
            assert not named & {x.split(":")[0] for x in lines if ": constant(" in x}, path
