"""The parts that moves are made of: proofs, openings, and the preimages of an instance's digests."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ree.compiler.instance import encode_rule, encode_type
from ree.kernels import opdef
from ree.kernels.opdef import Array, Bound
from ree.kernels.scalar.microcode import assemble
from ree.kernels.types import TensorType
from ree.traces.merkle import MerkleTree
from ree.traces.tensor import LEAF_BYTES, body_leaf, body_leaves, dtype_of, raw_bytes
from ree.verde.moves import EntryOpening, Opening


def proof(digests: Sequence[bytes]) -> bytes:
    """Length in a byte, then the siblings from below upwards."""
    return bytes([len(digests)]) + b"".join(digests)


def bundle(blobs: Sequence[bytes], rest: Iterable[bytes]) -> bytes:
    """Number of blobs, their lengths u16, the blobs, and what follows."""
    sizes = struct.pack(f">B{len(blobs)}H", len(blobs), *map(len, blobs))
    return b"".join([sizes, *blobs, *rest])


@dataclass
class Shown:
    """What a PROVE shows beyond record and leaf."""

    left: list[Opening | EntryOpening]
    blobs: list[bytes] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    outer: bool = False  # whether the statement is needed

    def opening(self, t: TensorType) -> None:
        o = self.left.pop(0)
        assert isinstance(o, Opening)  # the order of the rules
        self.parts.append(opening(t, o))


def opening(t: TensorType, o: Opening) -> bytes:
    """Type, leaf, and the proofs of leaf and tensor."""
    return encode_type(t) + o.leaf + proof(o.leaf_proof) + proof(o.tensor_proof)


def rule_bytes(node: Bound) -> bytes:
    """The index rule of a bound operator."""
    rule = opdef.get(node.op).index_rule
    assert rule is not None  # checked at registration
    return encode_rule(rule(node))


def microcode(node: Bound) -> bytes:
    """The microcode of a pointwise operator."""
    scalar = opdef.get(node.op).scalar
    assert scalar is not None  # checked at registration
    return assemble(scalar([t.dtype for t in node.inputs], node.attrs)).encode()


def constant(x: Array, flat: int) -> bytes:
    """The opening of an element of a constant: type, leaf, proof."""
    t = TensorType(dtype_of(x), x.shape)
    raw = raw_bytes(x)
    leaves = [body_leaf(raw, i) for i in range(body_leaves(len(raw)))]
    at = flat * t.dtype.size // LEAF_BYTES
    return encode_type(t) + leaves[at] + proof(MerkleTree(leaves).prove(at))
