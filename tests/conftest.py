"""What holds for every test: its recursion limit, when garbage is collected, if `make test` runs it."""

import gc
import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "ree_tests_thorough", Path(__file__).with_name("thorough.py")
)
thorough = importlib.util.module_from_spec(spec)
spec.loader.exec_module(thorough)

LIMIT = sys.getrecursionlimit()
HERE = Path(__file__).parent
# torch makes objects by the million: looking for cycles among them as often as Python does is 8 % of the time
gc.set_threshold(100_000, 20, 100)


def pytest_runtest_setup():
    """Ethereum's libraries raise the limit, when they are imported, above what the stack holds: code that
    recurses without end then crashes the process where it would have met a RecursionError."""
    sys.setrecursionlimit(LIMIT)


def pytest_terminal_summary(terminalreporter, config):
    if not thorough.EVERY and whole(config):
        lines = len(thorough.THOROUGH)
        terminalreporter.write_line(
            f"left out for `make exhaustive`: {lines} lines of tests/thorough.py"
        )


def whole(config):
    return [Path(a).resolve() for a in config.args] == [HERE]


def pytest_collection_modifyitems(config, items):
    """Tests that thorough.py lists get the mark `thorough`, and are left out unless they are asked for."""
    ids = {item: item.nodeid.removeprefix("tests/") for item in items}
    listed = [item for item, name in ids.items() if name.startswith(thorough.THOROUGH)]
    for item in listed:
        item.add_marker(pytest.mark.thorough)
    if whole(config):
        for line in thorough.THOROUGH:
            if not any(name.startswith(line) for name in ids.values()):
                raise pytest.UsageError(f"tests/thorough.py names no test: {line}")
    named = any("::" in a for a in config.args)  # who names a test means it
    if not thorough.EVERY and not named:
        items[:] = [item for item in items if item not in set(listed)]
        config.hook.pytest_deselected(items=listed)
