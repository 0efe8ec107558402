"""Writing a file so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MAX_LINKS = 40
STDOUT = 1


@contextmanager
def replacing(
    path: str | os.PathLike[str], *, follow: bool = True, sync: bool = True
) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file `path` at the end; on an error nothing is left and an old
    file stays. OSError.

    follow: a link is followed and stays; a pipe, a device or another open file ("-": standard output)
    is written as it is. sync: only once the bytes are on the disk. The mode is what the umask says.
    """
    target = final_target(Path(path)) if follow else Path(path)
    if target is None:
        with _in_place(Path(path)) as f:
            yield f
        return
    temp, f = _temporary(target)
    try:
        with f:
            yield f
            if sync:
                f.flush()
                os.fsync(f.fileno())
        os.replace(temp, target)
    except BaseException:
        with suppress(OSError):
            temp.unlink()
        raise
    if sync:
        sync_directory(target.parent)


def final_target(path: Path) -> Path | None:
    """Where links lead; None for what is not a file of its own: a pipe, a device, an open file.

    IsADirectoryError for a directory.
    """
    if str(path) == "-":
        return None
    with suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            return None
    for _ in range(MAX_LINKS):
        if not path.is_symlink():
            return path
        folder = Path(os.path.realpath(path.parent))
        if folder.parts[:2] == ("/", "proc"):  # /dev/stdout, /dev/fd/3: a file that is open
            return None
        path = folder / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def is_standard_output(path: str | os.PathLike[str]) -> bool:
    """Whether what is written to `path` goes where standard output goes."""
    if str(path) == "-":
        return True
    try:
        return final_target(Path(path)) is None and os.path.samestat(
            os.stat(path), os.fstat(STDOUT)
        )
    except OSError:
        return False


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path` that nobody can guess."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")


def _temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`; what stands under its name already is an error, never followed."""
    temp = temporary_name(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return temp, open(os.open(temp, flags, 0o666), "wb")


@contextmanager
def _in_place(path: Path) -> Iterator[BinaryIO]:
    if is_standard_output(path):  # the same open file, where it stands
        fd = os.dup(STDOUT)
    else:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    with open(fd, "wb") as f:
        yield f


def sync_directory(path: Path) -> None:
    """Put a renaming on the disk, where the platform can."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
