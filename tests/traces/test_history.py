"""Histories against their definition, and openings that must not pass."""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ree.traces.history import (
    History,
    RunHeader,
    StepRecord,
    check_opening,
    loss_hash,
    open_step,
    run_commitment,
)
from ree.traces.merkle import Frontier, MerkleTree
from ree.traces.tensor import tensor_hash


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


HEADER = RunHeader(h(b"numeric"), h(b"instance"), bytes(32), h(b"S0"), 7)


def records(n: int) -> list[StepRecord]:
    return [
        StepRecord(h(b"state %d" % s), struct.unpack(">I", struct.pack(">f", 1 / s))[0],
                   h(b"batch %d" % s))
        for s in range(1, n + 1)
    ]  # fmt: skip


def root(leaves: list[bytes]) -> bytes:
    """A tree's root by its definition."""

    def node(level: int, index: int) -> bytes:
        if index << level >= len(leaves):
            return bytes(32)
        if level == 0:
            return h(b"\0", leaves[index])
        return h(b"\1", node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return node(max(len(leaves) - 1, 0).bit_length(), 0)


def commitment(header: RunHeader, rows: list[StepRecord]) -> bytes:
    """The commitment as docs/trace-format.md has it, without the library."""
    history, batches = [], []
    for s, r in enumerate(rows, 1):
        body = h(b"\0", struct.pack("<I", r.loss) + bytes(508))
        history.append(struct.pack(">Q", s) + r.state_root + h(b"\2\0\0", body))
        batches.append(struct.pack(">Q", s) + r.batch)
    return h(
        b"\6", struct.pack(">I", 1), header.numeric_id, header.instance, header.weights_root,
        header.initial_root, struct.pack(">q", header.seed), struct.pack(">Q", len(rows)),
        root(batches), root(history),
    )  # fmt: skip


def test_frontier_is_the_tree() -> None:
    tree, frontier = MerkleTree(), Frontier()
    for i in range(140):
        assert frontier.root() == tree.root()
        tree.append(b"%d" % i)
        frontier.append(b"%d" % i)
        assert frontier.count == i + 1


def test_every_size_has_the_commitment_of_the_definition() -> None:
    rows = records(20)
    history = History(HEADER)
    for n in range(21):
        assert history.steps == n
        assert history.commitment == commitment(HEADER, rows[:n])
        if n < 20:
            history.append(rows[n])


def test_the_loss_hash_is_its_tensor_hash() -> None:
    for x in (0.0, -0.0, 1.5, 3e-42, np.inf):
        a = np.asarray(x, np.float32)
        assert loss_hash(int(a.view(np.uint32))) == tensor_hash(a)


def test_everything_in_a_run_changes_its_commitment() -> None:
    rows = records(5)
    seen = {commitment(HEADER, rows)}
    for name in ("numeric_id", "instance", "weights_root", "initial_root"):
        seen.add(History(replace(HEADER, **{name: h(b"other")}), rows).commitment)
    seen.add(History(replace(HEADER, seed=-7), rows).commitment)
    seen.add(History(HEADER, rows[:4]).commitment)
    seen.add(History(HEADER, rows[::-1]).commitment)
    for change in ({"state_root": h(b"x")}, {"loss": rows[2].loss ^ 1}, {"batch": h(b"x")}):
        changed = list(rows)
        changed[2] = replace(rows[2], **change)
        seen.add(History(HEADER, changed).commitment)
    assert len(seen) == 11


@given(st.integers(1, 30), st.data())
def test_openings(n: int, data: st.DataObject) -> None:
    rows = records(n)
    history = History(HEADER, rows)
    args = (history.commitment, HEADER, n, history.batches_root, history.history_root)
    step = data.draw(st.integers(1, n))
    opening = open_step(rows, step)
    check_opening(*args, opening)
    record = opening.record
    for bad in (
        replace(opening, step=step % n + 1 if n > 1 else 2),
        replace(opening, step=0),
        replace(opening, record=replace(record, loss=record.loss ^ 1)),
        replace(opening, record=replace(record, batch=h(b"x"))),
        replace(opening, history_proof=(*opening.history_proof, bytes(32))),
        replace(opening, batch_proof=(*opening.batch_proof, bytes(32))),
    ):
        with pytest.raises(ValueError, match="expected"):
            check_opening(*args, bad)
    for i, other in enumerate((h(b"x"), replace(HEADER, seed=8), n + 1, h(b"x"), h(b"x"))):
        wrong = (*args[:i], other, *args[i + 1 :])
        with pytest.raises(ValueError, match="commitment"):
            check_opening(*wrong, opening)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        replace(HEADER, instance=b"x")
    with pytest.raises(ValueError, match="64 bits"):
        replace(HEADER, seed=2**63)
    with pytest.raises(ValueError, match="32 bits"):
        StepRecord(bytes(32), -1, bytes(32))
    with pytest.raises(IndexError, match="1 to 3"):
        open_step(records(3), 4)
    with pytest.raises(ValueError, match="32 bytes"):
        run_commitment(HEADER, 1, b"", bytes(32))


def test_document_shows_these_numbers() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "trace-format.md").read_text()
    rows = records(3)
    history = History(HEADER, rows)
    for value in (loss_hash(rows[0].loss), history.history_root, history.batches_root,
                  history.commitment):  # fmt: skip
        assert f"`{value.hex()}`" in text
