"""Receipts of a server, signed if it has a key: the last ones in memory, all in a directory if it has one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ree.files.atomic import atomic_file
from ree.generation.receipt import Receipt

KEPT = 1024
MAX_BYTES = 256 << 20  # of all that are kept in memory


class Receipts:
    """Receipts by their digest, hexadecimal. key: a ree.signing.SigningKey; directory: where files go."""

    def __init__(self, directory: Path | None = None, key: Any = None) -> None:
        self._directory, self._key = directory, key
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, receipt: Receipt) -> Receipt:
        """The receipt, signed, after it is kept; OSError where a file cannot be written."""
        if self._key is not None:
            receipt = receipt.signed(self._key)
        digest, raw = receipt.digest.hex(), receipt.to_json()
        if self._directory is not None:
            with atomic_file(self._directory / f"{digest}.json") as f:
                f.write(raw)
        with self._lock:
            self._bytes += len(raw) - len(self._kept.pop(digest, b""))
            self._kept[digest] = raw
            while len(self._kept) > 1 and (len(self._kept) > KEPT or self._bytes > MAX_BYTES):
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return receipt

    def find(self, digest: str) -> bytes | None:
        """The file of a receipt that is still in memory, or None."""
        with self._lock:
            return self._kept.get(digest)
