"""Histories: what a training run commits to.

    state root   = Merkle root, leaf i = i (u32) || tensor hash, over the state's tensors by name
    batch digest = Merkle root, leaf i = i (u32) || tensor hash, over the batch's tensors in order
    loss hash    = tensor hash of the loss, a float32 of rank 0
    history leaf = step (u64) || state root || loss hash        after the step, at position step - 1
    batches leaf = step (u64) || batch digest                   at position step - 1
    commitment   = SHA-256(0x06 || version u32 || numeric id || instance || weights root || S0 root
                           || seed u64 || steps u64 || batches root || history root)

Steps count from 1; S0 is the state before step 1. The state before step s is that of leaf s - 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ree.kernels.types import DType
from ree.traces import encoding
from ree.traces.encoding import digest, sha256, u32, u64
from ree.traces.merkle import MAX_COUNT, Frontier, MerkleTree, leaf_hash, verify
from ree.traces.tensor import LEAF_BYTES, hash_from_root
from ree.traces.trace import tensors_root

VERSION = 1
MAX_STEPS = MAX_COUNT


@dataclass(frozen=True)
class RunHeader:
    """What is fixed before the first step; digests of 32 bytes, ValueError otherwise."""

    numeric_id: bytes
    instance: bytes
    weights_root: bytes  # of the frozen weights
    initial_root: bytes  # state root of S0
    seed: int  # int64

    def __post_init__(self) -> None:
        for name in ("numeric_id", "instance", "weights_root", "initial_root"):
            digest(getattr(self, name), name)
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed: expected 64 bits, got {self.seed}")


@dataclass(frozen=True)
class StepRecord:
    """What one step commits to. loss: the float32's 32 bits."""

    state_root: bytes
    loss: int
    batch: bytes

    def __post_init__(self) -> None:
        digest(self.state_root, "state root")
        digest(self.batch, "batch digest")
        if not 0 <= self.loss < 2**32:
            raise ValueError(f"loss: expected 32 bits, got {self.loss}")

    @property
    def loss_value(self) -> float:
        """The loss as a number."""
        return float(struct.unpack(">f", u32(self.loss))[0])


def state_root(hashes: Iterable[bytes]) -> bytes:
    """Root over the tensor hashes of a state, by name."""
    return tensors_root(hashes)


def batch_digest(hashes: Iterable[bytes]) -> bytes:
    """Digest over the tensor hashes of a batch, in its order."""
    return tensors_root(hashes)


def loss_hash(bits: int) -> bytes:
    """Tensor hash of a loss given as the bits of a float32."""
    body = struct.pack("<I", bits).ljust(LEAF_BYTES, b"\0")
    return hash_from_root(DType.F32.code, (), leaf_hash(body))


def history_leaf(step: int, record: StepRecord) -> bytes:
    """Leaf of the history tree for step 1, 2, ..."""
    return u64(step) + record.state_root + loss_hash(record.loss)


def batches_leaf(step: int, record: StepRecord) -> bytes:
    """Leaf of the batches tree for step 1, 2, ..."""
    return u64(step) + record.batch


def run_commitment(
    header: RunHeader, steps: int, batches_root: bytes, history_root: bytes
) -> bytes:
    """The one digest of a run of `steps` steps."""
    return sha256(
        encoding.HISTORY, u32(VERSION), header.numeric_id, header.instance, header.weights_root,
        header.initial_root, u64(header.seed % 2**64), u64(steps),
        digest(batches_root, "batches root"), digest(history_root, "history root"),
    )  # fmt: skip


class History:
    """A run's history as it grows: O(log n) memory, every root available after every step."""

    def __init__(self, header: RunHeader, records: Iterable[StepRecord] = ()) -> None:
        self.header = header
        self._history, self._batches = Frontier(), Frontier()
        for r in records:
            self.append(r)

    @property
    def steps(self) -> int:
        return self._history.count

    def append(self, record: StepRecord) -> None:
        """Add the next step; ValueError beyond MAX_STEPS."""
        step = self.steps + 1
        if step > MAX_STEPS:
            raise ValueError(f"steps: expected at most {MAX_STEPS}, got {step}")
        self._history.append(history_leaf(step, record))
        self._batches.append(batches_leaf(step, record))

    @property
    def history_root(self) -> bytes:
        return self._history.root()

    @property
    def batches_root(self) -> bytes:
        return self._batches.root()

    @property
    def commitment(self) -> bytes:
        return run_commitment(self.header, self.steps, self.batches_root, self.history_root)


@dataclass(frozen=True)
class StepOpening:
    """One step of a committed run, with what shows that it belongs to it."""

    step: int
    record: StepRecord
    history_proof: tuple[bytes, ...]
    batch_proof: tuple[bytes, ...]


def open_step(records: Sequence[StepRecord], step: int, steps: int | None = None) -> StepOpening:
    """Opening of `step` in the run of the first `steps` records (default: all)."""
    n = len(records) if steps is None else steps
    if not 1 <= step <= n <= len(records):
        raise IndexError(f"step: expected 1 to {min(n, len(records))}, got {step}")
    trees = [MerkleTree(leaf(s, records[s - 1]) for s in range(1, n + 1))
             for leaf in (history_leaf, batches_leaf)]  # fmt: skip
    proofs = [t.prove(step - 1) for t in trees]
    return StepOpening(step, records[step - 1], proofs[0], proofs[1])


def check_opening(
    commitment: bytes,
    header: RunHeader,
    steps: int,
    batches_root: bytes,
    history_root: bytes,
    opening: StepOpening,
) -> None:
    """Check that an opened step belongs to a committed run.

    ValueError (ProofError for a proof) unless:
    1. header, count and roots hash to the commitment;
    2. the step's leaf lies in the history tree at its position;
    3. its batch lies in the batches tree at its position.
    """
    # 1. the commitment
    got = run_commitment(header, steps, batches_root, history_root)
    if got != commitment:
        raise ValueError(f"commitment: expected {commitment.hex()}, got {got.hex()}")
    step, record = opening.step, opening.record
    # 2. the step
    verify(history_root, steps, step - 1, history_leaf(step, record), opening.history_proof)
    # 3. the batch
    verify(batches_root, steps, step - 1, batches_leaf(step, record), opening.batch_proof)
