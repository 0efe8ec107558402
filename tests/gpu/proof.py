"""Run on its own (the tests interpret Triton): PTX of contractions against the contract's chain.

Prints one JSON line a case: what was compiled, with which fault planted, and how many elements differ.
"""

import dataclasses
import json
import os
import re
import sys

from ree.compiler.audit import gpu, ptx
from ree.compiler.ir import Builder, Kind, Ref
from ree.compiler.plan.planner import plan
from ree.kernels import registry  # noqa: F401
from ree.kernels.gpu import contraction as contraction_triton
from ree.kernels.gpu.launch import PANEL
from ree.kernels.types import DType, TensorType
from ree.runtime.gpu_executable import schedule

K, N = 272, 24  # two full segments and a short one


def compiled(m, fill, target):
    contraction_triton.FILL = fill
    b = Builder()
    x, w = (TensorType(DType.F32, s) for s in ((m, K), (N, K)))
    node = b.add_node("linear", (b.input(x), b.weight(w)), {})  # a weight is packed
    graph = b.finish((Ref(Kind.VALUE, node.first),))
    launches = schedule(plan(graph, panel=PANEL))[0]
    return [
        gpu.compile_launch(x, target) for x in launches if x.name != "pack" and x.name != "fill"
    ]


def differing(kernels, m, late):
    a, b = (p.slot for p in kernels[0].launch.args[:2])
    y = kernels[-1].launch.args[2 if len(kernels) == 1 else 1].slot
    out = ptx.stored(kernels, late)
    where = {(i, j): (y, i * N + j) for i in range(m) for j in range(N)}
    assert {k for k in out if k[0] == y} == set(where.values())
    return sum(
        ptx.without_canonical(out[where[i, j]])
        != ptx.contraction(
            [("in", a, i * K + k) for k in range(K)], [("in", b, k * PANEL + j) for k in range(K)]
        )
        for i, j in where
    )


def case(name, kernels, m, late, fault=""):
    try:
        wrong = differing(kernels, m, late)
    except ptx.PtxError as e:
        wrong = str(e)
    print(json.dumps({"name": name, "target": kernels[0].target, "late": late, "fault": fault,
                      "wrong": wrong}), flush=True)  # fmt: skip


FMA = r"fma\.rn\.f32 \t(%r\d+), (%r\d+, %r\d+), (%r\d+);"


def planted(text):
    """Faults, each a small change of the text."""
    first = re.search(FMA, text)
    second = next(x for x in re.finditer(FMA, text) if x[3] == first[1])
    swapped = (x[0].replace(x[2], y[2]) for x, y in ((first, second), (second, first)))
    one, two = swapped
    yield "order", text.replace(first[0], one).replace(second[0], two)
    apart = f"mul.rn.f32 {first[1]}, {first[2]};\nadd.rn.f32 {first[1]}, {first[1]}, {first[3]};"
    yield "unfused", text.replace(first[0], apart)
    yield "segment", text.replace("112;", "240;", 1)  # (k + 16) % 128 as % 256
    barrier = r"(cp\.async\.wait_group \t2;\n)(?:.*\n)*?\s*bar\.sync \t0;"
    yield "barrier", re.sub(barrier, r"\1", text, count=1)
    yield "wait", text.replace("wait_group \t2;", "wait_group \t4;")


for target in ("sm_90", "sm_80", "sm_120"):
    for m, fill in ((20, 0), (4, 120), (20, 120)):
        if target == "sm_90" or fill == 0:
            kernels = compiled(m, fill, target)
            # copies as early as they may be, too, for one; for all with REE_EVERY_SAMPLE
            early = "REE_EVERY_SAMPLE" in os.environ or (target == "sm_90" and fill == 0)
            for late in (False, True)[not early :]:
                case("+".join(k.launch.name for k in kernels), kernels, m, late)

(kernel,) = compiled(20, 0, "sm_90")
for fault, text in planted(kernel.text):
    if text == kernel.text:
        sys.exit(f"fault {fault} was not planted")
    case("gemm", [dataclasses.replace(kernel, text=text)], 20, True, fault)
