"""Running a language model: caches in memory that stays, a call for one slot or for several together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ree.errors import ArtifactError, InputError
from ree.float_mode import clean_floats
from ree.generation.layout import CHUNK, EXPECTED, capacity_for
from ree.generation.programs import Forward
from ree.kernels.opdef import Array
from ree.runtime import settings
from ree.runtime.cache import LeastRecent
from ree.runtime.executable import Frame, aligned

FRAMES = 32  # shapes of calls whose memory and code are kept
QUERIES = (1, 8, 32, 128)  # positions of a call; others are cut and filled up to these
ROWS = 32  # logits of a call are wanted from a multiple of so many on, or behind its last position
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # slots of a call


class Engine:
    """The caches of `slots` texts, and the calls that fill them.

    Slot, batch, width of a call and capacity change no bit of what is computed. One thread at a time.
    Capacity grows by doubling up to `most` positions.
    """

    def __init__(
        self, forward: Forward, slots: int = 1, *, positions: int = 1, most: int = 1 << 20,
        threads: int | None = None, isa: str | None = None,
    ) -> None:  # fmt: skip
        if not 1 <= slots <= BATCHES[-1]:
            raise InputError(f"slots: expected 1 to {BATCHES[-1]}, got {slots}")
        self.forward, self.slots, self.most = forward, slots, most
        self.threads, self.isa = threads, settings.isa(isa)
        settings.pool(threads)  # refuses what cannot be
        self.capacity = 0
        self.caches: list[Array] = []
        self._arena = aligned(0)
        self._frames: LeastRecent[tuple[int, ...], Frame] = LeastRecent(FRAMES)
        self.reserve(positions)

    def reserve(self, positions: int) -> None:
        """Have room for so many positions in every slot; InputError beyond `most`."""
        if positions > self.most:
            raise InputError(f"expected at most {self.most} positions, got {positions}")
        capacity = capacity_for(positions)
        if capacity <= self.capacity:
            return
        caches: list[Array] = [
            np.zeros((self.slots, capacity, *shape), np.float32)
            for shape in self.forward.cache_shapes
        ]
        for new, old in zip(caches, self.caches, strict=False):
            new[:, : self.capacity] = old
        self.caches, self.capacity = caches, capacity
        self._frames.clear()

    def read(
        self, slot: int, tokens: Sequence[int], start: int, *, first: int | None = None
    ) -> Array:
        """Take in tokens at positions start, start + 1, ... of a slot; the logits f32 [vocabulary] behind the
        last of them, with `first` those behind each from tokens[first] on, [tokens - first, vocabulary]."""
        done, rows = 0, []
        while done < len(tokens):
            left = len(tokens) - done
            width = next(q for q in reversed(QUERIES) if q <= left)
            # few that are left are read in one call, filled up where there is room
            room = self.most - start - done
            width = next((q for q in QUERIES if left <= q < 2 * left and q <= room), width)
            part = tokens[done : done + width]
            n = len(part)
            wanted = n - 1 if first is None else min(max(first - done, 0), n)
            rows.append(self._read_part(slot, part, start + done, width, wanted))
            done += n
        return rows[-1][0] if first is None else np.concatenate(rows)

    def _read_part(
        self, slot: int, part: Sequence[int], start: int, width: int, first: int
    ) -> Array:
        """One call; the logits behind part[first:]."""
        n, end = len(part), start + len(part)
        self.reserve(start + width)
        given = np.zeros((1, width), np.int64)
        given[0, :n] = part
        at = np.arange(start, start + width, dtype=np.int64)[None]
        # few numbers of rows, so that few shapes are compiled
        begin = first // ROWS * ROWS if first < n - 1 else n - 1
        wanted = np.arange(begin, width if begin < n - 1 else n)[None]
        logits = self.call(slot, given, at, wanted, np.array([end], np.int64))
        return logits[0, first - begin : n - begin]

    def width(self, slots: int) -> int:
        """How many slots a step takes in that has to take in the first so many."""
        return min(next(b for b in BATCHES if b >= slots), self.slots)

    def step(
        self, tokens: Sequence[int], positions: Sequence[int], live: Sequence[bool], first: int = 0
    ) -> Array:
        """Take in one token in each slot from `first` on, at a position; f32 [slots, vocabulary]. A slot that
        is not live gets a zero at its position, which has to be one that holds nothing."""
        self.reserve(max(positions) + 1)
        n = len(tokens)
        given, at = np.array(tokens, np.int64), np.array(positions, np.int64)
        limit = np.where(np.array(live), at + 1, 0)
        logits = self.call(first, given[:, None], at[:, None], np.zeros((n, 1), np.int64), limit)
        return logits[:, 0]

    def copy(self, source: int, slot: int, positions: int) -> None:
        """Put the first positions of one slot into another."""
        for c in self.caches:
            c[slot, :positions] = c[source, :positions]

    def put(self, slot: int, pages: Sequence[Sequence[Array]]) -> None:
        """Put pages (pages.py), from the first position on, into a slot."""
        self.reserve(len(pages) * CHUNK)
        for i, page in enumerate(pages):
            for c, x in zip(self.caches, page, strict=True):
                c[slot, i * CHUNK : (i + 1) * CHUNK] = x

    @clean_floats
    def call(self, slot: int, tokens: Array, positions: Array, rows: Array, limit: Array) -> Array:
        """One call of the forward program on the slots from `slot` on."""
        frame = self._frame(tokens.shape[0], tokens.shape[1], rows.shape[1])
        n = tokens.shape[0]
        out = np.empty((n, rows.shape[1], self.forward.vocabulary), np.float32)
        frame.bind("input", [tokens, positions, rows, limit])
        frame.bind("state", [c[slot : slot + n] for c in self.caches])
        frame.bind("output", [*self.caches, out])  # the caches are written where they are
        frame.run_part(0, settings.pool(self.threads))
        return out

    def _frame(self, slots: int, queries: int, rows: int) -> Frame:
        return self._frames.get_or_make(
            (slots, queries, rows), lambda: self._new_frame(slots, queries, rows)
        )

    def _new_frame(self, slots: int, queries: int, rows: int) -> Frame:
        program = self.forward.stateful(slots, self.capacity)
        axes = self.forward.axes
        env = {axes.queries: queries, axes.rows: rows}
        executable = program.cpu.executable(program, env, self.isa)
        if executable.recipe.in_place != frozenset(range(len(self.caches))):
            raise ArtifactError("the model's program does not write its caches in place", EXPECTED)
        wanted = executable.recipe.arena_bytes
        if wanted > len(self._arena):
            self._frames.clear()  # they are of the old memory
            self._arena = aligned(wanted)
        return Frame(executable, self._arena)
