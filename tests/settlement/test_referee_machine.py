"""The Court with the real referee in any weather: honest watchers lose nothing, all get what the rules say.
For longer: benchmarks/referee_machine.py.

Faults planted once by hand were all found: a dispute's winnings credited to its loser and equal shares (by the
ledger), a clock that is not restored after a move (by outages), no more time for more disputes and a watcher
that goes breadth-first (by a flood).
"""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")
pytest.importorskip("torch", reason="a training run needs PyTorch")

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ree.settlement.testing.fixtures import PROGRAMS
from ree.settlement.testing.machine import RefereeMachine

SETTINGS = settings(
    max_examples=3, stateful_step_count=8, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


class Calls(RefereeMachine):
    kinds = tuple(PROGRAMS)


class Calm(Calls):
    only = "calm"


class Flood(Calls):
    only = "flood"


class Siege(Calls):
    only = "siege"


class Run(RefereeMachine):
    """Of claims about a training run."""

    kinds = ("run",)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("machine", [Calm, Flood, Siege, Run])
def test_watchers_in_any_weather(machine: type[RefereeMachine]) -> None:
    few = settings(SETTINGS, max_examples=2) if machine is Run else SETTINGS
    run_state_machine_as_test(machine, settings=few)
