"""The PTX of every operator on every sample, and of whole programs, executed on this CPU (docs/ptx.md).

    python benchmarks/ptx.py [--devices ptx:sm_90 ...] [--parts NAME ...] [-o benchmarks/results/ptx.json]

Each device is a target and a schedule. Digests of operators are compared with the committed ones of the
references (ree/data/golden.json), those of programs with the CPU's outputs. The file is written after each
device and keeps what it has of others. With --parts, operators or programs by name, nothing is written. Exit
status 1 if anything differs or is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import ree
from ree import conformance, sampling
from ree.errors import ReeError
from ree.float_mode import clean_floats
from ree.kernels import opdef
from ree.kernels.opdef import Array
from ree.optim import AdamW, Cosine
from ree.program import Program
from ree.quantisation import quantise
from ree.training.step import compile_step

RESULTS = Path(__file__).parent / "results" / "ptx.json"
DEVICES = ("ptx:sm_90", "ptx:sm_80,late,order=1", "ptx:sm_120,late,order=5")


class Words(nn.Module):
    """A transformer's layer with its embedding, its head and dropout."""

    def __init__(self, width: int = 8, words: int = 9) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(words, width, padding_idx=2), nn.LayerNorm(width)
        self.qkv, self.up = nn.Linear(width, 3 * width), nn.Linear(width, 12)
        self.down = nn.Linear(12, width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return F.dropout(x + self.down(F.gelu(self.up(x))), 0.2) @ self.table.weight.T


class Images(nn.Module):
    """A small convolutional net with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1))


class Draws(nn.Module):
    """A token drawn for each row of logits."""

    def forward(self, logits: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        return sampling.sample(
            logits, temperature=0.8, top_p=0.9, min_p=0.01, top_k=200, seed=seed, position=7
        )


Made = tuple[Program, Sequence[Array]]
Part = Callable[[str, str], dict[str, Any]]


def minilm() -> Made:
    """MiniLM's graph with made weights on one text of 16 tokens."""
    program = conformance.model_program()
    return program, [
        np.ascontiguousarray(program.examples[n][:1, :16]) for n in program.names.inputs
    ]


def training(model: nn.Module, *batch: torch.Tensor) -> Made:
    """A step: forward, backward, the norm of the gradients clipped, AdamW."""
    step = compile_step(
        model, lambda m, b: F.cross_entropy(m(b[0]).flatten(0, -2), b[1].flatten()),
        AdamW(0.01, clip_norm=0.5, schedule=Cosine(1, 5)), batch, seed=3,
    )  # fmt: skip
    return step.as_function(), [*map(np.array, step.initial), *(x.numpy() for x in batch)]


def int8() -> Made:
    """Two linear layers with gelu and softmax, with weights and activations of 8 bits."""
    model = nn.Sequential(nn.Linear(200, 96), nn.GELU(), nn.Linear(96, 40), nn.Softmax(-1)).eval()
    program = quantise(ree.compile(model, {"input": torch.randn(7, 200)})).program
    return program, list(program.examples.values())


def sampler() -> Made:
    """Tokens of four rows over a vocabulary of 4,096."""
    given = {"logits": torch.randn(4, 4096) * 3, "seed": torch.arange(4)}
    program = ree.compile(Draws(), given)
    return program, list(program.examples.values())


PROGRAMS: dict[str, Callable[[], Made]] = {
    "MiniLM 1x16": minilm,
    "training step, transformer": lambda: training(
        Words(), torch.randint(0, 9, (2, 5)), torch.randint(0, 9, (2, 5))
    ),
    "training step, convolutions": lambda: training(
        Images(), torch.randn(3, 1, 6, 6), torch.randint(0, 4, (3,))
    ),
    "W8A8 layers": int8,
    "sampler": sampler,
}  # fmt: skip


@clean_floats
def program_part(name: str, device: str) -> dict[str, Any]:
    """One program on a device and on the CPU."""
    torch.manual_seed(0)
    program, inputs = PROGRAMS[name]()
    want, got = (
        conformance.digest([tuple(map(np.asarray, program.run(*inputs, device=d).outputs))])
        for d in ("cpu", device)
    )
    return {"digest": got, "same": got == want}


def operator_part(name: str, device: str) -> dict[str, Any]:
    """One operator on a device, on every sample, against the committed digest."""
    golden = json.loads(conformance.GOLDEN.read_text())["operators"]
    return conformance.run_operator(name, device, golden.get(name))


def parts(of: Part, device: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The results of each part; what was said for one that is refused."""
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        start = time.perf_counter()
        try:
            out = of(name, device)
        except ReeError as e:
            out = {"same": False, "said": str(e)}
        out["seconds"] = round(time.perf_counter() - start, 1)
        said = (
            "same" if out["same"] else out.get("said") or f"DIFFERENT, first in {out.get('first')}"
        )
        print(f"{device} {name}: {said}, {out['seconds']} s", file=sys.stderr, flush=True)
        results[name] = out
    return results


def run(device: str, chosen: Sequence[str]) -> dict[str, Any]:
    """Everything on a device, or the parts chosen."""
    start, cpu = time.perf_counter(), time.process_time()
    operators = parts(
        operator_part, device, [x for x in opdef.names() if not chosen or x in chosen]
    )
    half, half_cpu = time.perf_counter(), time.process_time()
    programs = parts(program_part, device, [x for x in PROGRAMS if not chosen or x in chosen])
    both = {**operators, **programs}
    return {
        "device": device,
        "contract": json.loads(conformance.GOLDEN.read_text())["contract"],
        "versions": conformance.describe_device(device)["versions"],
        "cores": os.cpu_count(),
        "same": all(p["same"] for p in both.values()),
        "cases": sum(p.get("samples", 0) for p in operators.values()),
        "failed": sorted(n for n, p in both.items() if not p["same"]),
        "load": round(os.getloadavg()[2], 1),
        "operators_s": round(half - start),
        "operators_cpu_s": round(half_cpu - cpu),
        "programs_s": round(time.perf_counter() - half),
        "programs_cpu_s": round(time.process_time() - half_cpu),
        "operators": operators,
        "programs": programs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--devices", nargs="+", default=DEVICES, metavar="ptx:TARGET[,late][,order=N]"
    )
    parser.add_argument(
        "--parts", nargs="+", default=[], choices=[*opdef.names(), *PROGRAMS], metavar="NAME"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--programs", action="store_true", help="the whole programs alone, as --parts"
    )
    args = parser.parse_args()
    if args.programs:
        args.parts = list(PROGRAMS)
    rows = json.loads(args.output.read_text()) if args.output.exists() else []
    same = True
    for device in args.devices:
        row = run(device, args.parts)
        same = same and row["same"]
        if not args.parts:
            rows = sorted(
                [*(r for r in rows if r["device"] != device), row], key=lambda r: r["device"]
            )
            args.output.write_text(json.dumps(rows, indent=1) + "\n")
        counts = {k: x for k, x in row.items() if k not in ("operators", "programs", "versions")}
        print(json.dumps(counts), flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
