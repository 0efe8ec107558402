"""The csrc hash kernels against hashlib, on every instruction set and several thread counts."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from ree import _core
from ree.kernels.abi import call
from ree.traces.tensor import body_root

ISAS = _core.isa_names()
LENGTHS = [
    0, 1, 3, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 1535, 1536, 1537, 2560, 512 * 15,
    512 * 16, 512 * 16 + 1, 512 * 17, 512 * 31 + 5, 512 * 32, 512 * 33, 512 * 255, 512 * 256,
    512 * 256 + 1, 512 * 257, 512 * 300 + 77, 512 * 513, 512 * 4097 + 9,
]  # fmt: skip


@functools.cache
def data(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)


@functools.cache
def reference(n: int) -> bytes:
    return body_root(data(n))


@functools.cache
def pool(threads: int) -> object:
    return _core.Pool(threads)


def run(
    isa: str, threads: int, kernel: str, arrays: Sequence[np.ndarray], **arguments: object
) -> None:
    plan = _core.Plan(isa)
    plan.add(*call(kernel, **arguments))
    plan.run(pool(threads), [a.ctypes.data for a in arrays])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_tree_hash(isa: str, threads: int) -> None:
    for n in LENGTHS:
        out = np.full(34, 0xA5, np.uint8)
        run(isa, threads, "tree_hash", [data(n), out[1:33]], data=0, root=1, bytes=n)
        assert out[1:33].tobytes() == reference(n), n
        assert out[0] == out[33] == 0xA5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_tree_hash_many(isa: str, threads: int) -> None:
    rng = np.random.default_rng(7)
    for k in (0, 1, 2, 3, 17, 40):
        sizes = [int(n) for n in rng.choice(LENGTHS[:-1], k)]
        out = np.zeros((k + 1, 32), np.uint8)
        run(isa, threads, "tree_hash_many", [*map(data, sizes), out], data=range(k), roots=k, count=k,
            bytes=sizes)  # fmt: skip
        assert [r.tobytes() for r in out] == [*map(reference, sizes), bytes(32)]


@pytest.mark.parametrize("isa", ISAS)
def test_tree_hash_at_any_address(isa: str) -> None:
    n = 512 * 20 + 100
    for shift in range(0, 65, 13):
        x = np.zeros(n + 65, np.uint8)
        x[shift : shift + n] = data(n)
        out = np.zeros(32, np.uint8)
        run(isa, 1, "tree_hash", [x[shift : shift + n], out], data=0, root=1, bytes=n)
        assert out.tobytes() == reference(n)


@pytest.mark.parametrize("isa", ISAS)
def test_sha256_many(isa: str) -> None:
    for length in (0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 1000):
        for count in (1, 3, 16, 37):
            x = data(count * (length + 3)).reshape(count, length + 3)
            out = np.zeros((count, 32), np.uint8)
            run(isa, 2, "sha256_many", [x, out], data=0, digests=1, count=count, bytes=length,
                stride=length + 3)  # fmt: skip
            want = [hashlib.sha256(row[:length].tobytes()).digest() for row in x]
            assert [r.tobytes() for r in out] == want
