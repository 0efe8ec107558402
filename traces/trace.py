"""Traces: what a run commits to.

    io_root = SHA-256(0x03 || version u32 || numeric id || program || instance || weights root
                      || number of inputs u32 || inputs root
                      || number of outputs u32 || outputs root)
    root    = io_root                                                            at level "io"
            = SHA-256(0x05 || io_root || number of values u32 || values root)    at level "ops"

Inputs, outputs, values and weights roots are Merkle roots whose leaf i is i (u32) || tensor hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

from ree.traces import encoding
from ree.traces.encoding import ZERO, digest, sha256, u32
from ree.traces.merkle import MerkleTree, merkle_root

VERSION = 1
LEVELS = ("io", "ops")
MAX_TENSORS = 2**32 - 1


@dataclass(frozen=True)
class ValueInfo:
    """What is known about a value besides its bytes; never hashed."""

    op: str = ""
    type: str = ""  # "f32[2,3]"
    name: str = ""
    location: str = ""  # file:line
    code: str = ""  # the source line
    module: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Sidecar:
    """What travels beside a trace, outside its root: nothing here is proven."""

    values: tuple[ValueInfo, ...] = ()  # empty, or one per value
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()  # device, threads, time, ...

    def value(self, index: int) -> ValueInfo | None:
        """Info of value `index`, if there is any."""
        return self.values[index] if 0 <= index < len(self.values) else None


@dataclass(frozen=True)
class Trace:
    """Commitment to one run; all digests are 32 bytes, ValueError otherwise.

    values: one tensor hash per value in program order ("ops" only); 32 zero bytes for a value of
    pure data movement, whose bytes are fixed by its source and the instance. Two traces are equal
    when they commit to the same; the sidecar does not count.
    """

    level: str
    numeric_id: bytes
    program: bytes
    instance: bytes
    weights_root: bytes
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]
    values: tuple[bytes, ...] = ()
    version: int = VERSION
    sidecar: Sidecar = field(default_factory=Sidecar, compare=False)

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"trace version: expected {VERSION}, got {self.version}")
        if self.level not in LEVELS:
            raise ValueError(f"trace level: expected io or ops, got '{self.level}'")
        if self.level == "io" and self.values:
            raise ValueError(f"values: expected 0 at level io, got {len(self.values)}")
        for name in ("numeric_id", "program", "instance", "weights_root"):
            digest(getattr(self, name), name)
        for name in ("inputs", "outputs", "values"):
            hashes = getattr(self, name)
            if len(hashes) > MAX_TENSORS:
                raise ValueError(f"{name}: expected at most {MAX_TENSORS}, got {len(hashes)}")
            for i, h in enumerate(hashes):
                digest(h, f"{name}[{i}]")
        infos = len(self.sidecar.values)
        if infos not in (0, len(self.values)):
            raise ValueError(f"sidecar: expected 0 or {len(self.values)} values, got {infos}")

    @cached_property
    def io_root(self) -> bytes:
        """The part that does not depend on the level."""
        return io_root_of(
            self.numeric_id, self.program, self.instance, self.weights_root,
            (len(self.inputs), tensors_root(self.inputs)),
            (len(self.outputs), tensors_root(self.outputs)), self.version,
        )  # fmt: skip

    @cached_property
    def root(self) -> bytes:
        """The commitment."""
        if self.level == "io":
            return self.io_root
        return ops_root(self.io_root, len(self.values), tensors_root(self.values))

    def value_tree(self) -> MerkleTree:
        """The tree of the values, for proofs."""
        return MerkleTree(tensor_leaf(i, h) for i, h in enumerate(self.values))

    def save(
        self, path: str | PathLike[str], tensors: Mapping[tuple[str, int], Any] | None = None
    ) -> None:
        """Write a trace file, with tensors to carry by ("input" | "output" | "value", index); ReeError."""
        from ree.errors import ReeError
        from ree.traces.files import write_trace

        try:
            write_trace(path, self, tensors)
        except (OSError, ValueError) as e:
            raise ReeError(f"cannot write '{path}': {getattr(e, 'strerror', None) or e}") from e

    def __repr__(self) -> str:
        return f"Trace(level={self.level!r}, root={self.root.hex()[:16]}..., values={len(self.values)})"

    def at_io_level(self) -> Trace:
        """The same run committed at level "io"."""
        return make_trace(
            numeric_id=self.numeric_id, program=self.program, instance=self.instance,
            weights_root=self.weights_root, inputs=self.inputs, outputs=self.outputs,
            input_names=self.sidecar.inputs, output_names=self.sidecar.outputs,
            environment=self.sidecar.environment,
        )  # fmt: skip


def tensor_leaf(index: int, hash_: bytes) -> bytes:
    """Leaf `index` of a tree of tensors."""
    return u32(index) + hash_


def tensors_root(hashes: Iterable[bytes]) -> bytes:
    """Root over tensor hashes in order; 32 zero bytes when there are none."""
    return merkle_root(tensor_leaf(i, h) for i, h in enumerate(hashes))


def io_root_of(
    numeric_id: bytes,
    program: bytes,
    instance: bytes,
    weights_root: bytes,
    inputs: tuple[int, bytes],
    outputs: tuple[int, bytes],
    version: int = VERSION,
) -> bytes:
    """Root of an "io" trace; inputs and outputs by number and root."""
    return sha256(
        encoding.TRACE, u32(version), numeric_id, program, instance, weights_root,
        u32(inputs[0]), inputs[1], u32(outputs[0]), outputs[1],
    )  # fmt: skip


def ops_root(io_root: bytes, count: int, values_root: bytes) -> bytes:
    """Root of an "ops" trace from its "io" root and its values."""
    return sha256(encoding.OPS_TRACE, io_root, u32(count), values_root)


def is_moved(hash_: bytes) -> bool:
    """Whether a value's entry says pure data movement: it has no hash of its own."""
    return hash_ == ZERO


def make_trace(
    *,
    numeric_id: bytes,
    program: bytes,
    instance: bytes,
    weights_root: bytes,
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    values: Sequence[bytes] | None = None,
    infos: Iterable[ValueInfo] = (),
    input_names: Iterable[str] = (),
    output_names: Iterable[str] = (),
    environment: Iterable[tuple[str, str]] = (),
) -> Trace:
    """A trace from tensor hashes: level "ops" if `values` is given, "io" otherwise."""
    sidecar = Sidecar(tuple(infos), tuple(input_names), tuple(output_names), tuple(environment))
    return Trace(
        "io" if values is None else "ops", numeric_id, program, instance, weights_root,
        tuple(inputs), tuple(outputs), tuple(values or ()), sidecar=sidecar,
    )  # fmt: skip
