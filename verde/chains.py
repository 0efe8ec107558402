"""All entries of a contraction or a sum at once, for parties: the same bits as operation after operation.

float32 arithmetic is done in float64: a product of two is exact there, and a sum that is rounded to odd in
float64 and then to nearest in float32 is rounded once.
"""

from __future__ import annotations

import math
import struct
from array import array

import numpy as np

from ree.kernels.numerics import F32, SEGMENT, SUM_BLOCK, SUM_LANES, canonical_nan
from ree.kernels.opdef import Array


def contraction(a: Array, b: Array) -> list[int]:
    """Segments of fused multiply-adds from +0, each followed by its addition to the total, as bits."""
    out = array("f", bytes(4 * (len(a) + -(-len(a) // SEGMENT))))
    with np.errstate(invalid="ignore"):
        products = (a.astype(np.float64) * b.astype(np.float64)).tolist()
    total, i = 0.0, 0
    for start in range(0, len(products), SEGMENT):
        acc = 0.0
        for p in products[start : start + SEGMENT]:
            s = p + acc
            z = s - acc
            e = (acc - (s - z)) + (p - z)  # what s lacks
            if e != 0.0 and e == e:
                s = _to_odd(s, e)
            out[i] = s
            acc = out[i]
            i += 1
        out[i] = total + acc  # two float32: no bit is lost that could matter
        total = out[i]
        i += 1
    return _bits(np.frombuffer(out, np.float32))


def _to_odd(s: float, e: float) -> float:
    """s + e, of which s is the nearest: the neighbour whose last bit is set."""
    if struct.unpack("<q", struct.pack("<d", s))[0] & 1:
        return s
    return math.nextafter(s, math.inf if e > 0 else -math.inf)


def lane_sums(source: Array) -> list[int]:
    """Blocks of 1,024: additions to 64 lanes, then 63 folds; block results by the same rule, as bits."""
    x, out = np.asarray(source, np.float32), list[F32]()
    with np.errstate(all="ignore"):
        while True:
            results: list[F32] = []
            for start in range(0, len(x), SUM_BLOCK):
                block = x[start : start + SUM_BLOCK]
                lanes = np.zeros(SUM_LANES, np.float32)
                for at in range(0, len(block), SUM_LANES):
                    part = block[at : at + SUM_LANES]
                    lanes[: len(part)] += part
                    out.append(lanes[: len(part)].copy())
                while len(lanes) > 1:
                    half = len(lanes) // 2
                    lanes = lanes[:half] + lanes[half:]
                    out.append(lanes)
                results.append(lanes)
            x = np.concatenate(results)
            if len(x) == 1:
                return _bits(np.concatenate(out))


def _bits(x: F32) -> list[int]:
    bits: list[int] = np.ascontiguousarray(canonical_nan(x)).view(np.uint32).tolist()
    return bits
