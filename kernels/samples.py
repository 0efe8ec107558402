"""Value patterns that every floating-point operator is tested on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ree.kernels.numerics import F32, canonical_nan

SPECIAL = np.array(
    [0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000,
     0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x3F800001, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000,
     0x7FC00000, 0x4B000000, 0xCB000001, 0x42B17218, 0xC2CFF1B5, 0x34000000, 0x40490FDB, 0x4F000000],
    np.uint32,
).view(np.float32)  # fmt: skip


def patterns(shape: tuple[int, ...], seed: int) -> Iterator[tuple[str, F32]]:
    """(name, float32 array of `shape`) for each pattern; deterministic in seed."""
    rng = np.random.default_rng(seed)
    yield "gaussian", rng.standard_normal(shape, np.float32)
    yield "wide", wide(shape, rng)
    tiny = rng.integers(0, 1 << 23, shape, np.uint32) | (rng.integers(0, 2, shape, np.uint32) << 31)
    yield "subnormal", tiny.astype(np.uint32).view(np.float32)
    zeros = rng.choice(np.array([0.0, -0.0], np.float32), shape)
    yield "signed-zero", np.asarray(zeros, np.float32)
    with_inf = rng.standard_normal(shape, np.float32)
    with_inf[rng.random(shape) < 0.05] = np.inf
    with_inf[rng.random(shape) < 0.05] = -np.inf
    yield "infinity", with_inf
    yield "special", np.asarray(rng.choice(SPECIAL, shape), np.float32)
    with_nan = rng.standard_normal(shape, np.float32)
    with_nan[rng.random(shape) < 0.02] = np.nan
    yield "nan", canonical_nan(with_nan)


def wide(shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Finite values whose exponents spread over 2^-60 .. 2^60."""
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-60, 61, shape).astype(np.float64))
    return np.asarray(x, np.float32)
