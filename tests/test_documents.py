"""What documents say of each other: links lead somewhere, records and result files are listed, each once."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
)
RECORD = re.compile(
    r"# (?P<number>\d{4})\. (?P<title>.+)\n\n"
    r"- Date: \d{4}-\d\d-\d\d(, added to on \d{4}-\d\d-\d\d)?\n"
    r"- Status: (?P<status>accepted|superseded by \[(?P<by>\d{4})\]\((?P<file>\S+\.md)\))\n\n"
    r"## Context\n\n(.|\n)+\n\n## Decision\n\n(.|\n)+\n\n## Consequences\n\n(.|\n)+\n"
)


def anchors(text):
    """The anchors that a page's headings get."""
    heads = re.findall(r"^#+ (.+)", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads}


def dead_links(page, text):
    """Targets in a page beside `page` that are not there."""
    text = re.sub(r"```.*?```|`[^`\n]*`|^    .*$", "", text, flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, at = target.partition("#")
        if "://" in file or file.startswith("mailto:"):
            continue
        there = page.parent / file if file else page
        if not there.exists() or (at and at not in anchors(there.read_text())):
            yield target


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert list(dead_links(page, page.read_text())) == []


@pytest.mark.parametrize("link", ["[a](no.md)", "[a](glossary.md#no)", "[a](#no)"])
def test_a_dead_link_is_seen(link):
    assert list(dead_links(ROOT / "docs" / "gpu.md", link))


def index_entry(record):
    """The line that the index must have for a record."""
    m = RECORD.fullmatch(record.read_text())
    assert m, f"{record.name} has not the form that README.md shows"
    assert record.name.startswith(m["number"])
    superseded = "" if m["status"] == "accepted" else f" ({m['status']})"
    return f"- [{m['number']}]({record.name}) {m['title']}{superseded}"


def test_every_decision_has_a_number_of_its_own_and_a_line_in_the_index():
    assert [int(r.name[:4]) for r in RECORDS] == list(range(1, len(RECORDS) + 1))
    listed = re.findall(r"^- \[.*", (DECISIONS / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(map(index_entry, RECORDS))


def test_what_supersedes_a_decision_says_so():
    found = 0
    for record in RECORDS:
        m = RECORD.fullmatch(record.read_text())
        if m and m["file"]:
            found += 1
            assert m["file"].startswith(m["by"])
            assert record.name in (DECISIONS / m["file"]).read_text()
    assert found


def test_every_file_of_results_is_described():
    text = (ROOT / "docs" / "figures.md").read_text()
    table = text.split("<!-- files -->")[1].split("<!-- end -->")[0]
    rows = [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]
    named = [f.strip() for row in rows for f in row[0].split(",")]
    assert sorted(named) == sorted(p.name for p in (ROOT / "benchmarks" / "results").iterdir())
    for *_, made_by in rows:
        for script in re.findall(r"[\w/]+\.py", made_by):
            assert (ROOT / script).exists() or (ROOT / "benchmarks" / script).exists(), script
