"""A program's weights, each held once: as it was given, or in the panels that plans read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from ree.compiler.plan.recipe import Packing
from ree.kernels.opdef import Array


class Weights(Sequence[Array]):
    """Weights in the program's order; not to be written to. One that is held in panels is laid out anew
    whenever it is asked for, and belongs to who asked."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._held: list[Array | Panels] = list(arrays)

    def __len__(self) -> int:
        return len(self._held)

    @overload
    def __getitem__(self, i: int) -> Array: ...
    @overload
    def __getitem__(self, i: slice) -> list[Array]: ...
    def __getitem__(self, i: int | slice) -> Array | list[Array]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        held = self._held[i]
        return held.plain() if isinstance(held, Panels) else held

    def detach(self, indices: Iterable[int]) -> None:
        """Give these memory of their own where they are parts of a file's, which they would keep whole."""
        for i in indices:
            x = self._held[i]
            if isinstance(x, np.ndarray) and x.base is not None:
                self._held[i] = x.copy()

    def hold_panels(self, panels: Mapping[Packing, Array], panel: int) -> None:
        """Keep packed weights, of so many columns a panel, in place of those that they hold all of."""
        for p, packed in panels.items():
            i = p.source.index
            x = self._held[i] if i < len(self) else None
            if isinstance(x, np.ndarray) and _whole(p, x):
                self._held[i] = Panels(p, packed, panel, x.dtype, x.shape)


@dataclass(frozen=True)
class Panels:
    """A weight in panels, and the array that it was."""

    packing: Packing
    packed: Array
    panel: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    def plain(self) -> Array:
        p = self.packing
        if p.group:  # two as 16 bits, or four, 128 too high
            raw = self.packed.view("<i2" if p.group == 2 else "u1")
            words = raw.reshape(-1, -(-p.k // p.group), self.panel, p.group).swapaxes(1, 2)
            rows = words.reshape(words.shape[0] * self.panel, -1)[: p.n, : p.k]
            narrow = (rows if p.group == 2 else rows ^ np.uint8(128)).astype(np.int8)
            return np.ascontiguousarray(narrow).reshape(self.shape)
        panels = self.packed.view(self.dtype).reshape(-1, self.packing.k, self.panel)
        rows = panels.swapaxes(1, 2).reshape(-1, self.packing.k)[: self.packing.n]
        return np.ascontiguousarray(rows).reshape(self.shape)


def _whole(p: Packing, x: Array) -> bool:
    """Whether panels hold a weight row by row."""
    by_row = p.n * p.k == x.size and (p.stride_k, p.stride_n) == (1, p.k)
    size = 1 if p.group else p.element_bytes
    return by_row and x.dtype.itemsize == size and p.k > 0 and x.flags.c_contiguous
