"""Row kernels against torch, in turns of a few milliseconds; prints JSON of median times and of their ratio.

Results are preallocated on both sides: torch runs through out= (softmax, sum, mean, amax, argmax,
layer_norm as native_layer_norm.out); rms_norm has no out= and allocates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from turns import interleaved, ratio

from ree import _core
from ree.kernels.abi import call

Case = tuple[str, dict[str, torch.Tensor], dict[str, Any], Callable[[], object]]
EPS = 1e-5


def reduction(kernel: str, shape: tuple[int, ...], dim: int, mode: list[int]) -> Case:
    x = torch.randn(shape)
    kept = [d for i, d in enumerate(shape) if i != dim]
    dtype = torch.int64 if kernel == "argmax" else torch.float32
    y, z = torch.empty(kept, dtype=dtype), torch.empty(kept, dtype=dtype)
    outer, n = (1, shape[0]) if dim == 0 else (shape[0], shape[1])
    inner = shape[1] if dim == 0 else 1
    name = "mean" if mode == [1] else kernel
    f = getattr(torch, name)
    given: dict[str, Any] = {
        "outer": outer,
        "n": n,
        "inner": inner,
        "x_outer": n * inner,
        "x_n": inner,
        "x_inner": 1,
    }
    if kernel == "sum":
        given["mean"] = mode == [1]
    return kernel, {"x": x, "y": y}, given, lambda: f(x, dim, out=z)


def row(kernel: str, rows: int, n: int) -> Case:
    x, w, b = torch.randn(rows, n), torch.randn(n), torch.randn(n)
    y, z = torch.empty_like(x), torch.empty_like(x)
    mean, rstd = torch.empty(rows, 1), torch.empty(rows, 1)
    given: dict[str, Any] = {"rows": rows, "n": n, "x_row": n, "y_row": n}
    if kernel == "softmax":
        return kernel, {"x": x, "y": y}, given, lambda: torch.softmax(x, -1, out=z)
    given["eps"] = EPS
    if kernel == "layer_norm":
        out = torch.ops.aten.native_layer_norm.out
        return (kernel, {"x": x, "weight": w, "bias": b, "y": y}, given,
                lambda: out(x, [n], w, b, EPS, out0=z, out1=mean, out2=rstd))  # fmt: skip
    return (kernel, {"x": x, "weight": w, "y": y}, given,
            lambda: torch.nn.functional.rms_norm(x, (n,), w, EPS))  # fmt: skip


CASES: dict[str, Callable[[], Case]] = {
    f"{kernel} {rows}x{n}": lambda k=kernel, r=rows, n=n: row(k, r, n)  # type: ignore[misc]
    for kernel in ("softmax", "layer_norm", "rms_norm")
    for rows, n in ((4096, 1536), (64, 1536), (4096, 128), (512, 384))
} | {
    f"{kernel}{mode} {rows}x{n} dim {dim}": lambda k=kernel, r=rows, n=n, d=dim, m=mode: reduction(  # type: ignore[misc]
        k, (r, n), d, m
    )
    for kernel, mode in (("sum", [0]), ("sum", [1]), ("amax", []), ("argmax", []))
    for rows, n in ((4096, 1536), (64, 1536), (1, 4 << 20))
    for dim in (0, 1)
    if not (rows == 1 and dim == 0)
}


def measure(make: Callable[[], Case], isa: str, threads: int, seconds: float) -> dict[str, Any]:
    kernel, tensors, given, torch_call = make()
    pool, plan = _core.Pool(threads), _core.Plan(isa)
    plan.add(*call(kernel, **{name: i for i, name in enumerate(tensors)}, **given))
    table = [t.data_ptr() for t in tensors.values()]
    times = interleaved({"ree": lambda: plan.run(pool, table), "torch": torch_call}, seconds)
    ours, theirs = times["ree"], times["torch"]
    return {
        "us": round(median(ours) * 1e6, 1),
        "torch_us": round(median(theirs) * 1e6, 1),
        "time_ratio": ratio(ours, theirs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="substring of the case names to run")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--isa", default=_core.isa_names()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="per case")
    args = parser.parse_args()
    torch.manual_seed(0)
    results = {}
    with torch.no_grad():
        for threads in args.threads:
            torch.set_num_threads(threads)
            for name, make in CASES.items():
                if args.only in name:
                    results[f"{name} t{threads}"] = measure(make, args.isa, threads, args.seconds)
    print(json.dumps({"isa": args.isa, "torch": torch.__version__, "cases": results}, indent=1))


if __name__ == "__main__":
    main()
