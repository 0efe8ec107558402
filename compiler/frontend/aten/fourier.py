"""Importers of discrete Fourier transforms, by contractions with constant matrices.

Of n <= 64 points one contraction, over the real and then the imaginary parts. Of more, n = r * q with r the
largest divisor up to 64 (or else the least prime factor): over each of the q columns of [r, q] a transform of r
points, a multiplication by exp(-2 pi i jk / n), and over each row a transform of q points, whose results are
read by columns. Roots of unity come from integers, so they are the same on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ree.compiler.frontend.aten.pairs import Pair, as_pair, paired
from ree.compiler.frontend.importer import Importer, RefusedCall, aten
from ree.compiler.ir import Ref
from ree.kernels.types import DType, product

FloatArray = npt.NDArray[np.float64]

DIRECT = 64  # points of one contraction, where they have a divisor up to it
MOST_PRIME = 1024  # points of one contraction at most
MOST_POINTS = 1 << 17

# roots of unity

_BITS = 128
_PI = 0x3243F6A8885A308D313198A2E03707344A4 >> 8  # pi * 2^128


@lru_cache(maxsize=64)
def roots(n: int) -> FloatArray:
    """cos and sin of 2 pi k / n for k < n, each the nearest float64: [n, 2]."""
    return np.array([_root(k, n) for k in range(n)], np.float64)


def _root(k: int, n: int) -> tuple[float, float]:
    octant, rest = divmod(8 * k, n)
    if octant & 1:
        rest = n - rest
    c, s = _cos_sin(rest, 4 * n)  # of pi * rest / 4n, at most a quarter of pi
    if octant & 1 != octant >> 1 & 1:
        c, s = s, c
    return (-c if octant in (2, 3, 4, 5) else c), (-s if octant >= 4 else s)


def _cos_sin(p: int, q: int) -> tuple[float, float]:
    """cos and sin of pi * p / q by their series, in integers; nearest float64."""
    x = _PI * p // q
    sums, term, k = [0, 0], 1 << _BITS, 0
    while term:
        sums[k & 1] += -term if k & 2 else term
        k += 1
        term = (term * x >> _BITS) // k
    return sums[0] / (1 << _BITS), sums[1] / (1 << _BITS)


def _matrix(rows: int, n: int, sign: int) -> FloatArray:
    """exp(sign * 2 pi i * row * column / n): [rows, n, 2], float64."""
    table = roots(n) * [1.0, float(sign)]
    return table[np.outer(np.arange(rows), np.arange(n)) % n]


def _constant(m: Importer, x: FloatArray) -> Ref:
    return m.builder.const(np.ascontiguousarray(x, np.float32))


# transforms of the last axis


def _radix(n: int) -> int:
    divisors = [d for d in range(2, min(n, DIRECT) + 1) if n % d == 0]
    return divisors[-1] if divisors else next(d for d in range(DIRECT, n + 1) if n % d == 0)


def _direct(m: Importer, x: Ref | Pair, n: int, count: int, sign: int) -> Pair:
    """The first `count` results of n points, one contraction."""
    w = _matrix(count, n, sign)
    real, imag = w[..., 0], w[..., 1]
    if isinstance(x, Pair):
        axis = m.type(x.real).rank - 1
        both = np.concatenate([np.hstack([real, -imag]), np.hstack([imag, real])])
        y = m.add("linear", m.add("cat", *x, dim=axis), _constant(m, both))
    else:
        axis = m.type(x).rank - 1
        y = m.add("linear", x, _constant(m, np.concatenate([real, imag])))
    return Pair(m.take(y, axis, 0, count), m.take(y, axis, count, 2 * count))


def _transform(m: Importer, x: Ref | Pair, sign: int, count: int | None = None) -> Pair:
    """The transform of the last axis, its first `count` results; x may be real."""
    shape = m.type(x.real if isinstance(x, Pair) else x).shape
    n = shape[-1]
    if not isinstance(n, int) or not 1 <= n <= MOST_POINTS:
        raise RefusedCall(
            f"a Fourier transform of {n} points: expected a constant up to {MOST_POINTS}"
        )
    count = n if count is None else count
    r = _radix(n) if n > 1 else 1
    if r == n:
        if n > MOST_PRIME:
            raise RefusedCall(f"a Fourier transform of {n} points, a prime above {MOST_PRIME}")
        return _direct(m, x, n, count, sign)
    q, last = n // r, len(shape)

    def columns(p: Ref) -> Ref:  # [..., r, q] as [..., q, r]
        return m.transpose(m.view(p, (*shape[:-1], r, q)), last - 1, last)

    inner = Pair(*map(columns, x)) if isinstance(x, Pair) else columns(x)
    inner = _direct(m, inner, r, r, sign)
    turn = roots(n)[np.outer(np.arange(q), np.arange(r)) % n] * [1.0, float(sign)]
    inner = _times(m, inner, *(_constant(m, turn[..., i]) for i in (0, 1)))
    rows = _transform(m, Pair(*(m.transpose(p, last - 1, last) for p in inner)), sign)
    whole = (m.view(m.transpose(p, last - 1, last), shape) for p in rows)
    return Pair(*(p if count == n else m.take(p, last - 1, 0, count) for p in whole))


def _times(m: Importer, z: Pair, c: Ref, s: Ref) -> Pair:
    """z * (c + s i)."""
    return Pair(m.add("sub", m.add("mul", z.real, c), m.add("mul", z.imag, s)),
                m.add("add", m.add("mul", z.real, s), m.add("mul", z.imag, c)))  # fmt: skip


def _real_result(m: Importer, z: Pair, n: int) -> Ref:
    """n real numbers from the first half of their spectrum, the other half being its mirror."""
    axis = m.type(z.real).rank - 1
    half = n // 2 + 1
    if m.type(z.real).shape[axis] != half:
        raise RefusedCall(f"a spectrum of other than {half} points")

    def mirror(p: Ref) -> Ref:
        return m.add("flip", m.take(p, axis, 1, (n + 1) // 2), dim=axis)

    whole = z
    if n > 2:
        whole = Pair(m.add("cat", z.real, mirror(z.real), dim=axis),
                     m.add("cat", z.imag, m.add("neg", mirror(z.imag)), dim=axis))  # fmt: skip
    if n <= DIRECT:
        w = _matrix(n, n, 1)
        both = np.hstack([w[..., 0], -w[..., 1]])
        return m.add("linear", m.add("cat", *whole, dim=axis), _constant(m, both))
    return _transform(m, whole, 1).real


# over axes, with the scale


def _along(m: Importer, x: Any, dim: int, f: Any) -> Any:
    """f over an axis moved to the end and back."""
    parts = x if isinstance(x, Pair) else (x,)
    last = m.type(parts[0]).rank - 1
    axis = m.axis(dim, last + 1)
    moved = [m.transpose(p, axis, last) for p in parts]
    y = f(Pair(*moved) if isinstance(x, Pair) else moved[0])
    back = [m.transpose(p, axis, last) for p in (y if isinstance(y, Pair) else (y,))]
    return Pair(*back) if isinstance(y, Pair) else back[0]


def _scaled(m: Importer, x: Any, norm: int, sizes: Sequence[Any]) -> Any:
    """x / n, or x / sqrt(n), as one multiplication, n the number of points of all axes."""
    if norm == 0:
        return x
    n = product(sizes)
    if not isinstance(n, int):
        raise RefusedCall("a Fourier transform over an open axis")
    scale = m.scalar(1 / n if norm == 2 else 1 / math.sqrt(n), DType.F32)
    if isinstance(x, Pair):
        return Pair(*(m.add("mul", p, scale) for p in x))
    return m.add("mul", x, scale)


def _sizes(m: Importer, x: Ref, dims: Sequence[int]) -> list[Any]:
    return [m.type(x).shape[d] for d in dims]


@paired("_fft_c2c")
def _c2c(m: Importer, z: Any, dims: Sequence[int], norm: int, forward: bool) -> Pair:
    z = as_pair(m, z)
    sign = -1 if forward else 1
    sizes = _sizes(m, z.real, dims)
    for d in reversed(dims):
        z = _along(m, z, d, lambda v: _transform(m, v, sign))
    return _scaled(m, z, norm, sizes)  # type: ignore[no-any-return]


@paired("_fft_r2c")
def _r2c(m: Importer, x: Ref, dims: Sequence[int], norm: int, onesided: bool) -> Pair:
    sizes = _sizes(m, x, dims)
    last = sizes[-1]
    if not isinstance(last, int):
        raise RefusedCall("a Fourier transform over an open axis")
    count = last // 2 + 1 if onesided else last
    z = _along(m, x, dims[-1], lambda v: _transform(m, v, -1, count))
    for d in reversed(dims[:-1]):
        z = _along(m, z, d, lambda v: _transform(m, v, -1))
    return _scaled(m, z, norm, sizes)  # type: ignore[no-any-return]


@paired("_fft_c2r")
def _c2r(m: Importer, z: Any, dims: Sequence[int], norm: int, n: Any) -> Ref:
    z = as_pair(m, z)
    if not isinstance(n, int):
        raise RefusedCall("a Fourier transform over an open axis")
    sizes = [*_sizes(m, z.real, dims[:-1]), n]
    for d in dims[:-1]:
        z = _along(m, z, d, lambda v: _transform(m, v, 1))
    y = _along(m, z, dims[-1], lambda v: _real_result(m, v, n))
    return _scaled(m, y, norm, sizes)  # type: ignore[no-any-return]


def _frequencies(m: Importer, whole: npt.NDArray[np.int64], n: int, d: float) -> Ref:
    return m.builder.const(whole.astype(np.float32) * np.float32(1 / (n * d)))


@aten("fft_fftfreq")
def _fftfreq(m: Importer, n: int, d: float = 1.0, **how: Any) -> Ref:
    return _frequencies(m, (np.arange(n) + n // 2) % n - n // 2, n, d)


@aten("fft_rfftfreq")
def _rfftfreq(m: Importer, n: int, d: float = 1.0, **how: Any) -> Ref:
    return _frequencies(m, np.arange(n // 2 + 1), n, d)
