"""Every kernel that sums, selections, norms, softmax, scans and sorts can choose, compiled and audited.

    python benchmarks/gpu_space.py [--target sm_90 ...] [--sample N] [-o FILE] [--resume]

The shapes: 1 to 8,192 elements of a row, rows alone, few and many, columns, rows that lie apart, every flag.
They lead to some thousand different kernels: a schedule depends on classes of sizes only. Nothing is run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

from ree.compiler.audit import gpu
from ree.kernels.gpu.launch import KernelCall, Launch, kernel_call, table

TARGETS = ("sm_80", "sm_90", "sm_120")
FEATURES = 8192
EPS = 1e-5
NORM_ROWS = (1, 2, 1000)
OUTER, INNER = (1, 3, 16), (1, 3, 16)


Row = dict[str, object]


def key(row: Row) -> str:
    return f"{row['target']} {row['kernel']} {row['arguments']}"


def calls() -> Iterator[KernelCall]:
    """Calls over the space of shapes and flags."""
    for n in range(1, FEATURES + 1):
        for rows in NORM_ROWS:
            for stride in (n, n + 1, n + 16 - n % 16):  # dense, unaligned, aligned
                shape: dict[str, int] = {
                    "x": 0,
                    "y": 3,
                    "rows": rows,
                    "n": n,
                    "x_row": stride,
                    "y_row": n,
                }
                yield kernel_call("softmax", **shape)
                for weight in (None, 1):
                    yield kernel_call("rms_norm", **shape, weight=weight, eps=EPS)
                    for bias in (None, 2):
                        yield kernel_call("layer_norm", **shape, weight=weight, bias=bias, eps=EPS)
        for outer in OUTER:
            for inner in INNER:
                column = {"x": 0, "y": 1, "outer": outer, "n": n, "inner": inner}
                strides = {"x_outer": n * inner, "x_n": inner, "x_inner": 1}
                for mean in (0, 1):
                    yield kernel_call("sum", **column, **strides, mean=mean)
                for name in ("amax", "amin", "argmax", "argmin"):
                    yield kernel_call(name, **column, **strides)
                for dtype in ("f32", "i64"):
                    yield kernel_call(f"cumsum_{dtype}", **column)
                    for descending in (0, 1):
                        yield kernel_call(
                            f"sort_{dtype}", **column, indices=2, descending=descending
                        )


def launches() -> list[Launch]:
    """The different kernels of the whole space."""
    schedules, seen = table(), dict[object, Launch]()
    for call in calls():
        schedules[call.kernel](call)
        for x in call.launches:
            for y in (x, *x.otherwise):
                seen.setdefault((y.name, gpu.variant(y), y.warps, y.stages), y)
    return list(seen.values())


def audit(target: str, sample: int | None, known: dict[str, Row]) -> list[Row]:
    """A row for each kernel: what it is, its registers, and what the audit found."""
    every = launches()
    if sample is not None:
        every = random.Random(sample).sample(every, min(sample, len(every)))
    rows = []
    for i, x in enumerate(every):
        kinds, _ = gpu.variant(x)
        row: dict[str, object] = {
            "target": target,
            "kernel": gpu.kernel_name(x),
            "arguments": str(kinds),
        }
        try:
            (r,) = gpu.audit([x], target)
            row |= {"registers": r.registers, "spills": r.spills, "shared": r.shared,
                    "findings": sorted({f.reason for f in r.findings})}  # fmt: skip
        except Exception as e:  # Triton's compiler raises many unrelated types
            row |= {"findings": [f"does not compile: {type(e).__name__}"]}
        rows.append(row)
        if row["findings"]:
            print(f"FAIL {row}", file=sys.stderr, flush=True)
        if i % 100 == 99:
            print(f"{target}: {i + 1} of {len(every)}", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", nargs="*", default=TARGETS, choices=TARGETS)
    parser.add_argument("--sample", type=int, help="only so many kernels, drawn by this number")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output")
    parser.add_argument(
        "--resume", action="store_true", help="keep what the output file says that passed"
    )
    args = parser.parse_args()
    known: dict[str, Row] = {}
    if args.resume and args.output and Path(args.output).exists():
        kept = json.loads(Path(args.output).read_text())["rows"]
        known = {key(r): r for r in kept if not r["findings"]}
    context = multiprocessing.get_context(
        "spawn"
    )  # compilers hold threads, which a fork would lose
    with ProcessPoolExecutor(args.workers, mp_context=context) as pool:
        n = len(args.target)
        parts = pool.map(audit, args.target, [args.sample] * n, [known] * n)
        rows = [r for part in parts for r in part]
    bad = [r for r in rows if r["findings"]]
    most = {t: max((int(str(r.get("registers", 0))) for r in rows if r["target"] == t), default=0)
            for t in args.target}  # fmt: skip
    report = {"triton": version("triton"), "note": "compiled and read, not run", "features": FEATURES,
              "kernels": len(rows), "failed": len(bad), "most_registers": most, "rows": rows}  # fmt: skip
    if args.output:
        lines = ",\n".join(json.dumps(r) for r in rows)
        head = json.dumps({k: v for k, v in report.items() if k != "rows"}, indent=1)[:-2]
        Path(args.output).write_text(f'{head},\n "rows": [\n{lines}\n]}}\n')
    print(f"{len(rows) - len(bad)} passed, {len(bad)} failed; registers at most {most}")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
