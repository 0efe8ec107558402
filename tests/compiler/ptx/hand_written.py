"""Kernels of one instruction, written by hand: operands of every lane in, results out."""

import numpy as np

from ree import _core
from ree.compiler.ptx.native import PtxSchedule, launch, native

KIND = {1: "p", 16: "rs", 32: "r", 64: "rd"}
POOL = _core.Pool(1)
FIRST = PtxSchedule()
HEAD = """.version 8.7
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
"""


def kernel(parameters, body, threads=32, name="k"):
    """PTX of a kernel with pointers as parameters."""
    params = ",\n".join(
        f"\t.param .u64 .ptr .global .align 1 {name}_param_{i}" for i in range(parameters)
    )
    return (
        f"{HEAD}.visible .entry {name}(\n{params}\n)\n.reqntid {threads}\n{{\n{body}\n\tret;\n}}\n"
    )


def execute(text, arrays, grid=(1, 1, 1), shared=0, schedule=FIRST):
    """Run a kernel on arrays, which it may change."""
    extents = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays]
    launch(native(text), grid, [low for low, _ in extents], shared, extents, POOL, schedule)


def lane_by_lane(statements, operands, results, shared=0, threads=32):
    """What statements compute in each thread, as arrays of integers.

    operands: (width, values) of %p1.., %rs1.., %r1.., %rd1.. by position: operand n is the register n of its
    width. results: widths; result n is the register 50 + n of its width."""
    count = len(operands[0][1])
    blocks = -(-count // threads)
    lines = ["\tmov.u32 %r90, %tid.x;", "\tmov.u32 %r91, %ctaid.x;",
             f"\tmad.lo.s32 %r90, %r91, {threads}, %r90;"]  # fmt: skip
    arrays = []
    for n, (bits, values) in enumerate(operands, 1):
        size = max(bits, 16) // 8 if bits > 1 else 4
        a = np.zeros(blocks * threads, f"u{size}")
        a[:count] = [v & ((1 << 8 * size) - 1) for v in values]
        arrays.append(a)
        lines += [
            f"\tld.param.b64 %rd90, [k_param_{n - 1}];",
            f"\tmad.wide.u32 %rd90, %r90, {size}, %rd90;",
        ]
        if bits == 1:
            lines += ["\tld.global.b32 %r92, [%rd90];", f"\tsetp.ne.b32 %p{n}, %r92, 0;"]
        else:
            lines.append(f"\tld.global.b{bits} %{KIND[bits]}{n}, [%rd90];")
    lines += [f"\t{s};" for s in statements.strip().rstrip(";").split(";")]
    for n, bits in enumerate(results):
        size = max(bits, 16) // 8 if bits > 1 else 4
        arrays.append(np.zeros(blocks * threads, f"u{size}"))
        lines += [f"\tld.param.b64 %rd90, [k_param_{len(operands) + n}];",
                  f"\tmad.wide.u32 %rd90, %r90, {size}, %rd90;"]  # fmt: skip
        if bits == 1:
            lines += [f"\tselp.b32 %r92, 1, 0, %p{50 + n};", "\tst.global.b32 [%rd90], %r92;"]
        else:
            lines.append(f"\tst.global.b{bits} [%rd90], %{KIND[bits]}{50 + n};")
    execute(kernel(len(arrays), "\n".join(lines), threads), arrays, (blocks, 1, 1), shared)
    return [[int(x) for x in a[:count]] for a in arrays[len(operands) :]]
