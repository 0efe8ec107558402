"""The Court with the real referee in any weather: python benchmarks/referee_machine.py [SECONDS] [FIRST SEED].

Honest watchers among liars (ree.settlement.testing.machine) must lose nothing. What a seed finds is printed
with the steps that lead to it, which belong into tests/settlement/test_referee_machine.py.
"""

import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from ree.settlement.testing.machine import RefereeMachine

EXAMPLES = 20  # of a seed


def main() -> int:
    seconds, at = (int(x) for x in (*sys.argv[1:3], *("3600", "1")[len(sys.argv) - 1 :]))
    how = settings(
        max_examples=EXAMPLES, stateful_step_count=30, deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    begin, found, first = time.monotonic(), 0, at
    while time.monotonic() < begin + seconds:
        try:
            run_state_machine_as_test(seed(at)(RefereeMachine), settings=how)
        except Exception as e:
            found += 1
            print(f"seed {at}:", *traceback.format_exception(e), sep="\n", flush=True)
        at += 1
        print(
            f"seeds {first} to {at - 1}, {time.monotonic() - begin:.0f} s, {found} findings",
            flush=True,
        )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
