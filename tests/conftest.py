"""Every test runs under the interpreter's own recursion limit."""

import sys

LIMIT = sys.getrecursionlimit()


def pytest_runtest_setup():
    """Ethereum's libraries raise the limit, when they are imported, above what the stack holds: code that
    recurses without end then crashes the process where it would have met a RecursionError."""
    sys.setrecursionlimit(LIMIT)
