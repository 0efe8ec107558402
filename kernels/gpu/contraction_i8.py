"""The contraction of 8-bit integers on a GPU: `gemm_i8` and `pack_i8`.

Totals are exact, so any order will do, a tensor core's as well: products of bytes added in 32 bits. The
instruction may saturate at the ends of an i32; no sum on the way gets there, since none has more
products than the whole. B lies in rows of k, whatever `group` says of a CPU's layout.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ree.kernels.gpu import lib as triton_lib
from ree.kernels.gpu.contraction import tile_position, tile_size
from ree.kernels.gpu.launch import KernelCall, Ptr, ceil_div, gpu_kernel
from ree.kernels.gpu.pointwise import TritonCode, is_wide, tile_args, tile_code
from ree.kernels.gpu.source import jit_source

BK = 64  # k of one dot


@triton.jit
def byte_dots(pa, pb, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """The contraction of rows at pa and columns at pb, both dense along k."""
    total = tl.zeros((BM, BN), tl.int32)
    step = tl.arange(0, BK)
    pa = pa[:, None] + step[None, :]
    pb = pb[None, :] + step[:, None]
    for at in range(0, k, BK):
        x = tl.load(pa, mask=(at + step)[None, :] < k, other=0)
        y = tl.load(pb, mask=(at + step)[:, None] < k, other=0)
        total = tl.dot(x, y, total, out_dtype=tl.int32)
        pa += BK
        pb += BK
    return total


@triton.jit
def pack_i8(b, out, k, n, b_k, b_n, BN: tl.constexpr, BK: tl.constexpr):
    """B as rows [n][k]."""
    j = tl.program_id(0) * BN + tl.arange(0, BN)[:, None]
    i = tl.program_id(1) * BK + tl.arange(0, BK)[None, :]
    mask = (i < k) & (j < n)
    x = tl.load(b + i.to(tl.int64) * b_k + j.to(tl.int64) * b_n, mask=mask, other=0)
    tl.store(out + j.to(tl.int64) * k + i, x, mask=mask)


# {text} is the group's pointwise work on `total`
GEMM = """
@triton.jit
def gemm_i8(
    a, b, y, m, n, k, {names}
    STORE: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):
    i, j = tile_position(m, n, BM, BN)
    row, c = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    pa = a + tl.minimum(row, m - 1).to(tl.int64) * k
    pb = b + tl.minimum(c, n - 1).to(tl.int64) * k
    total = byte_dots(pa, pb, k, BM, BN, BK)
    mask = (row < m)[:, None] & (c < n)[None, :]
    row_mask, column_mask = (row < m)[:, None], (c < n)[None, :]
    r, c = row[:, None], c[None, :]
    if WIDE:
        r = r.to(tl.int64)
        c = c.to(tl.int64)
    if STORE:
        tl.store(y + (r * n + c), total, mask=mask)
{text}"""


def _kernel(code: TritonCode) -> Any:
    names = "".join(f"{x}, " for x in code.names)
    scope = {**vars(triton_lib), **globals()}
    return jit_source(GEMM.format(names=names, text=code.text), "gemm_i8", scope)


@gpu_kernel("gemm_i8")
def _gemm(call: KernelCall) -> None:
    a, own = call.args, call.args.tile
    code, total, store, wide = TritonCode("", ()), frozenset[int](), True, a.m * a.n >= 2**31
    extra: list[Ptr | int] = []
    if call.tile is not None:
        spec = call.tile
        total = frozenset(i for i in range(len(spec.sources)) if own.slots[i] == a.c)
        code, extra = tile_code(spec, total), tile_args(spec, own, total)
        store = a.c not in own.slots[len(spec.sources) :]
        wide = wide or is_wide(spec, own, a.n)
    bm, bn, warps = tile_size(a.m, a.n, 1)
    call.launch(
        _kernel(code),
        (ceil_div(a.m, bm) * ceil_div(a.n, bn),),
        [Ptr(a.a, "i8"), Ptr(a.packed, "i8"), Ptr(a.c, "i32"), a.m, a.n, a.k, *extra],
        STORE=store, WIDE=wide, BM=bm, BN=bn, BK=BK, warps=warps, stages=3,
    )  # fmt: skip


@gpu_kernel("pack_i8")
def _pack(call: KernelCall) -> None:
    a = call.args
    call.launch(
        pack_i8,
        (ceil_div(a.n, 32), ceil_div(a.k, 64)),
        [Ptr(a.b, "i8"), Ptr(a.packed, "i8"), a.k, a.n, a.stride_k, a.stride_n],
        BN=32, BK=64,
    )  # fmt: skip


__all__ = ["tile_position"]  # the generated kernel finds it here
