"""The character GPT's state after 200 steps, made in every way that must not matter: instruction sets, threads,
fusion, and a run that is killed and resumed. The portable build runs 5 steps of the small one.

python benchmarks/training_bits.py [-o benchmarks/results/training_bits.json]
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ree import _core
from ree.training.step import compile_step

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "training"
STEPS, TINY_STEPS = 200, 5


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def roots(name, steps, variants):
    sys.path.insert(0, str(EXAMPLES))
    torch.manual_seed(0)
    module = load(name)
    step = compile_step(module.model(), module.loss, module.optimizer(), module.batch(1))
    for isa, threads, fuse in variants:
        runner = step.runner(threads, isa, fuse)
        start = time.time()
        for s in range(1, steps + 1):
            loss = runner.run(module.batch(s))
        yield {
            "example": name, "steps": steps, "isa": isa, "threads": threads, "fused": fuse,
            "loss": float(loss), "root": step.state_root(runner.state).hex(),
        }  # fmt: skip
        print(f"{name} {isa} {threads} {fuse}: {time.time() - start:.0f} s", file=sys.stderr)


def killed_and_resumed(steps):
    """The state root of a run by `ree train` that is killed once and then resumed."""
    with tempfile.TemporaryDirectory() as d:
        run = Path(d) / "run"
        command = [sys.executable, "-P", "-m", "ree.cli", "train", str(EXAMPLES / "chargpt.py"), "-o", str(run),
                   "--steps", str(steps), "--checkpoint-every", "40", "--no-keep-batches"]  # fmt: skip
        p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (run / "checkpoints").is_dir() or len(os.listdir(run / "checkpoints")) < 3:
            time.sleep(0.5)
            if p.poll() is not None:
                raise SystemExit("the run ended before it could be killed")
        p.send_signal(signal.SIGKILL)
        p.wait()
        subprocess.run(
            [*command, "--resume"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        show = [sys.executable, "-P", "-m", "ree.cli", "inspect", str(run), "--json"]
        return json.loads(subprocess.run(show, check=True, capture_output=True, text=True).stdout)[
            "root"
        ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", default=ROOT / "benchmarks" / "results" / "training_bits.json")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    isas = [i for i in _core.isa_names() if i != "portable"]
    variants = [(isas[0], 2, True), (isas[0], 1, True), (isas[0], 2, False)]
    variants += [(isa, 2, True) for isa in isas[1:]] + [(isas[-1], 1, False)]
    rows = list(roots("chargpt", args.steps, variants))
    rows.append({**rows[0], "killed": True, "root": killed_and_resumed(args.steps)})
    tiny = [(isa, t, f) for isa in (*isas, "portable") for t in (1, 2) for f in (True, False)]
    rows += list(roots("chargpt_tiny", TINY_STEPS, tiny))
    same = all(
        len({r["root"] for r in rows if r["example"] == e}) == 1
        for e in ("chargpt", "chargpt_tiny")
    )
    Path(args.o).write_text(json.dumps({"same": same, "runs": rows}, indent=1) + "\n")
    print("same" if same else "DIFFERENT")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
