"""Random numbers for batches and weights that are the same on every machine.

    g = ree.random.Generator(seed, step)      # the same pair, the same numbers, in the order of the calls
    x, y = g.normal((8, 32)), g.randint(0, 10, (8,))

torch's own generator gives other normal numbers on other vector units; these are Philox 4x32-10 (Salmon,
Moraes, Dror, Shaw, SC 2011) and the contract's scalar functions, so they are exact everywhere. Key: the
seed. Counter: low word of the block, call << 16 | high bits of the block, position (two words).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.errors import InputError
from ree.float_mode import clean_floats
from ree.kernels.constants import PHILOX_MULTIPLIERS as MULTIPLIERS
from ree.kernels.constants import PHILOX_ROUNDS as ROUNDS
from ree.kernels.constants import PHILOX_WEYL as WEYL

if TYPE_CHECKING:
    import torch

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
MAX_ELEMENTS = 1 << 34


def philox(counter: Sequence[Any], key: Sequence[int]) -> list[Any]:
    """The four words of Philox 4x32-10 (uint32), for a counter of four words and a key of two."""
    c = [np.asarray(w).astype(np.uint64) for w in counter]
    k = [int(w) for w in key]
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    for _ in range(ROUNDS):
        a, b = m0 * c[0], m1 * c[2]
        c = [(b >> _HALF) ^ c[1] ^ np.uint64(k[0]), b & _LOW,
             (a >> _HALF) ^ c[3] ^ np.uint64(k[1]), a & _LOW]  # fmt: skip
        k = [(x + w) & 0xFFFFFFFF for x, w in zip(k, WEYL, strict=True)]
    return [w.astype(np.uint32) for w in c]


class Generator:
    """Numbers that depend on seed, position and the order of calls alone.

    seed, position: whole numbers of 64 bits; position is usually the step. All methods return torch
    tensors. InputError for arguments out of range.
    """

    def __init__(self, seed: int, position: int = 0) -> None:
        for name, v in (("seed", seed), ("position", position)):
            if isinstance(v, bool) or not isinstance(v, int) or not -(2**63) <= v < 2**64:
                raise InputError(f"{name}: expected a whole number of 64 bits, got {str(v)[:40]}")
        self._key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
        self._position = (position & 0xFFFFFFFF, (position >> 32) & 0xFFFFFFFF)
        self._calls = 0

    def _words(self, count: int) -> np.ndarray[Any, Any]:
        """The next `count` words, of one call."""
        if count > MAX_ELEMENTS or self._calls >= 1 << 16:
            raise InputError("expected fewer numbers, or calls, of one generator",
                             "make one for each position")  # fmt: skip
        block = np.arange(-(-count // 4), dtype=np.uint64)
        high = (block >> _HALF) | np.uint64(self._calls << 16)
        self._calls += 1
        words = philox([block & _LOW, high, *self._position], self._key)
        return np.stack(words, -1).reshape(-1)[:count]

    def bits(self, shape: int | Sequence[int]) -> torch.Tensor:
        """Words of 32 bits, as i64."""
        dims = _shape(shape)
        return _tensor(self._words(math.prod(dims)).astype(np.int64), dims)

    def uniform(self, shape: int | Sequence[int]) -> torch.Tensor:
        """f32 in [0, 1), multiples of 2^-24."""
        dims = _shape(shape)
        return _tensor(_unit(self._words(math.prod(dims))), dims)

    @clean_floats
    def normal(self, shape: int | Sequence[int]) -> torch.Tensor:
        """f32, standard normal (Box and Muller): sqrt(-2 log(1 - u)) * cos(2 pi v)."""
        dims = _shape(shape)
        u, v = _unit(self._words(2 * math.prod(dims))).reshape(-1, 2).T
        one, turn = np.float32(1), np.float32(2 * math.pi)
        radius = np.sqrt(np.float32(-2) * _scalar("log", one - u))
        return _tensor(radius * _scalar("cos", turn * v), dims)

    def randint(self, low: int, high: int, shape: int | Sequence[int]) -> torch.Tensor:
        """i64 in [low, high), at most 2^32 values: floor(r * (high - low) / 2^64) + low, r of 64 bits."""
        if not all(type(v) is int for v in (low, high)) or not 0 < high - low <= 1 << 32:
            raise InputError(
                f"randint: expected low < high, at most 2^32 apart, got {low} and {high}"
            )
        dims = _shape(shape)
        upper, lower = self._words(2 * math.prod(dims)).astype(np.uint64).reshape(-1, 2).T
        n = np.uint64(high - low)
        value = (upper * n + ((lower * n) >> _HALF)) >> _HALF
        return _tensor(value.astype(np.int64) + low, dims)

    def bernoulli(self, p: float, shape: int | Sequence[int]) -> torch.Tensor:
        """bool, true where a uniform number is below p."""
        if not 0 <= p <= 1:
            raise InputError(f"bernoulli: expected a probability, got {p}")
        dims = _shape(shape)
        return _tensor(_unit(self._words(math.prod(dims))) < p, dims)

    def permutation(self, n: int) -> torch.Tensor:
        """i64[n]: 0 to n - 1 in the order of words of 64 bits, equal ones by index."""
        (n,) = _shape(n)
        upper, lower = self._words(2 * n).astype(np.uint64).reshape(-1, 2).T
        return _tensor(np.argsort((upper << _HALF) | lower, kind="stable"), (n,))

    def choice(self, n: int, count: int) -> torch.Tensor:
        """i64[count]: different numbers of 0 to n - 1, the start of a permutation."""
        if not 0 <= count <= n:
            raise InputError(f"choice: expected 0 to {n}, got {count}")
        return self.permutation(n)[:count].clone()


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(type(d) is int and d >= 0 for d in dims):
        raise InputError(f"shape: expected sizes, got {str(shape)[:40]}")
    return dims


def _unit(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _scalar(name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A scalar function of the contract, by its reference."""
    from ree.kernels.scalar.emit_numpy import evaluate
    from ree.kernels.scalar.functions import FUNCTIONS

    return evaluate(FUNCTIONS[name], x)


def _tensor(x: np.ndarray[Any, Any], dims: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(x).reshape(dims))
