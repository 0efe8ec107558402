"""Seconds until `import ree` and `ree --help` are done, in turns with a Python that does nothing.

python benchmarks/bench_startup.py [--rounds 20] [--json benchmarks/results/startup.json]

Least and median of fresh processes, by the clock and in processor time. Exit status 1 if a least time is over
its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMITS = {"import ree": 0.25, "ree --help": 0.15}  # seconds
COMMANDS = {
    "python": ["-c", "pass"],
    "import ree": ["-c", "import ree"],
    "ree --help": ["-m", "ree", "--help"],
}


def children() -> float:
    """Processor seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results/startup.json")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    processor: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.rounds + 1):  # the first round warms the file cache
        for name, options in COMMANDS.items():
            begin, used = time.perf_counter(), children()
            subprocess.run([sys.executable, "-P", *options], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begin)
            processor[name].append(children() - used)
    data = {
        "rounds": args.rounds,
        "load": round(os.getloadavg()[0], 1),
        "limits_s": LIMITS,
        "min_s": {name: round(min(s[1:]), 3) for name, s in seconds.items()},
        "median_s": {name: round(statistics.median(s[1:]), 3) for name, s in seconds.items()},
        "processor_min_s": {name: round(min(s[1:]), 3) for name, s in processor.items()},
    }
    args.json.write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data, indent=1))
    return int(any(data["min_s"][name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
