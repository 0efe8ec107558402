"""tests/README.md names the tests of every source, and nothing that is not there."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
FOLDERS = ("ree", "compiler", "kernels", "traces", "verde", "settlement")
# what no import leads to: entry points, commands by their names, and what the build runs
BY_NAME = (
    "ree/__main__.py",
    "ree/cli/__main__.py",
    "ree/cli/commands_*.py",
    "ree/integrations/pytest_plugin.py",
    "kernels/abi_cpp.py",
    "kernels/scalar/emit_cpp.py",
)
SUFFIXES = {".py", ".cpp", ".hpp", ".inl", ".vy", ".vyi"}


def rows():
    """(sources, tests), each a list of patterns, of every row."""
    text = (TESTS / "README.md").read_text().split("<!-- tests -->")[1].split("<!-- end -->")[0]
    for line in text.strip().splitlines()[2:]:
        yield [[x.strip() for x in cell.split(",")] for cell in line.strip("| ").split("|")]


def sources():
    """Every source of the product that says something."""
    for folder in (*FOLDERS, "csrc"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SUFFIXES and (
                path.name != "__init__.py" or "def " in path.read_text()
            ):
                yield path


def name_of(path):
    """What a product's file is called below ree, as its modules name it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "ree" else parts
    return ".".join(p for p in parts if p != "__init__")


MODULES = {name_of(p): p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")}


@cache
def imports(path):
    """Files that a file imports or names, wherever in it; all of a package that looks through its folder."""
    text, found = path.read_text(), set()
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            near = path.parent if node.level == 1 else path.parents[node.level - 1]
            for a in node.names:
                for stem in (node.module or "", f"{node.module or ''}.{a.name}"):
                    there = near / stem.strip(".").replace(".", "/")
                    found |= {
                        p for p in (there.with_suffix(".py"), there / "__init__.py") if p.exists()
                    }
        elif isinstance(node, ast.ImportFrom):
            found |= {p for p in (path.parent / f"{node.module}.py",) if p.exists()}
            names |= {node.module or "", *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"\w+\.py", node.value) and (path.parent / node.value).exists():
                found.add(path.parent / node.value)  # a script that is run
            names |= set(re.findall(r"\bree(?:\.\w+)*", node.value[:2000]))
    for name in names:
        words = name.split(".")
        if words[0] == "ree":  # and the packages that it is in
            found |= {
                MODULES[m] for i in range(len(words) + 1) if (m := ".".join(words[1:i])) in MODULES
            }
    if path.name == "__init__.py" and "iter_modules" in text:
        found |= set(path.parent.glob("*.py"))
    return found


def reach(path):
    """What a test can come to through imports."""
    seen, left = (
        set(),
        [path, *(p / "conftest.py" for p in path.parents if (p / "conftest.py").exists())],
    )
    while left:
        at = left.pop()
        if at not in seen:
            seen.add(at)
            left += imports(at)
    return seen


def test_every_source_has_a_row_and_every_row_sources_and_tests():
    patterns = [(s, t) for s, t in rows()]
    assert [s for said, _ in patterns for s in said if not any(ROOT.glob(s))] == []
    assert [t for _, tests in patterns for t in tests if not (TESTS / t).exists()] == []
    known = {p for said, _ in patterns for s in said for p in ROOT.glob(s)}
    assert sorted(str(p.relative_to(ROOT)) for p in set(sources()) - known) == []


def test_every_file_of_tests_is_named():
    named = {TESTS / t for _, tests in rows() for t in tests}
    there = set(TESTS.rglob("test_*.py"))
    assert len(there) > 100
    assert sorted(str(p.relative_to(TESTS)) for p in there - named) == []


def unreached():
    """(source, tests) of first rows whose tests cannot come to the source."""
    done = {p for name in BY_NAME for p in ROOT.glob(name)}
    for said, tests in rows():
        mine = {p for s in said for p in ROOT.glob(s) if p.suffix == ".py"} - done
        done |= mine
        there = set().union(*(reach(TESTS / t) for t in tests))
        yield from (
            (str(p.relative_to(ROOT)), tests)
            for p in sorted(mine)
            if p.parts[len(ROOT.parts)] in FOLDERS and p not in there
        )


def test_tests_reach_what_they_are_named_for():
    assert list(unreached()) == []


def test_a_wrong_row_is_seen(monkeypatch):
    wrong = (["verde/signing.py"], ["kernels/test_abi.py"])
    monkeypatch.setitem(globals(), "rows", lambda: [wrong])
    assert list(unreached()) == [("verde/signing.py", ["kernels/test_abi.py"])]
