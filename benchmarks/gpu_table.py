"""What can be said of the GPU kernels without a GPU: benchmarks/results/gpu_static.json.

Per kernel and target: registers, spills, warps a multiprocessor can hold by registers and shared memory,
and the share of FFMA among the instructions of its largest loop; with each case's flops and bytes. None of
these is a measurement of speed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from ree.compiler.audit import gpu
from ree.compiler.ir import Builder
from ree.compiler.plan.planner import plan
from ree.kernels import opdef, registry  # noqa: F401
from ree.kernels.gpu.launch import PANEL
from ree.kernels.types import DType, TensorType
from ree.runtime.gpu_executable import schedule

TARGETS = ("sm_80", "sm_90", "sm_120")
# registers, shared memory (KiB) and warps of a multiprocessor; bytes a flop at which memory and
# arithmetic balance is left to the reader, who knows the card
MACHINE = {"sm_80": (65536, 164, 64), "sm_90": (65536, 228, 64), "sm_120": (65536, 100, 48)}


def case(op, shapes, **attrs):
    b = Builder()
    sources = tuple(b.input(TensorType(DType.F32, s)) for s in shapes)
    node = b.add_node(op, sources, attrs)
    return b.finish((node.value,)), opdef.bind(
        op, [TensorType(DType.F32, s) for s in shapes], attrs, {}
    )


CASES = {
    "linear 4096x1024x1024": case("linear", [(4096, 1024), (1024, 1024)]),
    "linear 1x4096x1024": case("linear", [(1, 1024), (4096, 1024)]),
    "matmul 12x512x512x64": case("matmul", [(12, 512, 64), (12, 64, 512)]),
    "attention 8x12x1024x64": case("attention", [(8, 12, 1024, 64)] * 3, causal=True, scale=0.125,
                                   window=0, q_offset=0),
    "attention decode 12x4096x64": case("attention", [(1, 12, 1, 64), (1, 12, 4096, 64), (1, 12, 4096, 64)],
                                        causal=True, scale=0.125, window=0, q_offset=4095),
    "softmax 4096x1024": case("softmax", [(4096, 1024)], dim=1),
    "layer_norm 4096x768": case("layer_norm", [(4096, 768), (768,), (768,)],
                                eps=float(np.float32(1e-5)), weight=True, bias=True),
    "sum 4096x1024": case("sum", [(4096, 1024)], dim=1, keepdim=False),
    "gelu 4096x1024": case("gelu", [(4096, 1024)]),
}  # fmt: skip


def loop_share(sass: str) -> float:
    """Share of FFMA in the innermost loop that holds most of them."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", sass)
    at = [int(a, 16) for a, _, _ in lines]
    best = (0, 0.0)
    for i, (_, op, operands) in enumerate(lines):
        m = re.search(r"0x([0-9a-f]+)", operands) if op.startswith("BRA") else None
        if m is None or int(m[1], 16) >= at[i] or int(m[1], 16) not in at:
            continue
        body = lines[at.index(int(m[1], 16)) : i + 1]
        count = sum(o.startswith("FFMA") for _, o, _ in body)
        best = max(best, (count, count / len(body)))
    return round(best[1], 3)


def main() -> None:
    rows = []
    for name, (graph, node) in CASES.items():
        cost = opdef.get(node.op).cost(node)
        for target in TARGETS:
            for x in gpu.distinct(schedule(plan(graph, panel=PANEL))[0]):
                for y, limit in x.choices():
                    c = gpu.compile_launch(y, target, limit)
                    r = gpu.audit_cuda(c)
                    if not r.spills:
                        break
                registers, shared, most = MACHINE[target]
                blocks = min(registers // max(1, -(-r.registers // 8) * 8 * 32 * x.warps),
                             shared * 1024 // (r.shared + 1024), most // x.warps)  # fmt: skip
                rows.append({"case": name, "kernel": r.kernel, "target": target, "programs": x.grid,
                             "registers": r.registers, "spills": r.spills, "shared": r.shared,
                             "warps_resident": blocks * x.warps,
                             "ffma_share_of_loop": loop_share(gpu.disassemble(c.binary)[0]),
                             "case_flops": cost.flops, "case_bytes": cost.bytes,
                             "findings": len(r.findings)})  # fmt: skip
                print(rows[-1]["case"], r.kernel.split("[")[0], target, r.registers, r.spills,
                      rows[-1]["ffma_share_of_loop"], flush=True)  # fmt: skip
    from importlib.metadata import version

    out = Path(__file__).parent / "results" / "gpu_static.json"
    out.write_text(json.dumps({"triton": version("triton"), "note": "compiled, not run", "kernels": rows},
                              indent=1) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
