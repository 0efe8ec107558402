"""Caches that hold a bounded number of things."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ree.runtime.settings import ForkLock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LeastRecent(OrderedDict[K, V], Generic[K, V]):
    """At most `most` values by key; what was not used for longest goes first.

    What is there is found without a lock, so that nobody who runs waits for somebody who compiles.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self._making = most, ForkLock()

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made once."""
        try:
            value = self[key]
            self.move_to_end(key)
            return value
        except KeyError:  # not there, or gone since
            pass
        with self._making:
            if key not in self:
                made = make()
                while len(self) >= self.most:
                    self.popitem(last=False)
                self[key] = made
            return self[key]
