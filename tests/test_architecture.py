"""Which room may import which, in one table; function-level imports and `from ree import x` count too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each room imports from those before it, never from those behind it.
ROOMS = ("base", "kernels", "traces", "compiler", "ree", "verde", "settlement", "command line")
BASE = {"errors", "printable", "_core", "__version__"}
COMMAND_LINE = {"__main__", "cli", "commands", "commands_dispute", "commands_job", "commands_train", "checks",
                "completion"}  # fmt: skip
FOLDERS = ("compiler", "kernels", "settlement", "traces", "verde")
LONGEST = 450  # lines of a file


def sources():
    """(name below ree, path) of every Python file of the product."""
    for folder in ("ree", *FOLDERS):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[1:] if parts[0] == "ree" else parts
            yield ".".join(p for p in parts if p != "__init__"), path


def room(name):
    top = name.split(".")[0]
    if top in FOLDERS:
        return top
    if top in BASE:
        return "base"
    return "command line" if top in COMMAND_LINE else "ree"


def imported(text):
    """Names below ree that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "ree":
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ree."):
            yield (node.module or "").removeprefix("ree.")
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("ree.") for a in node.names if a.name.startswith("ree.")
            )


def upward(name, text):
    """Imports of a room behind one's own."""
    mine = ROOMS.index(room(name))
    return [t for t in imported(text) if ROOMS.index(room(t)) > mine]


def test_imports_point_one_way():
    wrong = {
        name: up for name, path in sources() if name and (up := upward(name, path.read_text()))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("kernels.gather", "from ree.compiler.ir import Graph"),
        ("traces.tensor", "def f():\n    from ree import program"),
        ("compiler.plan", "import ree.verde.game"),
        ("ree_part", "from ree.commands import progress"),
        ("verde.game", "from ree.settlement import client"),
        ("errors", "from ree.traces import merkle"),
    ],
)
def test_an_import_upwards_is_seen(name, line):
    assert upward(name, line)


def test_no_file_is_too_long_to_read():
    suffixes = {".py", ".cpp", ".hpp", ".inl", ".vy", ".vyi"}
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in ("ree", "csrc", "tests", "benchmarks", "examples", *FOLDERS)
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes
    }
    assert len(lengths) > 500
    assert {k: n for k, n in lengths.items() if n > LONGEST} == {}
