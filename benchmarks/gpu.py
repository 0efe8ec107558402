"""`make gpu`: build, conformance, GPU tests and benchmarks on a CUDA machine; results as data.

Uses the interpreter it runs under, which must have torch with CUDA, Triton and the build tools; nothing is
downloaded. The package is installed without dependencies into build/gpu. Exit 0 only if every part passes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "gpu"
RESULTS = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results")


def run(title: str, *command: str) -> bool:
    """Run a part with the built package first on the path; say how long it took."""
    print(f"== {title}", flush=True)
    start = time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(SITE), "PYTHONUNBUFFERED": "1"}
    code = subprocess.run(command, cwd=ROOT / "build", env=env, check=False).returncode
    print(
        f"== {title}: {'ok' if code == 0 else f'exit {code}'}, {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    return code == 0


def unlike_ptx(report: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Operators of a card's conformance report whose digest is not that of their executed PTX on any target in
    ptx.json, and those that only one of the two has."""
    found = {op: part["digest"] for op, part in report["operators"].items()}
    return sorted(
        op
        for op in found.keys() | {op for row in rows for op in row["operators"]}
        if any(row["operators"].get(op, {}).get("digest") != found.get(op) for row in rows)
    )


def main() -> int:
    import torch

    if not torch.cuda.is_available():
        print("error: no CUDA device is available", file=sys.stderr)
        print("hint: run this on a machine with a GPU; make test needs none", file=sys.stderr)
        return 2
    py = sys.executable
    (ROOT / "build").mkdir(exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "_", torch.cuda.get_device_name().lower()).strip("_")
    if not run("build", py, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--upgrade",
               "--target", str(SITE), str(ROOT)):  # fmt: skip
        return 1
    conformance = RESULTS / f"conformance_{name}.json"
    ok = [
        run("conformance", py, "-P", "-m", "ree.cli", "conformance", "--device", "cuda",
            "-o", str(conformance)),
        run("programs", py, "-P", str(ROOT / "benchmarks" / "ptx.py"), "--devices", "cuda", "--programs"),
        run("tests", py, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "cuda")),
        run("benchmarks", py, "-P", str(ROOT / "benchmarks" / "bench_gpu.py"), "-o",
            str(RESULTS / f"gpu_{name}.json")),
    ]  # fmt: skip
    if conformance.exists():
        report = json.loads(conformance.read_text())
        print(
            f"conformance: {'same' if report['same'] else 'DIFFERENT'} on {report['device'].get('name')}"
        )
        rows = json.loads((ROOT / "benchmarks" / "results" / "ptx.json").read_text())
        unlike = unlike_ptx(report, rows)
        print(
            f"executed PTX: {'DIFFERENT: ' + ', '.join(unlike) if unlike else 'the same digests'}"
        )
        ok.append(not unlike)
    return 0 if all(ok) else 1


if __name__ == "__main__":
    sys.exit(main())
