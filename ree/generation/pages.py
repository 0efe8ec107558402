"""Beginnings of texts that were read before, kept in pages of 128 positions (a prefix cache)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from ree.generation.layout import CHUNK
from ree.kernels.opdef import Array


class Pages:
    """Keys and values of whole pages, `most` bytes of them at most; those used least recently go first.

    A page is found by everything from the text's beginning to its own end, since all of that is in its keys and
    values; and by a salt: texts of different salts share nothing, not even the time that they take.
    """

    def __init__(self, most: int) -> None:
        self.most, self.nbytes = most, 0
        self._pages: OrderedDict[bytes, list[Array]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

    def find(self, salt: str, tokens: Sequence[int]) -> list[list[Array]]:
        """The pages of a text's beginning, [128, heads, width] of each cache, as many as are there."""
        names, found = [], []
        for name in _names(salt, tokens):
            page = self._pages.get(name)
            if page is None:
                break
            names.append(name)
            found.append(page)
        for name in reversed(names):  # a page without those before it cannot be found: they go last
            self._pages.move_to_end(name)
        return found

    def keep(self, salt: str, tokens: Sequence[int], caches: Sequence[Array]) -> None:
        """Keep the whole pages of a text whose caches [capacity, heads, width] hold all of `tokens`."""
        names = list(_names(salt, tokens))
        for i, name in enumerate(names):
            if name not in self._pages:
                page = [np.array(c[i * CHUNK : (i + 1) * CHUNK]) for c in caches]
                self._pages[name] = page
                self.nbytes += _size(page)
        for name in reversed(names):
            self._pages.move_to_end(name)
        while self.nbytes > self.most:
            self.nbytes -= _size(self._pages.popitem(last=False)[1])


def _size(page: Sequence[Array]) -> int:
    return sum(x.nbytes for x in page)


def _names(salt: str, tokens: Sequence[int]) -> Iterator[bytes]:
    """The name of each whole page."""
    name = hashlib.sha256(salt.encode()).digest()
    for start in range(0, len(tokens) - CHUNK + 1, CHUNK):
        page = np.array(tokens[start : start + CHUNK], np.int64)
        name = hashlib.sha256(name + page.tobytes()).digest()
        yield name
