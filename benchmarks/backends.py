"""Digests of every operator on every instruction set of this machine: a table operator x backend.

python benchmarks/backends.py > benchmarks/results/backends.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from ree import _core


def main() -> int:
    table: dict[str, dict[str, str]] = {}
    for isa in _core.isa_names():
        command = [sys.executable, "-P", "-m", "ree.cli", "conformance", "--json"]
        env = {**os.environ, "REE_FORCE_ISA": isa}
        out = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
        report = json.loads(out.stdout)
        parts = {**report["operators"], **report["models"]}
        for name, part in parts.items():
            table.setdefault(name, {})[isa] = part.get("digest") or part["root"]
    same = all(len(set(row.values())) == 1 for row in table.values())
    json.dump(
        {"contract": report["contract"], "same": same, "digests": table}, sys.stdout, indent=1
    )
    print()
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
