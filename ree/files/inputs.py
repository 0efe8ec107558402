"""Files of inputs: safetensors, .npz, .npy and JSON, told apart by what they hold, or standard input."""

from __future__ import annotations

import io
import math
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from ree.errors import InputError
from ree.files.safetensors import parse_tensors
from ree.kernels.opdef import Array
from ree.traces.strict_json import strict_json

MAX_BYTES = 1 << 34
MAX_JSON = 256 << 20
MAX_ARRAYS = 10_000
STANDARD_INPUT = "-"
ZIP, NPY = b"PK\x03\x04", b"\x93NUMPY"


def read_inputs(
    path: str | os.PathLike[str], names: Sequence[str], what: str = "inputs"
) -> dict[str, Any]:
    """Inputs by name of a file, or of standard input ("-"). A .npy file is the only input of a program.

    what: how errors call them. JSON: an object of numbers and nested lists. InputError for a file that
    cannot be read, is over 16 GiB, or holds objects of Python.
    """
    where = "standard input" if path == STANDARD_INPUT else f"'{os.fspath(path)}'"
    try:
        data = _bytes(path)
        return _parse(data, names, what)
    except FileNotFoundError as e:
        raise InputError(f"no file {where}") from e
    except OSError as e:
        raise InputError(f"cannot read {where}: {e.strerror or e}") from e
    except (ValueError, TypeError, KeyError, EOFError, zlib.error, zipfile.BadZipFile,
            NotImplementedError, RuntimeError) as e:  # fmt: skip
        raise InputError(f"{where} holds no readable {what}: {str(e)[:200]}",
                         "expected safetensors, .npz, .npy or JSON") from e  # fmt: skip


def _bytes(path: str | os.PathLike[str]) -> bytes:
    if path == STANDARD_INPUT:
        return _bounded(sys.stdin.buffer)
    with open(path, "rb") as f:
        info = os.fstat(f.fileno())
        if stat.S_ISREG(info.st_mode) and info.st_size > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes, got {info.st_size}")
        return _bounded(f)


def _bounded(f: BinaryIO) -> bytes:
    pieces, size = [], 0
    while piece := f.read(1 << 24):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes")
    return b"".join(pieces)


def _parse(data: bytes, names: Sequence[str], what: str) -> dict[str, Any]:
    if data.startswith(ZIP):
        return _npz(data)
    if data.startswith(NPY):
        if len(names) != 1:
            raise ValueError(f"one array, and the program has the {what} {', '.join(names)}")
        return {names[0]: _npy(io.BytesIO(data), len(data))}
    if data.lstrip()[:1] == b"{" and b"\0" not in data[:8]:  # the length of safetensors has zeros
        if len(data) > MAX_JSON:
            raise ValueError(f"expected at most {MAX_JSON} bytes of JSON, got {len(data)}")
        return dict(strict_json(data))
    return dict(parse_tensors(data))


def _npz(data: bytes) -> dict[str, Array]:
    out: dict[str, Array] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        members = z.infolist()
        if len(members) > MAX_ARRAYS or sum(m.file_size for m in members) > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_ARRAYS} arrays of {MAX_BYTES} bytes")
        for m in members:
            name = m.filename.removesuffix(".npy")
            if name in out:
                raise ValueError(f"the array '{name}' stands twice")
            with z.open(m) as f:
                out[name] = _npy(f, m.file_size)
    return out


def _npy(f: Any, size: int) -> Array:
    """An array of a stream of `size` bytes, its header checked before memory is taken."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(f)
    if version not in read:
        raise ValueError(f"expected .npy of version 1 or 2, got {version}")
    shape, fortran, dtype = read[version](f)
    if dtype.hasobject or dtype.kind not in "biuf" or dtype == np.uint16:
        raise ValueError(f"dtype: got {dtype}; what NumPy lacks, as bfloat16, goes in safetensors")
    want = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or want > size:
        raise ValueError(f"expected {want} bytes of data")
    raw = f.read(want + 1)
    if len(raw) != want:
        raise ValueError(f"expected {want} bytes of data, got {len(raw)}")
    a: Array = np.frombuffer(raw, dtype)
    return a.reshape(shape[::-1]).T if fortran else a.reshape(shape)
