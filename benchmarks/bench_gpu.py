"""GPU kernels against torch's on the same GPU: ratios of time, both sides interleaved in one run.

    python benchmarks/bench_gpu.py -o results.json

TF32 is off on both sides. Without a CUDA device it says so and exits 2: no figure is ever made up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ree.compiler.ir import Builder
from ree.conformance import describe_device, model_program, program_of
from ree.errors import ReeError
from ree.kernels import registry  # noqa: F401
from ree.kernels.gpu.launch import Ptr, kernel_call, table
from ree.kernels.types import DType, TensorType
from ree.runtime.gpu_device import find_device

ROUNDS, REPEATS = 15, 10


def program(op, shapes, **attrs):
    b = Builder()
    sources = tuple(b.input(TensorType(DType.F32, s)) for s in shapes)
    return program_of(b.finish((b.add_node(op, sources, attrs).value,)))


def milliseconds(f: Callable[[], object]) -> float:
    """Time of one call, by CUDA events over a few."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPEATS):
        f()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / REPEATS


def compare(ours: Callable[[], object], theirs: Callable[[], object]) -> dict[str, float]:
    for f in (ours, theirs, ours, theirs, ours):  # compiles, warms up and records the CUDA graph
        f()
    torch.cuda.synchronize()
    a, b = [], []
    for _ in range(ROUNDS):
        a.append(milliseconds(ours))
        b.append(milliseconds(theirs))
    mine, other = statistics.median(a), statistics.median(b)
    return {"ree_ms": mine, "torch_ms": other, "speed_against_torch": other / mine}


def kernels_only(p, inputs):
    """The program's launches alone: inputs are in place, outputs stay."""
    from ree.runtime.backend import Options
    from ree.runtime.gpu import Gpu

    e = Gpu("cuda", p.weights).executable(p, p.bind_symbols(inputs), Options())
    e.run(inputs)
    return e._execute


def cases():
    f32 = torch.float32
    eps = float(np.float32(1e-5))

    def rand(*shape):
        return torch.randn(*shape, device="cuda", dtype=f32)

    for n in (1024, 2048, 4096):
        x, w = rand(n, n), rand(n, n)
        yield (
            f"sgemm {n}",
            program("linear", [(n, n), (n, n)]),
            [x, w],
            lambda x=x, w=w: F.linear(x, w),
        )
    for m, n, k in ((1, 4096, 4096), (1, 11008, 4096), (8, 4096, 4096)):
        x, w = rand(m, k), rand(n, k)
        yield (
            f"decode {m}x{n}x{k}",
            program("linear", [(m, k), (n, k)]),
            [x, w],
            lambda x=x, w=w: F.linear(x, w),
        )
    q, k, v = (rand(4, 12, 1024, 64) for _ in range(3))
    attrs = {"causal": True, "scale": 0.125, "window": 0, "q_offset": 0}
    for name, backend in (("math", torch.nn.attention.SDPBackend.MATH),
                          ("efficient", torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION)):  # fmt: skip

        def attention(backend=backend):
            with torch.nn.attention.sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        yield (
            f"attention against {name}",
            program("attention", [tuple(q.shape)] * 3, **attrs),
            [q, k, v],
            attention,
        )
    x, w, b = rand(8192, 1024), rand(1024), rand(1024)
    yield "softmax", program("softmax", [(8192, 1024)], dim=1), [x], lambda: torch.softmax(x, -1)
    affine = {"eps": eps, "weight": True, "bias": True}
    yield ("layer_norm", program("layer_norm", [(8192, 1024), (1024,), (1024,)], **affine),
           [x, w, b], lambda: F.layer_norm(x, (1024,), w, b, eps))  # fmt: skip
    yield "sum", program("sum", [(8192, 1024)], dim=1, keepdim=False), [x], lambda: x.sum(1)
    yield "gelu", program("gelu", [(8192, 1024)]), [x], lambda: F.gelu(x)
    yield "exp", program("exp", [(8192, 1024)]), [x], lambda: torch.exp(x)


def hash_rate() -> dict[str, float]:
    """SHA-256 tree of 1 GiB, in GB/s."""
    from ree.kernels.gpu.launch import SCRATCH
    from ree.runtime.gpu_executable import typed

    n = 1 << 30
    call = kernel_call("tree_hash", data=0, root=1, bytes=n)
    table()["tree_hash"](call)
    memory = {0: torch.zeros(n, dtype=torch.uint8, device="cuda"),
              1: torch.zeros(32, dtype=torch.uint8, device="cuda"),
              SCRATCH: torch.zeros(call.scratch, dtype=torch.uint8, device="cuda")}  # fmt: skip
    bound = [(x.kernel[x.grid], [typed(memory[a.slot], a) if isinstance(a, Ptr) else a for a in x.args],
              x.options()) for x in call.launches]  # fmt: skip

    def run():
        for kernel, args, options in bound:
            kernel(*args, **options)

    run()
    return {"GB_per_s": n / 1e6 / statistics.median(milliseconds(run) for _ in range(5))}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    try:
        find_device("cuda")
    except ReeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    results = {}
    for name, p, inputs, theirs in cases():
        results[name] = compare(kernels_only(p, inputs), theirs)
        print(f"{name:32} {results[name]['speed_against_torch']:.2f}x torch", flush=True)
    results["sha256 tree"] = hash_rate()
    p = model_program()
    results["minilm conformance model"] = {"ree_ms": milliseconds(kernels_only(
        p, [torch.from_numpy(p.examples[n]).cuda() for n in p.names.inputs]))}  # fmt: skip
    report = {"device": describe_device("cuda"), "results": results}
    text = json.dumps(report, indent=1)
    if args.output:
        args.output.write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
