"""Importers of convolution and transposed convolution."""

from __future__ import annotations

from math import prod
from typing import Any

from ree.compiler.frontend.aten.reduce import matrix_product
from ree.compiler.frontend.importer import Importer, RefusedCall, aten
from ree.compiler.ir import Ref
from ree.kernels.types import Dim, DType, product

Ints = tuple[int, ...]


def per_axis(v: Any, n: int) -> Ints:
    """One integer for each of n axes; one alone stands for all."""
    items = (v,) if isinstance(v, int) else tuple(v)
    if len(items) == 1:
        items *= n
    if len(items) != n or not all(isinstance(d, int) for d in items):
        raise RefusedCall(f"expected {n} integers, got {v}")
    return items


def pad(m: Importer, x: Ref, low: Ints, high: Ints, value: float = 0.0) -> Ref:
    """x with its trailing axes padded; a negative amount cuts."""
    if not any(low) and not any(high):
        return x
    t = m.type(x)
    lead = (0,) * (t.rank - len(low))
    v: Any = {DType.F32: float, DType.I64: int, DType.BOOL: bool}[t.dtype](value)
    return m.add("pad", x, low=lead + low, high=lead + high, value=v)


def add_bias(m: Importer, y: Ref, bias: Ref | None, n: int) -> Ref:
    """y + bias along the channel axis, which n axes follow."""
    if bias is None:
        return y
    return m.add("add", y, m.view(bias, (*m.type(bias).shape, *(1,) * n)))


def _unbatched(m: Importer, x: Ref, n: int) -> tuple[Ref, bool]:
    t = m.type(x)
    if t.dtype not in (DType.F32, DType.I64):
        raise RefusedCall(f"convolution of {t.dtype.text}")
    return (x, False) if t.rank == n + 2 else (m.view(x, (1, *t.shape)), True)


def _batched(m: Importer, y: Ref, added: bool) -> Ref:
    return m.view(y, m.type(y).shape[1:]) if added else y


def windows_of(m: Importer, x: Ref, size: Ints, step: Ints, dilation: Ints) -> Ref:
    """Windows over the trailing axes, one axis of their elements before those axes."""
    n = len(size)
    rank = m.type(x).rank
    lead = rank - n
    for i in range(n):
        x = m.add("window", x, dim=lead + i, size=size[i], step=step[i], dilation=dilation[i])
    # [*lead, *out, *size] to [*lead, prod(size), *out]
    order = (*range(lead), *range(rank, rank + n), *range(lead, rank))
    x = m.add("permute", x, dims=order)
    shape = m.type(x).shape
    return m.view(x, (*shape[:lead], prod(size), *shape[lead + n :]))


