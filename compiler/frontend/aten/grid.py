"""Importers of sampling at coordinates: grid_sampler_2d and _3d, by torch's formulas in its order."""

from __future__ import annotations

import itertools
from math import prod

from ree.compiler.frontend.aten.math import binary
from ree.compiler.frontend.aten.pool import extent
from ree.compiler.frontend.importer import Importer, RefusedCall, aten
from ree.compiler.ir import Ref
from ree.kernels.types import DType

F32, I64 = DType.F32, DType.I64
LINEAR, NEAREST, CUBIC = range(3)
ZEROS, BORDER, REFLECTION = range(3)
CUBIC_A = -0.75


def _clipped(m: Importer, x: Ref, size: int) -> Ref:
    """x in [0, size - 1]; NaN is 0; a gradient only inside."""
    high = m.scalar(float(size - 1), F32)
    inner = m.add("where", m.add("lt", x, high), x, high)
    zero = m.scalar(0.0, F32)
    return m.add("where", m.add("gt", x, zero), inner, zero)


def _reflected(m: Importer, x: Ref, size: int, align: bool) -> Ref:
    """x mirrored at the centres of the outer pixels, or at their edges."""
    low, span = (0.0, float(size - 1)) if align else (-0.5, float(size))
    if span == 0:
        return binary(m, "mul", x, 0.0)
    x = binary(m, "sub", x, low)
    x = m.add("where", binary(m, "lt", x, 0.0), m.add("neg", x), x)
    rest = binary(m, "remainder", x, span)
    flips = m.add("floor", binary(m, "div", x, span))
    odd = binary(m, "ne", binary(m, "remainder", flips, 2.0), 0.0)
    return binary(m, "add", m.add("where", odd, binary(m, "sub", span, rest), rest), low)


class _Sampler:
    """One image [N, C, *sizes] read at points; coordinates are [N, P], x first."""

    def __init__(self, m: Importer, image: Ref, padding: int, align: bool) -> None:
        self.m, self.padding, self.align = m, padding, align
        n, c, *sizes = m.type(image).shape
        self.sizes = [extent(d) for d in sizes][::-1]
        if 0 in self.sizes:
            raise RefusedCall("grid_sample of an image without pixels")
        self.image = m.view(image, (n, c, prod(self.sizes)))

    def pad(self, x: Ref, size: int) -> Ref:
        """A coordinate by the padding mode."""
        if self.padding == REFLECTION:
            x = _reflected(self.m, x, size, self.align)
        return x if self.padding == ZEROS else _clipped(self.m, x, size)

    def unnormalised(self, x: Ref, size: int) -> Ref:
        """[-1, 1] to pixels."""
        x = binary(self.m, "add", x, 1.0)
        if self.align:
            return binary(self.m, "mul", x, (size - 1) / 2)
        return binary(self.m, "sub", binary(self.m, "mul", x, size / 2), 0.5)

    def read(self, at: list[Ref]) -> Ref:
        """Pixels [N, C, P] at whole coordinates, 0 outside."""
        m = self.m
        flat, inside = m.scalar(0, I64), None
        for x, size in reversed(list(zip(at, self.sizes, strict=True))):
            ok = m.add("logical_and", binary(m, "ge", x, 0.0), binary(m, "le", x, float(size - 1)))
            place = m.cast(m.add("where", ok, x, m.scalar(0.0, F32)), I64)
            flat = m.add("add", m.add("mul", flat, m.scalar(size, I64)), place)
            inside = ok if inside is None else m.add("logical_and", inside, ok)
        assert inside is not None
        n, c, _ = m.type(self.image).shape
        points = m.type(flat).shape[1]
        index = m.add("expand", m.view(flat, (n, 1, points)), shape=(n, c, points))
        pixels = m.add("gather", self.image, index, dim=2)
        return m.add("where", m.view(inside, (n, 1, points)), pixels, m.scalar(0.0, F32))

    def weighted(self, pixels: Ref, weight: Ref) -> Ref:
        n, points = self.m.type(weight).shape
        return self.m.add("mul", pixels, self.m.view(weight, (n, 1, points)))

    def linear(self, at: list[Ref]) -> Ref:
        m = self.m
        low = [m.add("floor", x) for x in at]
        high = [binary(m, "add", x, 1.0) for x in low]
        parts = [m.add("sub", x, f) for x, f in zip(at, low, strict=True)]
        sides = [(binary(m, "sub", 1.0, w), w) for w in parts]
        total: Ref | None = None
        for corner in itertools.product((0, 1), repeat=len(at)):
            bits = corner[::-1]  # x runs fastest
            weight = sides[0][bits[0]]
            for side, bit in zip(sides[1:], bits[1:], strict=True):
                weight = m.add("mul", weight, side[bit])
            pixels = self.read([(low, high)[bit][i] for i, bit in enumerate(bits)])
            term = self.weighted(pixels, weight)
            total = term if total is None else m.add("add", total, term)
        assert total is not None
        return total

    def cubic(self, x: Ref, y: Ref) -> Ref:
        m = self.m
        low = [m.add("floor", v) for v in (x, y)]
        wx, wy = (_cubic_weights(m, m.add("sub", v, f)) for v, f in zip((x, y), low, strict=True))
        rows = []
        for j in range(4):
            row = self.pad(binary(m, "add", low[1], float(j - 1)), self.sizes[1])
            terms = []
            for i in range(4):
                column = self.pad(binary(m, "add", low[0], float(i - 1)), self.sizes[0])
                terms.append(self.weighted(self.read([column, row]), wx[i]))
            rows.append(self.weighted(_total(m, terms), wy[j]))
        return _total(m, rows)


def _total(m: Importer, terms: list[Ref]) -> Ref:
    y = terms[0]
    for x in terms[1:]:
        y = m.add("add", y, x)
    return y


def _cubic_weights(m: Importer, t: Ref) -> list[Ref]:
    """Weights of the four pixels around a point, cubic convolution with a = -0.75."""
    a = CUBIC_A

    def near(x: Ref) -> Ref:
        y = binary(m, "sub", binary(m, "mul", x, a + 2), a + 3)
        return binary(m, "add", m.add("mul", m.add("mul", y, x), x), 1.0)

    def far(x: Ref) -> Ref:
        y = binary(m, "sub", binary(m, "mul", x, a), 5 * a)
        y = binary(m, "add", m.add("mul", y, x), 8 * a)
        return binary(m, "sub", m.add("mul", y, x), 4 * a)

    rest = binary(m, "sub", 1.0, t)
    return [far(binary(m, "add", t, 1.0)), near(t), near(rest), far(binary(m, "add", rest, 1.0))]


@aten("grid_sampler_2d", "grid_sampler_3d")
def _grid_sampler(m: Importer, x: Ref, grid: Ref, mode: int, padding: int, align: bool) -> Ref:
    (n, *places, axes), c = m.type(grid).shape, m.type(x).shape[1]
    axes = extent(axes)
    points = prod(extent(d) for d in places)
    sampler = _Sampler(m, x, padding, bool(align))
    at = [m.view(m.take(grid, m.type(grid).rank - 1, i, i + 1), (n, points)) for i in range(axes)]
    at = [sampler.unnormalised(v, s) for v, s in zip(at, sampler.sizes, strict=True)]
    if mode == CUBIC:
        y = sampler.cubic(*at)
    else:
        at = [sampler.pad(v, s) for v, s in zip(at, sampler.sizes, strict=True)]
        y = sampler.linear(at) if mode == LINEAR else sampler.read([m.add("round", v) for v in at])
    return m.view(y, (n, c, *places))
