"""Run every benchmark and write benchmarks/results/cpu.json: ratios against torch on this machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from ree import _core

HERE = Path(__file__).parent
MODULES = (
    "bench_contraction",
    "bench_attention",
    "bench_rows",
    "bench_hash",
    "bench_model",
    "bench_calls",
    "bench_pointwise",
)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def result_of(module: str) -> object:
    """The JSON a benchmark prints, or writes where told."""
    command = [sys.executable, str(HERE / f"{module}.py")]
    if module != "bench_contraction":
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        subprocess.run([*command, "--json", f.name], stdout=sys.stderr, check=True)
        return json.loads(Path(f.name).read_text())


def main() -> None:
    data: dict[str, object] = {
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "isa": _core.isa_names(),
        },
        "versions": {p: version(p) for p in ("torch", "numpy", "llvmlite")},
    }
    for module in MODULES:
        print(f"{module} ...", file=sys.stderr)
        data[module.removeprefix("bench_")] = result_of(module)
    target = HERE / "results" / "cpu.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(data, indent=1) + "\n")
    print(f"wrote {target}", file=sys.stderr)
    peers = [
        sys.executable,
        str(HERE / "bench_peers.py"),
        "-o",
        str(target.with_name("peers.json")),
    ]
    # without the extra `peers` it says in one line what is absent
    if (code := subprocess.run(peers, stdout=sys.stderr).returncode) not in (0, 2):
        raise SystemExit(code)


if __name__ == "__main__":
    main()
