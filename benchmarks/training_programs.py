"""Random training programs, trained here and by torch: more seeds of tests/compiler/random_training.

python benchmarks/training_programs.py [FIRST LAST] [-o benchmarks/results/training_programs.json]
"""

import argparse
import importlib.util
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def load(path):
    spec = importlib.util.spec_from_file_location(
        path.name, path / "__init__.py", submodule_search_locations=[str(path)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.name] = module
    spec.loader.exec_module(module)
    return module


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=int, nargs="?", default=200)
    parser.add_argument("last", type=int, nargs="?", default=1199)
    parser.add_argument("-o", type=Path, default=ROOT / "benchmarks/results/training_programs.json")
    args = parser.parse_args()
    programs = load(ROOT / "tests" / "compiler" / "random_training")
    torch.set_num_threads(1)
    refused, wrong, start = Counter(), [], time.process_time()
    for seed in range(args.first, args.last + 1):
        found = programs.compare(seed, compiled=seed % 10 == 0)
        if found.wrong:
            wrong.append(seed)
            print(found, file=sys.stderr, flush=True)
        elif found.refused:
            refused[re.sub(r"'[^']*'|\S+\.py:\d+", "...", found.refused).split(": ")[0][:80]] += 1
    seeds = args.last + 1 - args.first
    result = {
        "first": args.first, "last": args.last, "as_torch": seeds - len(wrong) - refused.total(),
        "refused": dict(refused.most_common()), "wrong": wrong,
        "processor_s": round(time.process_time() - start),
    }  # fmt: skip
    args.o.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
