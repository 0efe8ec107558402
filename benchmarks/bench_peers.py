"""Whole models against what others run them with: python benchmarks/bench_peers.py [-o FILE]

    [--cases "MiniLM 1x16" ...] [--threads 1 2] [--seconds 10]

Time of REE over that of torch, torch.compile, ONNX Runtime and OpenVINO, in turns in one process, fastest
turn of each; all in float32 with the shape fixed. ONNX Runtime is tried with and without spinning threads,
torch.compile with frozen weights. ViT-B and ResNet-50 have random weights. Needs the extra `peers`; exit
status 2 without.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from run import cpu_name
from turns import interleaved

import ree

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

PEERS = ("onnx", "onnxscript", "onnxruntime", "openvino")
CASES = ("MiniLM 1x16", "MiniLM 1x128", "MiniLM 8x128", "MiniLM 32x128", "ViT-B 1", "ResNet-50 1")
TOLERANCE = 1e-3  # of the largest number of torch's output: the sides computed the same thing


class First(torch.nn.Module):
    """A model's first output alone, its inputs by position."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        out = self.model(**dict(zip(self.names, xs, strict=True)))
        return out if isinstance(out, torch.Tensor) else out[0]


def case_of(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    kind, shape = name.split()
    if kind == "MiniLM":
        import minilm

        batch, tokens = map(int, shape.split("x"))
        ids = torch.randint(1000, 20000, (batch, tokens))
        names = ("input_ids", "attention_mask")
        return First(minilm.model(), names).eval(), (ids, torch.ones_like(ids))
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    model = ViTModel(ViTConfig()) if kind == "ViT-B" else ResNetModel(ResNetConfig())
    return First(model, ("pixel_values",)).eval(), (torch.randn(int(shape), 3, 224, 224),)


def onnx_of(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> bytes:
    f = io.BytesIO()
    torch.onnx.export(module, inputs, dynamo=True, verbose=False).save(f)
    return f.getvalue()


def sides(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], threads: int
) -> dict[str, Callable[[], Any]]:
    import onnxruntime as ort
    import openvino as ov

    data = onnx_of(module, inputs)
    arrays = [x.numpy() for x in inputs]
    program = ree.compile(module, inputs)
    compiled = torch.compile(module)
    calls: dict[str, Callable[[], Any]] = {
        "ree": lambda: program.run(*inputs, threads=threads),
        "torch": lambda: module(*inputs),
        "torch_compile": lambda: compiled(*inputs),
    }
    for side, spin in (("onnxruntime", "1"), ("onnxruntime_no_spin", "0")):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", spin)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        feed = {i.name: x for i, x in zip(session.get_inputs(), arrays, strict=True)}
        calls[side] = lambda s=session, f=feed: s.run(None, f)[0]
    core = ov.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    request = core.compile_model(core.read_model(io.BytesIO(data)), "CPU", settings)
    request = request.create_infer_request()
    calls["openvino"] = lambda: request.infer(arrays, share_inputs=True, share_outputs=True)[0]
    return calls


def row(name: str, threads: int, seconds: float) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch._dynamo.reset()
    module, inputs = case_of(name)
    load = os.getloadavg()[0]
    with torch.no_grad():
        calls = sides(module, inputs, threads)
        right = module(*inputs)
        for side, call in calls.items():
            got = call()
            got = got.outputs[0] if isinstance(got, ree.Result) else got
            off = float((torch.as_tensor(got) - right).abs().max() / right.abs().max())
            if not off <= TOLERANCE:
                raise SystemExit(f"{name}: {side} is {off:.1e} from torch, not {TOLERANCE}")
        times = interleaved(calls, seconds)
    best = {side: min(t) for side, t in times.items()}
    best["onnxruntime"] = min(best["onnxruntime"], best.pop("onnxruntime_no_spin"))
    return {"case": name, "threads": threads, "load": round(load, 2), "rounds": len(times["ree"]),
            **{f"{side}_ms": round(1e3 * t, 3) for side, t in best.items()},
            **{f"ree_over_{s}": round(best["ree"] / t, 3) for s, t in best.items() if s != "ree"}}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0, help="per row")
    args = parser.parse_args()
    absent = [p for p in PEERS if importlib.util.find_spec(p) is None]
    if absent:
        hint = "pip install 'ree-ml[peers]'"
        print(f"bench_peers.py: {', '.join(absent)} absent: {hint}", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore")
    import torch._inductor.config

    torch._inductor.config.freezing = True
    data: dict[str, Any] = {"cpu": cpu_name(), "rows": [],
                            "versions": {p: version(p) for p in ("torch", *PEERS)}}  # fmt: skip
    for name in args.cases:
        for threads in args.threads:
            data["rows"].append(row(name, threads, args.seconds))
            print(json.dumps(data["rows"][-1]), flush=True)
            if args.output:
                args.output.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
