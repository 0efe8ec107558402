"""Chains for the tests of this folder, each of which runs on all of them: the embedded chain, and a real node
(anvil) over HTTP. Where there is no anvil, its tests are skipped, and the end of the run says so."""

from collections.abc import Iterator
from typing import Any

import pytest

CHAINS = ("embedded", "anvil")


@pytest.fixture(scope="session")
def anvil() -> Iterator[Any]:
    pytest.importorskip("web3", reason="needs the extra settlement")
    from ree.settlement.testing.anvil import Anvil, Missing

    try:
        node = Anvil()
    except Missing as e:
        pytest.skip(f"anvil: {e}")
    with node:
        yield node


@pytest.fixture(scope="session")
def embedded() -> Any:
    pytest.importorskip("vyper", reason="needs the extra settlement")
    pytest.importorskip("eth_tester", reason="needs the extra settlement")
    from ree.settlement.embedded import Embedded

    return Embedded()


@pytest.fixture(scope="session", params=CHAINS)
def chain(request: pytest.FixtureRequest) -> Any:
    """One chain after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def shared(chain: Any) -> Any:
    from ree.settlement.testing.court import NAMES, World
    from ree.settlement.testing.nodes import NodeChain

    w = World(chain=NodeChain(chain))
    w.fund(*NAMES)
    return w


@pytest.fixture
def world(shared: Any) -> Iterator[Any]:
    """A Court with a mock referee on a chain, with whatever a test did undone."""
    mark = shared.chain.snapshot()
    yield shared
    shared.chain.revert(mark)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [r.longrepr[2] for r in skipped if "anvil: " in str(r.longrepr)]
    if reasons:
        terminalreporter.section("not run on a real node")
        terminalreporter.line(f"{len(reasons)} tests did not run. {reasons[0]}")
