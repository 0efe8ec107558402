"""Which room may import which, in one table; function-level imports and `from ree import x` count too."""

import ast
import collections
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each room imports from those before it, never from those behind it. A name in the first column is a folder
# or module below ree; what stands in no row is of the room "ree".
ROOMS = {
    "base": ("errors", "printable", "float_mode", "_core", "__version__"),
    "kernels": ("kernels",),
    "traces": ("traces",),
    "compiler": ("compiler",),
    "ree": (),
    "training": ("training",),
    "integrations": ("integrations",),
    "generation": ("generation",),
    "embedding": ("embedding",),
    "serving": ("serving",),
    "verde": ("verde",),
    "settlement": ("settlement",),
    "command line": ("cli", "__main__"),
}
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
    return next((r for r, tops in ROOMS.items() if top in tops), "ree")


def imported(text, members=False):
    """Names below ree that a source imports, wherever in it; with members, `from ree.a import b` is a.b."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "ree":
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ree."):
            module = (node.module or "").removeprefix("ree.")
            yield from (f"{module}.{a.name}" for a in node.names) if members else (module,)
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("ree.") for a in node.names if a.name.startswith("ree.")
            )


def upward(name, text):
    """Imports of a room behind one's own."""
    order = list(ROOMS)
    return [t for t in imported(text) if order.index(room(t)) > order.index(room(name))]


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
        ("compiler.plan.planner", "import ree.verde.game"),
        ("ree_part", "from ree.cli.output import progress"),
        ("verde.game", "from ree.settlement import client"),
        ("errors", "from ree.traces import merkle"),
    ],
)
def test_an_import_upwards_is_seen(name, line):
    assert upward(name, line)


def graph(files):
    """From each module to those that it imports, wherever in it; files are (name, text)."""
    names = {name for name, _ in files}

    def module(target):
        return target if target in names else target.rpartition(".")[0]

    return {name: {m for t in imported(text, members=True) if (m := module(t)) in names} - {name}
            for name, text in files}  # fmt: skip


def cycles(edges):
    """Strongly connected components of more than one module (Tarjan, 1972)."""
    index, low, stack, out = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in sorted(edges[v]):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            at = stack.index(v)
            if len(stack) - at > 1:
                out.append(sorted(stack[at:]))
            del stack[at:]

    for v in sorted(edges):
        if v not in index:
            visit(v)
    return out


def of_two_folders(found):
    return [c for c in found if len({name.rpartition(".")[0] for name in c}) > 1]


def test_the_product_does_not_import_what_only_tests_have():
    """The wheel has no module called testing."""
    for name, path in sources():
        if "testing" not in name.split("."):
            targets = imported(path.read_text(), members=True)
            assert not [t for t in targets if "testing" in t.split(".")], name


def test_no_cycle_of_files_spans_two_folders():
    files = [(name, path.read_text()) for name, path in sources() if name]
    assert of_two_folders(cycles(graph(files))) == []


def test_a_cycle_of_two_folders_is_seen():
    files = [
        ("a.x", "from ree.b import y"),
        ("b.y", "def f():\n    from ree.a.x import z"),
        ("b.w", "import ree.b.y"),
    ]
    assert of_two_folders(cycles(graph(files))) == [["a.x", "b.y"]]


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


def class_names(files):
    """How often a class of each name is defined, outside of what tests share."""
    return collections.Counter(
        node.name
        for name, text in files
        if "testing" not in name.split(".")
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )


def test_a_class_name_means_one_thing():
    """But for terms, of a dispute off chain or of a job, nodes, of a graph or of a chain, and generators, of
    numbers or of text."""
    counts = class_names([(name, path.read_text()) for name, path in sources()])
    assert {c for c, n in counts.items() if n > 1} == {"Terms", "Node", "Generator"}
    assert class_names([("a", "class X: ..."), ("b", "class X: ...")])["X"] == 2
