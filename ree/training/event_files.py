"""TensorBoard files of a run, by the tensorboard package's own writer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ree.errors import InputError, PlatformError, RunError

TAGS = {
    "loss": "loss/train", "validation_loss": "loss/validation", "learning_rate": "learning_rate",
    "gradient_norm": "gradient_norm",
}  # fmt: skip


class EventFiles:
    """Writes the numbers of steps into a directory; checked when made, begun by `open`."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as e:
            raise PlatformError(
                "TensorBoard files need the tensorboard package",
                "pip install 'ree-ml[tensorboard]'",
            ) from e
        self._events, self._summaries, self._make = event_pb2, summary_pb2, EventFileWriter
        self._path, self._writer = Path(directory), None
        there = next(
            p for p in (self._path.absolute(), *self._path.absolute().parents) if p.exists()
        )
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"tensorboard: cannot write into '{self._path}'")

    def open(self, start: int) -> None:
        """Begin a file; what other files in the directory have after step `start` is superseded."""
        try:
            self._writer = self._make(str(self._path))
            if start:
                log = self._events.SessionLog(status=self._events.SessionLog.START)
                self._add(start + 1, session_log=log)
        except OSError as e:
            raise RunError(f"cannot write '{self._path}': {e.strerror or e}") from e

    def write(self, step: int, numbers: dict[str, float | None]) -> None:
        """Add the numbers of a step, by their names in Python; None is left out."""
        value = self._summaries.Summary.Value
        values = [value(tag=TAGS[k], simple_value=x) for k, x in numbers.items() if x is not None]
        self._add(step, summary=self._summaries.Summary(value=values))

    def _add(self, step: int, **content: Any) -> None:
        assert self._writer is not None
        try:
            self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, **content))
        except OSError as e:
            raise RunError(f"cannot write '{self._path}': {e.strerror or e}") from e

    def close(self) -> None:
        """Write out what is held back."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as e:
                raise RunError(f"cannot write '{self._path}': {e.strerror or e}") from e
            finally:
                self._writer = None
