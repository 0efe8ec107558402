"""The one writer of a run directory: nothing it leaves behind at any moment is unreadable.

A step's batch is written before its record, a record in one write, a checkpoint beside its place and
renamed once it and the history are on the disk. So after a kill the history has a whole number of
records, but for a tail that the next writer cuts off.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ree.errors import ReeError, RunError
from ree.files.safetensors import write_tensors
from ree.kernels.opdef import Array
from ree.traces.encoding import DIGEST
from ree.traces.history import History, StepRecord
from ree.traces.replacing import replacing, temporary_name
from ree.training.directory import (
    BATCHES,
    CHECKPOINTS,
    COMMITMENT,
    HISTORY,
    LOCK,
    LOSSES,
    MANIFEST,
    PROGRAM,
    RECORD_BYTES,
    TENSORS,
    DataFile,
    Manifest,
    RunReader,
    commitment_json,
    encode_record,
    losses_csv,
    manifest_of,
    step_file,
)
from ree.training.metrics import HEADER, METRICS, Metrics, encode_metrics, read_metrics

if TYPE_CHECKING:
    from ree.training.step import Step


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise RunError(f"cannot write '{path}': {e.strerror or e}",
                       "make room, then continue with --resume") from e  # fmt: skip


def create_run(
    path: Path, step: Step, checkpoint_every: int, keep_batches: bool, data: Sequence[DataFile]
) -> None:
    """A new run directory before its first step; it appears whole or not at all."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"'{path}' exists", "continue it with --resume, or choose another name")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = temporary_name(path)
        temp.mkdir()
    try:
        try:
            step.save(temp / PROGRAM)
        except ReeError as e:
            raise RunError(f"cannot write '{path}': {e.message}") from e
        manifest = manifest_of(step, checkpoint_every, keep_batches, data)
        with _writing(path):
            (temp / MANIFEST).write_text(manifest.to_json())
            for name in (CHECKPOINTS, BATCHES):
                (temp / name).mkdir()
            for name in (HISTORY, TENSORS, LOCK):
                (temp / name).touch()
            (temp / METRICS).write_text(HEADER)
            _write_state(temp, step, manifest, 0, step.initial)
            for f in temp.rglob("*"):
                _sync(f)
            os.rename(temp, path)  # onto nothing, or an empty directory
            _sync(path.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _write_state(path: Path, step: Step, m: Manifest, at: int, state: Sequence[Array]) -> None:
    tensors = dict(zip(step.names.states, state, strict=True))
    metadata = {"program": m.program, "step": str(at)}
    write_tensors(step_file(path / CHECKPOINTS, at), tensors, metadata, sync=True)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class RunWriter:
    """Continues a run from its last checkpoint; RunError if another process writes it.

    Use as a context manager. `start` is the checkpoint's step.
    """

    def __init__(self, path: Path, step: Step) -> None:
        self.path, self.step = path, step
        with _writing(path):
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        self._fds: list[int] = []
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                raise RunError(f"another process is writing the run '{path}'") from e
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        reader = RunReader(self.path)
        self.notes, self.manifest = reader.notes, reader.manifest
        self.start = reader.nearest(reader.steps)
        self._state = reader.state(self.start)
        self.lost = reader.steps - self.start
        self.records = reader.records[: self.start]
        self.history = History(self.manifest.header(), self.records)
        self.saved = self.start
        hashes = len(self.step.names.states) * DIGEST
        with _writing(self.path):
            for folder in (self.path, self.path / CHECKPOINTS, self.path / BATCHES):
                for left in folder.glob(".*.tmp"):  # by a writer that was killed
                    left.unlink()
            if self._sealed() > self.start:  # the checkpoint it belongs to is gone
                (self.path / COMMITMENT).unlink()
            if self.lost:  # of steps that are cut off
                (self.path / LOSSES).unlink(missing_ok=True)
            self.metrics = self._kept_metrics()
            for name, size in ((HISTORY, RECORD_BYTES), (TENSORS, hashes)):
                fd = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
                self._fds.append(fd)
                os.ftruncate(fd, self.start * size)
                os.lseek(fd, 0, os.SEEK_END)
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
            self._fds.append(os.open(self.path / METRICS, flags))

    def _kept_metrics(self) -> dict[int, Metrics]:
        """Metrics of the steps that are kept, the file cut to them; none where it is damaged."""
        try:
            found = read_metrics(self.path, self.start)
        except RunError as e:
            if (self.path / METRICS).exists():  # older runs have none
                self.notes.append(f"{e.message}; begun again")
            found = {}
        self._replace(METRICS, encode_metrics(found))
        return found

    def _sealed(self) -> int:
        path = self.path / COMMITMENT
        return int(json.loads(path.read_bytes())["steps"]) if path.exists() else 0

    def take_state(self) -> list[Array]:
        """The checkpoint's state, once: it is not held any longer."""
        state, self._state = self._state, []
        return state

    def keep_batch(self, step: int, batch: Sequence[Array]) -> None:
        """Write the batch of a step, before its record."""
        if self.manifest.keep_batches:
            path = step_file(self.path / BATCHES, step)
            with _writing(path):
                write_tensors(path, dict(zip(self.step.names.inputs, batch, strict=True)))

    def append(self, record: StepRecord, hashes: Sequence[bytes]) -> None:
        """Add the next step's record and the tensor hashes under its state root."""
        history, tensors, _ = self._fds
        self._append(tensors, TENSORS, b"".join(hashes))  # never fewer of these than records
        self._append(history, HISTORY, encode_record(self.history.steps + 1, record))
        self.history.append(record)
        self.records.append(record)

    def append_metrics(self, step: int, metrics: Metrics) -> None:
        """Add the metrics of a recorded step."""
        self._append(self._fds[2], METRICS, metrics.row(step).encode())

    def _append(self, fd: int, name: str, row: bytes) -> None:
        with _writing(self.path / name):
            at = os.lseek(fd, 0, os.SEEK_CUR)
            try:
                if os.write(fd, row) != len(row):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(fd, at)
                os.lseek(fd, at, os.SEEK_SET)
                raise

    def checkpoint(self, state: Sequence[Array]) -> None:
        """Keep the state after the last recorded step, and seal the history up to it."""
        at = self.history.steps
        with _writing(self.path):
            for fd in self._fds:
                os.fsync(fd)
            if at != self.saved:
                _write_state(self.path, self.step, self.manifest, at, state)
                self.saved = at
            self._replace(COMMITMENT, json.dumps(commitment_json(self.history), indent=1) + "\n")

    def finish(self) -> None:
        """Write the table of losses."""
        with _writing(self.path / LOSSES):
            self._replace(LOSSES, losses_csv(self.records))

    def _replace(self, name: str, text: str) -> None:
        with replacing(self.path / name, follow=False) as f:
            f.write(text.encode())

    def close(self) -> None:
        """Release the files and the lock."""
        for fd in (*self._fds, self._lock):
            with suppress(OSError):
                os.close(fd)
        self._fds = []

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
