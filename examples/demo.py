"""The main job on a real model: compile, run, trace, verify, and find a single flipped bit."""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch

import ree
from ree import _core
from ree.explanation import explain
from ree.traces.files import read_trace, write_trace
from ree.verification import replayed_tensors, verify

sys.path.insert(0, str(Path(__file__).parent))
import minilm


def title(text):
    print(f"\n== {text}")


def table(vectors):
    return "\n".join("  " + " ".join(f"{x:6.3f}" for x in row) for row in vectors @ vectors.T)


def median_seconds(call, repeats=15):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main():
    begin = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="ree-demo-"))
    title("compile all-MiniLM-L6-v2")
    module, inputs = minilm.model(), minilm.example_inputs()
    start = time.perf_counter()
    program = ree.compile(module, inputs, minilm.dynamic_shapes())
    program.save(folder / "minilm.ree")
    print(f"  {time.perf_counter() - start:.1f} s, {len(program.graph.nodes)} operators")
    print(f"  program {program.program_hash.hex()}")
    print(f"  weights {program.weights_root.hex()}")

    title("embed six sentences: cosine similarity, REE above PyTorch")
    for i, sentence in enumerate(minilm.SENTENCES):
        print(f"  {i} {sentence}")
    program = ree.load(folder / "minilm.ree")
    ours = program(**inputs).numpy()
    with torch.no_grad():
        theirs = module(**inputs).numpy()
    print(table(ours), table(theirs), sep="\n\n")
    print(f"\n  largest difference of an embedding: {np.abs(ours - theirs).max():.1e}")

    title("speed: one text of 128 tokens, threads as set for each")
    ids = torch.randint(1000, 20000, (1, 128), generator=torch.Generator().manual_seed(0))
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with torch.no_grad():
        module(**text)
        program(**text)
        torch_time = median_seconds(lambda: module(**text))
        ree_time = median_seconds(lambda: program(**text))
    print(f"  REE {1e3 * ree_time:.1f} ms, PyTorch {1e3 * torch_time:.1f} ms: "
          f"{ree_time / torch_time:.2f} of its time")  # fmt: skip

    title("trace every operator, verify elsewhere")
    best = _core.isa_names()[0]
    result = program.run(**inputs, trace="ops", keep_values=True, isa=best)
    path = folder / "run.trace"
    write_trace(path, result.trace, replayed_tensors(result))
    print(f"  {best}, {len(os.sched_getaffinity(0))} threads: root {result.trace.root.hex()}")
    other = _core.isa_names()[-1]
    start = time.perf_counter()
    report = verify(program, read_trace(path).trace, inputs, threads=1, isa=other)
    print(f"  {other}, 1 thread: root {report.replayed.root.hex()}")
    print(f"  same: {report.same} ({time.perf_counter() - start:.1f} s)")
    ok = report.same

    title("a provider flips one bit of one weight")
    name = "transformer.encoder.layer.3.intermediate.dense.weight"
    weights = [w.copy() for w in program.weights]
    weights[program.names.weights.index(name)].view(np.uint32)[700, 123] ^= 1 << 12
    cheater = ree.Program(program.graph, program.names, weights, program.examples)
    lie = cheater.run(**inputs, trace="ops", keep_values=True)
    forged = folder / "forged.trace"
    write_trace(forged, lie.trace, replayed_tensors(lie))
    file = read_trace(forged)
    report = verify(program, file.trace, inputs, tensors=file.tensors)
    show(report)
    ok &= not report.same

    title("somebody changes one byte of the trace")
    raw = bytearray(path.read_bytes())
    hashed = [h for h in result.trace.values if h != bytes(32)]  # pure moves have no hash
    raw[raw.index(hashed[60])] ^= 0x01
    path.write_bytes(raw)
    file = read_trace(path)
    report = verify(program, file.trace, inputs, tensors=file.tensors)
    show(report)
    ok &= not report.same
    print(f"\nall as it should be: {ok}; {time.perf_counter() - begin:.0f} s; files in {folder}")
    return 0 if ok else 1


def show(report):
    print(f"  same: {report.same}")
    for d in report.differences:
        for line in explain(d, "trace", "replay"):
            print(f"  {line}")
    for what in report.forged:
        print(f"  {what}: the tensor carried is not the one the trace commits to")


if __name__ == "__main__":
    sys.exit(main())