def _whole(m: Importer, x: Ref, w: Ref, step: Ints, dilation: Ints, groups: int) -> Ref:
    """A convolution of padded integers: exact modulo 2^64, as their products are."""
    co, ci, *size = (_static(d) for d in m.type(w).shape)
    taps = prod(size)
    x = windows_of(m, x, tuple(size), step, dilation)
    batch, _, _, *out = m.type(x).shape
    x = m.view(x, (batch, groups, ci * taps, product(out)))
    w = m.view(w, (groups, co // groups, ci * taps))
    return m.view(matrix_product(m, w, x), (batch, co, *out))


def _convolution(
    m: Importer, x: Ref, w: Ref, bias: Ref | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Ref:  # fmt: skip
    n = m.type(w).rank - 2
    x, added = _unbatched(m, x, n)
    steps, edges, holes = (per_axis(v, n) for v in (stride, padding, dilation))
    if m.type(x).dtype is DType.F32:
        y = m.add("convolution", x, w, stride=steps, padding=edges, dilation=holes, groups=groups)
    else:
        y = _whole(m, pad(m, x, edges, edges), w, steps, holes, groups)
    return _batched(m, add_bias(m, y, bias, n), added)


@aten("conv1d", "conv2d", "conv3d")
def _conv(
    m: Importer, x: Ref, w: Ref, bias: Ref | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Ref:  # fmt: skip
    return _convolution(m, x, w, bias, stride, padding, dilation, groups)


@aten("conv1d.padding", "conv2d.padding", "conv3d.padding")
def _conv_named(
    m: Importer, x: Ref, w: Ref, bias: Ref | None = None, stride: Any = 1, padding: str = "valid",
    dilation: Any = 1, groups: int = 1,
) -> Ref:  # fmt: skip
    n = m.type(w).rank - 2
    if padding != "same":
        return _convolution(m, x, w, bias, stride, 0, dilation, groups)
    if any(s != 1 for s in per_axis(stride, n)):
        raise RefusedCall("padding 'same' with a stride")
    total = [d * (_static(k) - 1) for d, k in zip(per_axis(dilation, n), m.type(w).shape[2:],
                                                  strict=True)]  # fmt: skip
    # an odd one goes behind, as torch has it
    low = tuple(t // 2 for t in total)
    x, added = _unbatched(m, x, n)
    x = pad(m, x, (0,) * n, tuple(t % 2 for t in total))
    return _batched(m, _convolution(m, x, w, bias, 1, low, dilation, groups), added)


@aten("convolution")
def _any_convolution(
    m: Importer, x: Ref, w: Ref, bias: Ref | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Ref:  # fmt: skip
    if transposed:
        return transposed_convolution(
            m, x, w, bias, stride, padding, output_padding, groups, dilation
        )
    return _convolution(m, x, w, bias, stride, padding, dilation, groups)


@aten("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def _conv_transpose(
    m: Importer, x: Ref, w: Ref, bias: Ref | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Ref:  # fmt: skip
    return transposed_convolution(m, x, w, bias, stride, padding, output_padding, groups, dilation)


def transposed_convolution(
    m: Importer, x: Ref, w: Ref, bias: Ref | None, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Ref:  # fmt: skip
    """The convolution, of stride 1, of x with stride - 1 zeros between its elements and the window
    mirrored; channels in and out of the weights exchanged within each group."""
    t = m.type(w)
    n = t.rank - 2
    x, added = _unbatched(m, x, n)
    strides, padding, dilation, more = (
        per_axis(v, n) for v in (stride, padding, dilation, output_padding)
    )
    x = _spread(m, x, strides)
    span = [d * (_static(k) - 1) for d, k in zip(dilation, t.shape[2:], strict=True)]
    low = [s - p for s, p in zip(span, padding, strict=True)]
    high = [b + a - (s - 1) for b, a, s in zip(low, more, strides, strict=True)]
    both = all(a == b and a >= 0 for a, b in zip(low, high, strict=True))
    if not both:
        x = pad(m, x, tuple(low), tuple(high))
    for axis in range(2, n + 2):
        w = m.add("flip", w, dim=axis)
    each_in, each_out = _static(t.shape[0]) // groups, _static(t.shape[1])
    w = m.transpose(m.view(w, (groups, each_in, each_out, *t.shape[2:])), 1, 2)
    w = m.view(w, (groups * each_out, each_in, *t.shape[2:]))
    y = _convolution(m, x, w, bias, 1, tuple(low) if both else 0, dilation, groups)
    return _batched(m, y, added)


def _spread(m: Importer, x: Ref, strides: Ints) -> Ref:
    """x with s - 1 zeros after each element of each trailing axis."""
    if all(s == 1 for s in strides):
        return x
    t = m.type(x)
    n = len(strides)
    lead, axes = t.shape[:-n], t.shape[-n:]
    apart: tuple[Dim, ...] = tuple(v for d in axes for v in (d, 1))
    high = tuple(v for s in strides for v in (0, s - 1))
    x = pad(m, m.view(x, (*lead, *apart)), (0,) * (2 * n), high)
    return m.view(x, (*lead, *(d * s for d, s in zip(axes, strides, strict=True))))


def _static(d: Dim) -> int:
    if not isinstance(d, int):
        raise RefusedCall("a window of symbolic size")
    return d
