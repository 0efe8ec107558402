"""A world for the tests of the Court: contracts in memory, money for everyone."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shared() -> Any:
    pytest.importorskip("vyper", reason="needs the extra settlement")
    pytest.importorskip("pyrevm", reason="needs the extra settlement")
    from ree.settlement.testing.court import NAMES, World

    w = World()
    w.fund(*NAMES)
    return w


@pytest.fixture
def world(shared: Any) -> Iterator[Any]:
    """The shared world, with whatever a test did undone."""
    mark = shared.chain.snapshot()
    yield shared
    shared.chain.revert(mark)
