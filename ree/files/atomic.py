"""Writing files and directories so that nothing half-written is ever seen, and reading them as one."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ree.errors import ReeError
from ree.traces.replacing import final_target, replacing, sync_directory, temporary_name

RENAME_EXCHANGE = 2
AT_FDCWD = -100
TRIES = 1000  # of a renaming or a reading that other writers cross


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file `path`, as `replacing` has it; ReeError."""
    try:
        with replacing(path) as f:
            yield f
    except (OSError, ValueError) as e:
        raise ReeError(f"cannot write '{path}': {getattr(e, 'strerror', None) or e}") from e


def check_file_place(path: str | os.PathLike[str]) -> None:
    """ReeError if no file can be written at `path`, as far as that can be said before there is one."""
    try:
        target = final_target(Path(path))
        if target is not None and not os.access(target.parent, os.W_OK | os.X_OK):
            os.stat(target.parent / ".")  # says that it is missing, or a file
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as e:
        raise ReeError(f"cannot write '{path}': {getattr(e, 'strerror', None) or e}") from e


def check_replaceable(path: Path, is_ours: Callable[[Path], bool], what: str) -> Path:
    """Where links lead; ReeError unless nothing is there, an empty directory, or what is ours."""
    refused = ReeError(f"will not overwrite '{path}': it is not {what}")
    if not path.name:
        raise refused
    try:
        for _ in range(TRIES):
            target = Path(os.path.realpath(path)) if path.is_symlink() else path
            try:
                seen = os.lstat(target)
            except FileNotFoundError:
                return target
            with suppress(FileNotFoundError):
                if (target.is_dir() and not any(target.iterdir())) or is_ours(target):
                    return target
                if os.path.samestat(seen, os.lstat(target)):
                    raise refused
            # another writer took it away meanwhile
    except (OSError, ValueError) as e:
        raise ReeError(f"cannot write '{path}': {getattr(e, 'strerror', None) or e}") from e
    raise ReeError(f"cannot write '{path}': it is replaced all the time")


@contextmanager
def atomic_directory(
    path: Path, is_ours: Callable[[Path], bool] = lambda _: False, what: str = "an artifact"
) -> Iterator[Path]:
    """A new directory that takes the place of `path` at the end, at once; on any error nothing remains
    and an old one is untouched. One that is there is replaced only if it is_ours. ReeError."""
    target = check_replaceable(path, is_ours, what)
    temp = temporary_name(target)
    made = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temp.mkdir()
        made = True
        yield temp
        for f in temp.iterdir():
            with open(f, "rb") as h:
                os.fsync(h.fileno())
        sync_directory(temp)
        _put(temp, target, lambda: check_replaceable(path, is_ours, what))
        sync_directory(target.parent)
    except OSError as e:
        raise ReeError(f"cannot write '{path}': {e.strerror or e}") from e
    finally:
        if made:  # what it holds now is the old one, or what was not finished
            shutil.rmtree(temp, ignore_errors=True)


def _put(temp: Path, target: Path, check: Callable[[], object]) -> None:
    """Give the directory `temp` the name `target`, and what has it now the name `temp`."""
    for _ in range(TRIES):
        check()
        try:
            os.rename(temp, target)  # onto nothing, or an empty directory
            return
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        try:
            _exchange(temp, target)
            return
        except (
            FileNotFoundError
        ):  # another writer is between the two steps of a file system without
            continue
        except OSError as e:
            if e.errno not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
                raise
        old = temporary_name(target)  # this file system cannot exchange: for a moment there is none
        with suppress(FileNotFoundError):
            os.rename(target, old)
            try:
                os.rename(temp, target)
            except OSError:
                try:
                    os.rename(old, target)
                except OSError:  # another writer's has the name, and stands for this one too
                    shutil.rmtree(old, ignore_errors=True)
                continue
            os.rename(old, temp)
            return
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _exchange(a: Path, b: Path) -> None:
    """Let two directories change names, in one step."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def opened_together(
    directory: Path,
    names: tuple[str, ...],
    whole: Callable[[Mapping[str, BinaryIO]], bool] = lambda _: False,
) -> Iterator[Mapping[str, BinaryIO]]:
    """Files of one directory by name, all of one version of it even while it is being replaced.

    whole: whether files without some of the names are all that there are. What is missing, or is no regular
    file, is left out; a link could lead out of the directory. ReeError.
    """
    for _ in range(TRIES):
        files: dict[str, BinaryIO] = {}
        try:
            d = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise ReeError(f"cannot read '{directory}': {e.strerror}") from e
        try:
            for name in names:
                with suppress(OSError):
                    files[name] = _regular(d, name)
            if len(files) == len(names) or whole(files) or _is_at(d, directory):
                yield files
                return
        finally:
            os.close(d)
            for f in files.values():
                f.close()
    raise ReeError(f"'{directory}' is replaced all the time")


def read_private(path: str | os.PathLike[str], limit: int, error: type[ReeError]) -> bytes:
    """A secret of at most `limit` bytes from a file that only its owner may read; `error` otherwise."""
    try:
        with open(path, "rb") as f:
            if os.fstat(f.fileno()).st_mode & 0o077:
                raise error(f"'{path}' can be read by others", f"chmod 600 {path}")
            raw = f.read(limit + 1)
    except OSError as e:
        raise error(f"cannot read '{path}': {e.strerror or e}") from e
    if len(raw) > limit:
        raise error(f"'{path}' is no key: over {limit} bytes")
    return raw


def _regular(directory: int, name: str) -> BinaryIO:
    # a pipe without a writer would block
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return open(fd, "rb")


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open directory still has its name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False
