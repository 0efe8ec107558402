"""docs/settlement.md maps adversaries and traps to tests: the tests are there, and run where it says."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
DOC = (TESTS.parent / "docs" / "settlement.md").read_text()
E2E = {
    t
    for f in (TESTS / "e2e").glob("test_*.py")
    for t in re.findall(r"^def (test_\w+)", f.read_text(), re.M)
}
MEMORY = {
    t
    for f in (TESTS / "settlement").glob("test_*.py")
    for t in re.findall(r"^def (test_\w+)", f.read_text(), re.M)
}


def table(name: str) -> list[tuple[str, list[str]]]:
    """First cell and tests of each row of a marked table."""
    part = DOC.split(f"<!-- {name} -->\n")[1].split("<!-- end -->")[0]
    rows = [[c.strip() for c in line.strip("|\n").split("|")] for line in part.splitlines()[2:]]
    return [(r[0], re.findall(r"`(test_\w+)`", r[-1])) for r in rows]


def test_every_adversary_has_tests_on_both_chains() -> None:
    rows = table("adversaries")
    assert len(rows) >= 25
    for adversary, tests in rows:
        assert tests, adversary
        assert set(tests) <= E2E, (adversary, set(tests) - E2E)


def test_every_trap_has_tests() -> None:
    rows = table("traps")
    assert [n for n, _ in rows] == [str(i) for i in range(1, 19)]
    for trap, tests in rows:
        assert tests, trap
        assert set(tests) <= E2E | MEMORY, (trap, set(tests) - E2E - MEMORY)


def test_no_test_is_named_twice() -> None:
    """So that a name in the tables is one test."""
    assert not E2E & MEMORY
