"""A million cases and more of Fp32 in the EVM against exact integer arithmetic.

    python benchmarks/settlement_fp32.py [--cases 1000000] [--json FILE]

For fma: all triples of edge values, every alignment, cancellations, ties, and uniform operands, `--cases` in
all; for every other operation of the microcode all pairs of edge values and uniform operands; both of Vyper's
code generators. Results go to benchmarks/results/settlement_fp32.json; the exit status is 1 if a case differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ree.kernels.scalar.language import F32
from ree.settlement.testing import cases
from ree.settlement.testing.cases import Bits
from ree.settlement.testing.gas import fp32_tester

RESULTS = Path(__file__).resolve().parent / "results" / "settlement_fp32.json"
GENERATORS = {"legacy": False, "venom": True}


def fma_sets(rng: np.random.Generator, total: int) -> Iterator[tuple[str, list[Bits]]]:
    """Named operands of fma; the uniform ones fill up to `total`."""
    sets = [
        ("triples of edge values", cases.combinations((F32,) * 3)),
        ("alignments", cases.alignments(rng)),
        ("cancellations", cases.cancellations(rng, total // 5)),
        ("ties", cases.halfway(rng, total // 5)),
    ]
    rest = max(total - sum(len(columns[0]) for _, columns in sets), 1000)
    yield from sets
    yield "uniform", cases.anything((F32,) * 3, rng, rest)


def compare(head: int, columns: list[Bits], want: Bits) -> int:
    """How many results of either generator differ from `want`."""
    got = [cases.run_steps(fp32_tester(venom), head, columns) for venom in GENERATORS.values()]
    return sum(int(np.count_nonzero(g != want)) for g in got)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="of fma")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    rng, start = np.random.default_rng(2), time.time()
    fma: dict[str, dict[str, int]] = {}
    head = cases.record("fma", F32, F32)
    for title, columns in fma_sets(rng, options.cases):
        want = cases.expected("fma", F32, F32, columns)
        fma[title] = {"cases": len(want), "different": compare(head, columns, want)}
        print(f"fma, {title}: {fma[title]}", flush=True)
    steps: dict[str, dict[str, int]] = {}
    for name, result, operand, types in cases.operations():
        if name == "fma":
            continue
        sets = [cases.anything(types, rng, options.cases // 100)]
        if len(types) < 3:
            sets.append(cases.combinations(types))
        if types == (F32, F32):
            sets += [[a, c] for a, _, c in (cases.alignments(rng), cases.halfway(rng, 20_000))]
        columns = [np.concatenate(c) for c in zip(*sets, strict=True)]
        want = cases.expected(name, result, operand, columns)
        differ = compare(cases.record(name, result, operand), columns, want)
        steps[f"{name} {operand.text} to {result.text}"] = {"cases": len(want), "different": differ}
    everything = [*fma.values(), *steps.values()]
    out: dict[str, Any] = {
        "generators": list(GENERATORS),
        "cases": sum(r["cases"] for r in everything),
        "different": sum(r["different"] for r in everything),
        "seconds": round(time.time() - start),
        "fma": fma,
        "steps": steps,
    }
    options.json.write_text(json.dumps(out, indent=1) + "\n")
    print(f"{out['cases']} cases, {out['different']} differ, {out['seconds']} s")
    return int(out["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
