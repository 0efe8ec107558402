"""docs/security.md names a test for each attack: the tests are there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
DOC = (TESTS.parent / "docs" / "security.md").read_text()


def test_every_attack_has_tests() -> None:
    known = {
        t
        for f in TESTS.rglob("test_*.py")
        for t in re.findall(r"^def (test_\w+)", f.read_text(), re.M)
    }
    part = DOC.split("<!-- attacks -->\n")[1].split("<!-- end -->")[0]
    rows = [line.strip("|\n").split("|") for line in part.splitlines()[2:]]
    assert len(rows) >= 20
    for attack, *_, tests in rows:
        found = set(re.findall(r"`(test_\w+)`", tests))
        assert found, attack
        assert found <= known, (attack, found - known)


def test_what_it_links_to_is_there() -> None:
    for file, at in re.findall(r"\]\((\w+\.md)(?:#([\w-]+))?\)", DOC):
        text = (TESTS.parent / "docs" / file).read_text()
        heads = {
            re.sub(r"[^\w -]", "", h).lower().replace(" ", "-")
            for h in re.findall(r"^#+ (.+)", text, re.M)
        }
        assert not at or at in heads, (file, at)
