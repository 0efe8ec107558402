"""Tensor hashes: what they depend on and what they refuse."""

import hashlib
import struct

import numpy as np
import pytest

from ree.kernels.types import DType
from ree.traces.tensor import body_leaf, body_leaves, body_root, hash_from_root, tensor_hash


def test_codes_are_fixed() -> None:
    assert {d.text: d.code for d in DType} == {
        "f32": 0, "f16": 1, "bf16": 2, "i64": 3, "i32": 4, "i16": 5, "i8": 6, "u8": 7, "bool": 8,
    }  # fmt: skip


def test_definition() -> None:
    x = np.arange(200, dtype=np.float32).reshape(8, 25)
    raw = x.tobytes()
    leaves = [hashlib.sha256(b"\0" + raw[:512]), hashlib.sha256(b"\0" + raw[512:] + bytes(224))]
    body = hashlib.sha256(b"\1" + leaves[0].digest() + leaves[1].digest()).digest()
    assert body_leaves(len(raw)) == 2
    assert body_leaf(raw, 1) == raw[512:] + bytes(224)
    want = hashlib.sha256(b"\2" + bytes([0, 2]) + struct.pack(">QQ", 8, 25) + body).digest()
    assert tensor_hash(x) == want


def test_views_share_the_body_and_not_the_hash() -> None:
    x = np.arange(24, dtype=np.float32)
    views = [x, x.reshape(4, 6), x.reshape(6, 4), x.view(np.int32)]
    assert len({body_root(v) for v in views}) == 1
    assert len({tensor_hash(v) for v in views}) == 4


def test_memory_layout_does_not_matter() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    want = tensor_hash(x)
    assert tensor_hash(np.asfortranarray(x)) == want
    assert tensor_hash(x.T.copy().T) == want
    assert tensor_hash(np.repeat(x, 2, axis=1)[:, ::2]) == want
    assert tensor_hash(x.astype(">f4").astype("<f4")) == want
    assert body_root(x.astype(">f4")) == body_root(x)


def test_every_bit_counts() -> None:
    x = np.zeros(3, np.float32)
    assert tensor_hash(x) != tensor_hash(-x)
    assert tensor_hash(x) != tensor_hash(np.zeros(4, np.float32))
    assert body_root(x) == body_root(np.zeros(4, np.float32))  # zero-filled: the shape tells


def test_a_faster_body_root_is_used() -> None:
    x = np.ones(3, np.float32)
    assert tensor_hash(x, body_root=lambda _: bytes(32)) == hash_from_root(0, (3,), bytes(32))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="unsupported dtype"):
        tensor_hash(np.zeros(1, np.float64))
    with pytest.raises(ValueError, match="rank: expected at most 8, got 9"):
        tensor_hash(np.zeros((1,) * 9, np.float32))
    with pytest.raises(ValueError, match="body root: expected 32 bytes, got 31"):
        hash_from_root(0, (), bytes(31))
    with pytest.raises(ValueError, match="bool: expected bytes 0 or 1"):
        tensor_hash(np.array([2], np.uint8).view(np.bool_))
