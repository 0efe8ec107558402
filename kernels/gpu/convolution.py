"""Convolution on a GPU: the windows of x as a matrix in scratch memory, then the contraction kernels."""

from __future__ import annotations

from math import prod

import triton
import triton.language as tl

from ree.kernels.gpu.contraction import contract
from ree.kernels.gpu.launch import KernelCall, Ptr, ceil_div, gpu_kernel, power_of_two


@triton.jit
def windows(
    x, out, channels, k_total, pixels, D, H, W, OH, OW, KD, KH, KW, SD, SH, SW, PD, PH, PW,
    DD, DH, DW, B: tl.constexpr,
):  # fmt: skip
    """out[group of channels][k][pixel], +0 outside x; elements are copied as integers."""
    blocks = tl.cdiv(pixels, B)
    k = tl.program_id(0) // blocks
    p = (tl.program_id(0) % blocks) * B + tl.arange(0, B)
    group = tl.program_id(1).to(tl.int64)
    w = (p % OW) * SW - PW + (k % KW) * DW
    h = (p // OW % OH) * SH - PH + (k // KW % KH) * DH
    d = (p // OW // OH) * SD - PD + (k // KW // KH % KD) * DD
    c = group * channels + k // KW // KH // KD
    inside = (w >= 0) & (w < W) & (h >= 0) & (h < H) & (d >= 0) & (d < D) & (p < pixels)
    v = tl.load(x + (((c * D + d) * H + h) * W + w), mask=inside, other=0)
    tl.store(out + ((group * k_total + k) * pixels + p), v, mask=p < pixels)


@gpu_kernel("convolution")
def _convolution(call: KernelCall) -> None:
    a = call.args
    n, groups, pixels = a.images, a.groups, prod(a.y_size)
    channels, m = a.channels // groups, a.y_channels // groups
    k = channels * prod(a.window)
    matrix = Ptr(a.x, "fp32")
    strides = [0, m * k, k, 1, a.channels * pixels, channels * pixels, pixels, 1]
    if (*a.window, *a.stride, *a.padding) != (1, 1, 1, 1, 1, 1, 0, 0, 0):
        matrix = call.take_scratch(n * groups * k * pixels * 4)
        block = min(power_of_two(pixels), 1024)
        call.launch(
            windows,
            (ceil_div(pixels, block) * k, n * groups),
            [Ptr(a.x, "i32"), Ptr(matrix.slot, "i32", matrix.offset), channels, k, pixels, *a.x_size,
             *a.y_size[1:], *a.window, *a.stride, *a.padding, *a.dilation],
            B=block,
        )  # fmt: skip
        strides[4:6] = groups * k * pixels, k * pixels
    contract(call, (n, groups), (m, pixels, k), strides, (Ptr(a.w, "fp32"), matrix, a.y), False)
