"""Training steps of REE against torch eager, and peak memory of both; JSON on stdout.

Time: both sides take the same batches in turn in one process with the same number of threads; torch's is the
plain loop with AdamW's faster setting. With history, REE also hashes the new state and the batch and appends
to the run's history tree. Memory: what a process of its own holds at most during steps, above what it held
before the model was loaded.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from turns import interleaved, ratio

EXAMPLES = Path(__file__).parent.parent / "examples" / "training"
NAMES = ("digits", "chargpt", "minilm_lora")
WANTED = {"step": 1.0, "history": "step * 1.10 for chargpt", "memory": 1.2}
SETTINGS = ("foreach", "fused")
STEPS_OF_MEMORY = 4


def of_examples(name: str) -> Any:
    """A module of examples/training."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


class WithHistory:
    """Steps that are committed as they are made."""

    def __init__(self, step: Any, threads: int) -> None:
        from ree.traces.history import History, RunHeader
        from ree.training.state_hash import StateHasher, unchanged_states

        self.runner = step.runner(threads=threads)
        self.history = History(
            RunHeader(bytes(32), step.instance.digest, step.weights_root, bytes(32), 0)
        )
        graph = step.graph
        self.hasher = StateHasher(graph.states, unchanged=unchanged_states(graph), threads=threads)

    def run(self, batch: list[Any]) -> None:
        from ree.runtime.hashing import hash_array
        from ree.traces.history import StepRecord, batch_digest, state_root

        digest = batch_digest(hash_array(x) for x in batch)
        loss = self.runner.run(batch)
        root = state_root(self.hasher(self.runner.state))
        self.history.append(StepRecord(root, int(np.float32(loss).view(np.uint32)), digest))


def bench_time(name: str, threads: int, seconds: float) -> dict[str, Any]:
    import torch

    from ree.training.step import compile_step

    module, trainer = of_examples(name), of_examples("compare").TorchTrainer
    torch.set_num_threads(threads)
    batches = [module.batch(i) for i in range(8)]
    arrays = [[x.numpy() for x in b] for b in batches]
    begin = time.perf_counter()
    step = compile_step(module.model(), module.loss, module.optimizer(), batches[0])
    compiled = time.perf_counter() - begin

    def over(run: Callable[[Any], Any], data: list[Any]) -> Callable[[], Any]:
        at = iter(range(10**9))
        return lambda: run(data[next(at) % len(data)])

    work = {s: over(trainer(module, **{s: True}).run, batches) for s in SETTINGS}
    times = interleaved(work, seconds / 3)
    best = min(SETTINGS, key=lambda s: statistics.median(times[s]))
    times = interleaved(
        {
            "torch": work[best],
            "step": over(step.runner(threads=threads).run, arrays),
            "history": over(WithHistory(step, threads).run, arrays),
        },
        seconds,
    )
    return {
        "case": name, "threads": threads, "torch_setting": best, "compile_s": round(compiled, 1),
        "torch_ms": round(1e3 * statistics.median(times["torch"]), 2),
        "ree_ms": round(1e3 * statistics.median(times["step"]), 2),
        "step": ratio(times["step"], times["torch"]),
        "history": ratio(times["history"], times["torch"]),
        "history_over_step": ratio(times["history"], times["step"]),
    }  # fmt: skip


def status(key: str) -> float:
    """A figure of /proc/self/status in MiB."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.M)
    assert found is not None
    return int(found[1]) / 1024


def print_growth(make: Callable[[], Callable[[int], Any]]) -> None:
    """MiB held at most during steps after the first, above what the process held before `make`.

    A trainer that is made, used once and dropped comes before, so that libraries are loaded already.
    """
    make()(0)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    run = make()
    run(0)
    Path("/proc/self/clear_refs").write_text(
        "5"
    )  # the peak so far is forgotten: loading has its own
    for i in range(1, STEPS_OF_MEMORY):
        run(i)
    print(status("VmHWM") - before)


def memory_of_torch(name: str, setting: str, threads: int) -> None:
    import torch

    module, compare = of_examples(name), of_examples("compare")
    torch.set_num_threads(threads)
    batches = [module.batch(i) for i in range(STEPS_OF_MEMORY)]

    def make() -> Callable[[int], Any]:
        trainer = compare.TorchTrainer(module, **{setting: True})
        return lambda i: trainer.run(batches[i])

    print_growth(make)


def arrays(path: str) -> list[Any]:
    """The arrays of an npz file in order."""
    with np.load(path) as f:
        return [f[k] for k in f.files]


def memory_of_ree(folder: str, threads: int) -> None:
    from ree.training.step import Step

    batches = [arrays(f"{folder}/{i}.npz") for i in range(STEPS_OF_MEMORY)]

    def make() -> Callable[[int], Any]:
        runner = Step.load(Path(folder) / "step").runner(threads=threads)
        runner.load(arrays(f"{folder}/state.npz"))
        return lambda i: runner.run(batches[i])

    print_growth(make)


def bench_memory(name: str, threads: int) -> dict[str, Any]:
    def growth(*args: str) -> float:
        command = [sys.executable, __file__, "--memory", *args]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return float(done.stdout.split()[-1])

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--save", name, folder], check=True)
        ree = growth("ree", folder, str(threads))
    torch = min(growth("torch", name, s, str(threads)) for s in SETTINGS)
    return {"case": name, "threads": threads, "torch_mib": round(torch, 1),
            "ree_mib": round(ree, 1), "memory": round(ree / torch, 3)}  # fmt: skip


def save(name: str, folder: str) -> None:
    """The step, its first state and batches, for a process that needs no torch."""
    from ree.training.step import compile_step

    module = of_examples(name)
    step = compile_step(module.model(), module.loss, module.optimizer(), module.batch(0))
    step.save(Path(folder) / "step")
    np.savez(f"{folder}/state.npz", *step.initial)
    for i in range(STEPS_OF_MEMORY):
        np.savez(f"{folder}/{i}.npz", *(x.numpy() for x in module.batch(i)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=30.0, help="per example and thread count")
    parser.add_argument("--save", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.save:
        save(*args.save)
    elif args.memory:
        side, *rest, threads = args.memory
        {"torch": memory_of_torch, "ree": memory_of_ree}[side](*rest, int(threads))
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(args.threads)))
        data: dict[str, Any] = {"wanted": WANTED, "time": [], "memory": []}
        for name in args.names:
            data["time"] += [bench_time(name, t, args.seconds) for t in args.threads]
            data["memory"] += [bench_memory(name, t) for t in args.threads]
        print(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
