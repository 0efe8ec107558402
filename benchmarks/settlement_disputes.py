"""Every sample of every decidable operator, disputed on chain: writes results/settlement_disputes.json.

python benchmarks/settlement_disputes.py [samples an operator]
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ree.settlement.testing.disputes import dispute, honest_run, program_of, samples

RESULT = Path(__file__).resolve().parent / "results" / "settlement_disputes.json"


def main(many: int) -> int:
    start, count, wrong = time.monotonic(), Counter[str](), []
    for name, sample in samples(many):
        program, node = program_of(name, sample)
        if any(t.numel == 0 for t in node.results):
            continue
        run, instance = honest_run(program, sample.inputs)
        try:
            count[name] += dispute(run, instance, 0, np.random.default_rng(len(sample.name)))
        except Exception as e:
            wrong.append(f"{name} {sample.name}: {type(e).__name__}: {e}"[:300])
            print(wrong[-1], flush=True)
    out = {
        "disputes": 2 * sum(count.values()),
        "lies by operator": dict(sorted(count.items())),
        "wrong": wrong,
    }
    if many >= 1000:
        RESULT.write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out), f"{time.monotonic() - start:.0f} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
