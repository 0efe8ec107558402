"""The index rule: which source element an output element reads, in one form for all operators.

Output index and reduction index are split into digits (mixed radix, most significant first). A
coordinate is a sum of coefficient x digit + offset; outside [0, bound) the access reads +0; the flat
index is the sum of coordinate x stride. An indirect term adds one index read from another source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Coord:
    """One coordinate of the source: coefficient per digit (output digits, then reduction)."""

    coeffs: tuple[int, ...]
    bound: int
    stride: int
    offset: int = 0


@dataclass(frozen=True)
class Indirect:
    """A coordinate read from source `operand` (through its own access). Outside [0, bound) is an
    error; with `wrap`, a negative index counts from the end, once."""

    operand: int
    bound: int
    stride: int
    wrap: bool = False


@dataclass(frozen=True)
class Access:
    """How one source is read."""

    coords: tuple[Coord, ...]
    indirect: tuple[Indirect, ...] = ()


@dataclass(frozen=True)
class IndexRule:
    """Digits of the output and of the reduction, and one access per source."""

    out_digits: tuple[int, ...]
    accesses: tuple[Access, ...]
    red_digits: tuple[int, ...] = field(default=())

    @property
    def digits(self) -> tuple[int, ...]:
        return self.out_digits + self.red_digits


def contiguous_strides(dims: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides = [1] * len(dims)
    for i in range(len(dims) - 2, -1, -1):
        strides[i] = strides[i + 1] * dims[i + 1]
    return tuple(strides)


def access_by_dims(
    dims: Sequence[int], n_digits: int, terms: Sequence[tuple[int | None, int, int]]
) -> Access:
    """Access whose coordinate i is `coeff * digit + offset` for terms[i] = (digit, coeff, offset).

    `dims` is the source shape; a digit of None makes the coordinate the offset alone.
    """
    strides = contiguous_strides(dims)
    coords = []
    for size, stride, (digit, coeff, offset) in zip(dims, strides, terms, strict=True):
        coeffs = [0] * n_digits
        if digit is not None:
            coeffs[digit] = coeff
        coords.append(Coord(tuple(coeffs), size, stride, offset))
    return Access(tuple(coords))


def broadcast_access(src: Sequence[int], out: Sequence[int], n_digits: int | None = None) -> Access:
    """Access of a source of shape `src` broadcast to `out`, whose dimensions are the digits."""
    shift = len(out) - len(src)
    terms: list[tuple[int | None, int, int]] = [
        (None, 0, 0) if d == 1 else (i + shift, 1, 0) for i, d in enumerate(src)
    ]
    return access_by_dims(src, len(out) if n_digits is None else n_digits, terms)


def flat_access(numel: int, digits: Sequence[int], n_digits: int | None = None) -> Access:
    """Access that reads the source at the flat index spelled by the leading `digits`."""
    strides = contiguous_strides(digits)
    pad = (n_digits or len(digits)) - len(digits)
    return Access((Coord(strides + (0,) * pad, numel, 1),))


def digit_arrays(digits: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Each digit's value over the whole index space, flattened row-major."""
    n = prod(digits)
    flat = np.arange(n, dtype=np.int64)
    return [flat // s % d for s, d in zip(contiguous_strides(digits), digits, strict=True)]


def flat_indices(
    rule: IndexRule, operand: int, sources: Sequence[npt.NDArray[np.generic]] = ()
) -> npt.NDArray[np.int64]:
    """Flat source index for every (output, reduction) index, -1 where it is out of bounds.

    Shape [prod(out_digits), prod(red_digits)]. `sources` are needed by indirect accesses only.
    """
    digits = digit_arrays(rule.digits)
    n = prod(rule.digits)
    flat = np.zeros(n, np.int64)
    inside = np.ones(n, bool)
    access = rule.accesses[operand]
    for c in access.coords:
        x = np.full(n, c.offset, np.int64)
        for k, d in zip(c.coeffs, digits, strict=True):
            if k:
                x += k * d
        inside &= (x >= 0) & (x < c.bound)
        flat += x * c.stride
    for term in access.indirect:
        where = flat_indices(rule, term.operand, sources).reshape(-1)
        x = np.asarray(sources[term.operand]).reshape(-1)[where].astype(np.int64)
        if term.wrap:
            x = np.where(x < 0, x + term.bound, x)
        if ((x < 0) | (x >= term.bound)).any():
            raise IndexError(f"index out of range: expected below {term.bound}")
        flat += x * term.stride
    out = np.where(inside, flat, -1)
    return out.reshape(prod(rule.out_digits), prod(rule.red_digits))


def read(
    rule: IndexRule, operand: int, sources: Sequence[npt.NDArray[np.generic]]
) -> npt.NDArray[np.generic]:
    """Source values for every (output, reduction) index; +0 where out of bounds."""
    flat = flat_indices(rule, operand, sources)
    src = np.ascontiguousarray(sources[operand]).reshape(-1)
    if src.size == 0:
        return np.zeros(flat.shape, src.dtype)
    return np.where(flat >= 0, src[np.maximum(flat, 0)], np.zeros((), src.dtype))
