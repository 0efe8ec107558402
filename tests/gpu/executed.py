"""Run on its own (the tests interpret Triton): the PTX of operators executed, and faults planted in it.

Prints one JSON line a case: where it ran, whether the bytes are the reference's, or what was said.
"""

import itertools
import json
import re
import sys

import numpy as np

from ree.compiler.ir import Builder
from ree.conformance import graph_of, program_of
from ree.errors import ReeError
from ree.kernels import opdef, registry  # noqa: F401
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.runtime import ptx_device

# a kernel of each kind, on one target each; benchmarks/ptx.py runs all operators on all of them
OPERATORS = (
    "mul",
    "cast",
    "convolution",
    "sum",
    "argmax",
    "softmax",
    "layer_norm",
    "attention",
    "cumsum",
    "sort",
    "gather",
    "index_put",
    "flip",
    "pad",
    "uniform",
)
FAULTY = ("mul", "sum", "softmax", "layer_norm")
DEVICES = ("ptx:sm_80,late,order=1", "ptx:sm_90", "ptx:sm_120,late,order=5")


def sample_of(op):
    """The largest sample, with every special value if there are several as large."""

    def size(s):
        return sum(x.size for x in s.inputs if x.size < 5000), "special" in s.name

    return max(opdef.get(op).samples(), key=size)


def contraction(m=40, k=300, n=70):
    """x W + b and gelu, W packed at load."""
    rng = np.random.default_rng(3)
    b = Builder()
    x, w, bias = (
        b.input(TensorType(DType.F32, (m, k))),
        b.weight(TensorType(DType.F32, (n, k))),
        b.input(TensorType(DType.F32, (n,))),
    )
    graph = b.finish((b.add("gelu", b.add("add", b.add("linear", x, w), bias)),))
    arrays = [rng.standard_normal(s, np.float32) for s in ((m, k), (n,), (n, k))]
    return Program(graph, Names(("x", "b"), ("y",), ("w",)), arrays[2:]), arrays[:2]


def of_operator(op):
    s = sample_of(op)
    return program_of(graph_of(op, s)), s.inputs


def say(name, device, program, inputs, fault=""):
    want = program.run(*inputs).outputs
    try:
        got = program.run(*inputs, device=device).outputs
        said = (
            "same"
            if all(a.tobytes() == b.tobytes() for a, b in zip(got, want, strict=True))
            else "differs"
        )
    except ReeError as e:
        said = str(e)
    print(json.dumps({"name": name, "device": device, "fault": fault, "said": said}), flush=True)


def first(pattern, text, by):
    """With the first match of a pattern replaced."""
    return re.sub(pattern, by, text, count=1)


def last_barrier(text):
    """Without the barrier at the end of the loop, before its buffer is written again."""
    at = text.rindex(
        "bar.sync", 0, text.rindex("@%p", 0, text.rindex("bra", 0, text.index("ret;")))
    )
    return text[:at] + "//" + text[at:]


def fused(text):
    """A product and a sum, each rounded, as one instruction that rounds once."""
    product = next(
        m
        for m in re.finditer(r"mul\.rn\.f32 \t(%r\d+), (%r\d+), (%r\d+);", text)
        if re.search(
            rf"add\.rn\.f32 \t%r\d+, {m[1]}, %r\d+;|add\.rn\.f32 \t%r\d+, %r\d+, {m[1]};", text
        )
    )
    r = product[1]
    text = re.sub(
        rf"add\.rn\.f32 \t(%r\d+), {r}, (%r\d+);",
        rf"fma.rn.f32 \t\1, {product[2]}, {product[3]}, \2;",
        text,
    )
    return re.sub(
        rf"add\.rn\.f32 \t(%r\d+), (%r\d+), {r};",
        rf"fma.rn.f32 \t\1, {product[2]}, {product[3]}, \2;",
        text,
    )


# fault -> (what runs, device, the edit, kernels whose text it is planted in)
FAULTS = {
    "barrier": (
        lambda: of_operator("layer_norm"),
        "ptx:sm_90",
        lambda t: first(r"bar\.sync", t, "//bar.sync"),
        "norm",
    ),
    "lane": (
        lambda: of_operator("sum"),
        "ptx:sm_90",
        lambda t: first(r"(shfl\.sync\.bfly\.b32 \t%r\d+, %r\d+), \d+,", t, r"\1, 5,"),
        "sum",
    ),
    "approximation": (
        lambda: of_operator("softmax"),
        "ptx:sm_90",
        lambda t: first(r"div\.rn", t, "div.approx"),
        "softmax",
    ),
    "fused": (lambda: of_operator("layer_norm"), "ptx:sm_90", fused, "norm"),
    "border": (
        lambda: of_operator("mul"),
        "ptx:sm_90",
        lambda t: t.replace("setp.lt.s32", "setp.le.s32"),
        "tile",
    ),
    "wait": (
        contraction,
        "ptx:sm_90,late",
        lambda t: t.replace("wait_group \t2;", "wait_group \t4;"),
        "gemm",
    ),
    "race": (contraction, "ptx:sm_90", last_barrier, "gemm"),
    "unwritten": (
        lambda: of_operator("layer_norm"),
        "ptx:sm_90",
        lambda t: first(r"(?m)^.*st\.shared.*$", t, ""),
        "norm",
    ),
}


def planted(fault):
    make, device, edit, kernel = FAULTS[fault]
    found = []
    real = ptx_device.native

    def native(text):
        if f".entry {kernel}" in text:
            try:
                changed = edit(text)
            except (ValueError, StopIteration):
                return real(text)
            found.append(changed != text)
            return real(changed)
        return real(text)

    ptx_device.native = native
    try:
        say(fault, device, *make(), fault=fault)
    finally:
        ptx_device.native = real
    if not any(found):
        sys.exit(f"fault {fault} was not planted")


if __name__ == "__main__":
    others = itertools.cycle((DEVICES[0], DEVICES[2]))
    for (
        op
    ) in OPERATORS:  # where a fault is planted below, on the device of that, whose kernels are kept
        say(op, "ptx:sm_90" if op in FAULTY else next(others), *of_operator(op))
    for device in DEVICES:  # integer matrix instructions, and copies that arrive early and late
        say("linear_i8", device, *of_operator("linear_i8"))
    for device in DEVICES[:2]:
        say("contraction", device, *contraction())
    for fault in FAULTS:
        planted(fault)
