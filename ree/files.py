"""Writing files so that nothing half-written is ever seen."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ree.errors import ReeError


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A new directory beside `path`, renamed to it at the end; on any error nothing remains and an
    old directory is untouched."""
    if path.exists() and not (path / "manifest.json").exists():
        raise ReeError(f"will not overwrite '{path}': it is not an artifact")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as e:
        raise ReeError(f"cannot write '{path}': {e.strerror}") from e
    try:
        yield temp
        for f in temp.iterdir():
            with open(f, "rb") as h:
                os.fsync(h.fileno())
        temp.chmod(0o755)
        old = None
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.rename(path, old / "old")
        os.rename(temp, path)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        raise ReeError(f"cannot write '{path}': {e.strerror or e}") from e
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, there from the start, renamed to it at the end."""
    temp = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        temp.touch()
        yield temp
        with open(temp, "rb") as h:
            os.fsync(h.fileno())
        os.replace(temp, path)
    except OSError as e:
        raise ReeError(f"cannot write '{path}': {e.strerror or e}") from e
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)
