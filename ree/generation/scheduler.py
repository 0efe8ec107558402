"""Several generations on one engine: each step reads some of one prompt, then draws a token of every text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ree.errors import InputError, ReeError
from ree.generation.claim import Text
from ree.generation.engine import Engine
from ree.generation.grammar import Matcher
from ree.generation.layout import CHUNK
from ree.generation.logprobs import LogProbs, TokenLogProb
from ree.generation.lookup import Lookup
from ree.generation.pages import Pages
from ree.generation.receipt_schema import ABORTED, LENGTH, STOP
from ree.generation.request import Sampling
from ree.generation.sampler import Drawing, draw
from ree.kernels.opdef import Array
from ree.runtime.sampler import Sampler


@dataclass(eq=False)
class Generation:
    """One text that is being made. `tokens` begins with the prompt and grows; `finish` is set at its end.

    matcher: says which tokens a grammar allows. logprobs: how many of the likeliest tokens are wanted beside
    the log-probability of each token that is drawn, None for nothing; of_prompt: of the prompt's tokens too.
    salt: only texts of the same share beginnings.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    stop: tuple[int, ...]
    max_tokens: int
    matcher: Matcher | None = None
    logprobs: int | None = None
    of_prompt: bool = False
    salt: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None  # one of FINISHES
    slot: int | None = None
    read: int = 0  # positions whose keys and values are in the slot
    reused: int = 0  # of them, those that an earlier text had left there
    masks: list[Array] = field(
        default_factory=list
    )  # what was allowed for each token drawn, with a matcher
    # of each token that was drawn; and of the prompt's tokens but the first
    drawn_logprobs: list[TokenLogProb] = field(default_factory=list)
    prompt_logprobs: list[TokenLogProb] = field(default_factory=list)
    failure: ReeError | None = None  # why it was aborted, if not by whoever wanted it
    lookup: Lookup = field(default_factory=Lookup)

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def drawn(self) -> int:
        return len(self.tokens) - len(self.prompt)

    def text(self) -> Text:
        """The tokens as a claim has them."""
        masks = None if self.matcher is None else tuple(self.masks)
        return Text(tuple(self.tokens), len(self.prompt), self.sampling, self.stop, masks)


class Scheduler:
    """Continuous batching: texts come and go between steps, and no text's bits depend on another.

    Requests wait in the order of their arrival for one of the engine's slots. What a text has in common with
    the beginning of another that is in a slot, or was the last there, is not read again but taken over. A text
    that is alone is decoded several tokens at a time where it repeats itself (`speculate`). One thread at a
    time.
    """

    def __init__(
        self, engine: Engine, *, reuse: bool = True, speculate: bool = True, pages: Pages | None = None
    ) -> None:  # fmt: skip
        self.engine, self._reuse, self._speculates = engine, reuse, speculate
        self._pages = Pages(0) if pages is None else pages
        vocabulary = engine.forward.vocabulary
        self._sampler = Sampler(engine.slots, vocabulary, threads=engine.threads, isa=engine.isa)
        self._logprobs = LogProbs(vocabulary, threads=engine.threads, isa=engine.isa)
        self._drawings: dict[Generation, Drawing] = {}
        self.waiting: deque[Generation] = deque()
        self._slots: list[Generation | None] = [None] * engine.slots
        # of each free slot: the tokens whose keys and values it still holds, and their salt; slots by how long
        # they are free
        self._left: list[tuple[str, list[int]]] = [("", []) for _ in self._slots]
        self._free = list(range(engine.slots))

    def submit(self, g: Generation) -> None:
        """Take a generation in; InputError for what can never run."""
        vocabulary = self.engine.forward.vocabulary
        if not g.prompt:
            raise InputError("the prompt is empty", "it needs a token to begin with")
        g.text().check(vocabulary)
        if g.max_tokens < 0:
            raise InputError(f"max_tokens: expected at least 0, got {g.max_tokens}")
        room = self.engine.most - len(g.prompt)
        if room < 1:
            raise InputError(f"the prompt has {len(g.prompt)} tokens, which leaves no room for another: the "
                             f"model takes {self.engine.most}")  # fmt: skip
        g.max_tokens = min(g.max_tokens, room)
        self._drawings[g] = Drawing(g.text(), vocabulary)
        self.waiting.append(g)

    @property
    def live(self) -> list[Generation]:
        """The generations that have a slot."""
        return [g for g in self._slots if g is not None]

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.live

    def step(self) -> Iterator[tuple[Generation, int | None]]:
        """Work for one more token of every text that is under way, and give (generation, token) for each drawn.

        The token is None where a generation ends without one: nothing was to be drawn, or it has a `failure`.
        A generation that ended keeps its slot, and so its caches, until `release`.
        """
        self._admit()
        ready = [g for g in self.live if g.finish is None and g.read == len(g.tokens) - 1]
        reading = next(
            (g for g in self.live if g.finish is None and g.read < len(g.tokens) - 1), None
        )
        if reading is None and len(ready) == 1:
            guess = self._guess(ready[0])
            if guess:
                yield from self._speculate(ready[0], guess)
                return
        rows: list[tuple[Generation, Array]] = []
        if reading is not None:
            logits = self._read_on(reading)
            if logits is not None:
                rows.append((reading, logits))
        if ready:
            rows += zip(ready, self._decode(ready), strict=True)
        yield from self._draw(rows)

    def release(self, g: Generation) -> None:
        """Free the slot of a generation that ended, or take it off the queue."""
        if g.slot is not None:
            held = g.tokens[: g.read]
            if self._pages.most:
                self._pages.keep(g.salt, held, self.caches(g))
            self._slots[g.slot], self._left[g.slot] = None, (g.salt, held)
            self._free.append(g.slot)
            g.slot = None
        elif g in self.waiting:
            self.waiting.remove(g)
        self._drawings.pop(g, None)

    def abort(self, g: Generation) -> None:
        """End a generation that nobody wants any more."""
        if g.finish is None:
            g.finish = ABORTED
        self.release(g)

    def caches(self, g: Generation) -> list[Array]:
        """The caches of a generation that has its slot, [capacity, heads, width] each."""
        assert g.slot is not None
        return [c[g.slot] for c in self.engine.caches]

    def _admit(self) -> None:
        while self._free and self.waiting:
            g = self.waiting.popleft()
            # nothing is taken over where the logits of what was read are wanted
            known = [0 if g.of_prompt else self._common(i, g) for i in range(len(self._slots))]
            best = max(range(len(known)), key=known.__getitem__)
            slot, taken = self._free[0], known[best]
            pages = [] if g.of_prompt or not self._reuse else self._pages.find(g.salt, g.tokens)
            if len(pages) * CHUNK > taken:
                self.engine.put(slot, pages)
                taken = min(len(pages) * CHUNK, len(g.tokens) - 1)
            elif best in self._free and taken:
                slot = best
            elif taken:
                self.engine.copy(best, slot, taken)
            self._free.remove(slot)
            self._slots[slot], self._left[slot] = g, ("", [])
            g.slot, g.read, g.reused = slot, taken, taken

    def _common(self, slot: int, g: Generation) -> int:
        """How many positions of a text a slot holds already; one is left to be read, which gives the logits."""
        holder = self._slots[slot]
        salt, there = self._left[slot]
        if holder is not None:
            salt, there = holder.salt, holder.tokens[: holder.read]
        if not self._reuse or salt != g.salt:
            return 0
        n = min(len(there), len(g.tokens) - 1)
        return next((i for i in range(n) if there[i] != g.tokens[i]), n)

    def _read_on(self, g: Generation) -> Array | None:
        """Read the next chunk of a prompt; the logits behind it once all is read."""
        assert g.slot is not None
        part = g.tokens[g.read : g.read + CHUNK]
        logits = self.engine.read(g.slot, part, g.read, first=0 if g.of_prompt else None)
        if g.of_prompt:
            following = g.tokens[g.read + 1 : g.read + len(part) + 1]
            g.prompt_logprobs += self._logprobs(
                logits[: len(following)], following, g.logprobs or 0
            )
            logits = logits[-1]
        g.read += len(part)
        return logits if g.read == len(g.tokens) else None

    def _guess(self, g: Generation) -> list[int]:
        """Tokens that may come next, as many as there is room for."""
        room = min(self.engine.most - len(g.tokens), g.max_tokens - g.drawn - 1)
        return g.lookup.guess(g.tokens, room) if self._speculates and room > 0 else []

    def _speculate(
        self, g: Generation, guess: list[int]
    ) -> Iterator[tuple[Generation, int | None]]:
        """Take in the last token and a guess of those behind it in one call, and draw on for as long as the
        guess is what is drawn: each token is drawn from the logits that it would have had alone."""
        assert g.slot is not None
        before = len(g.tokens)
        logits = self.engine.read(g.slot, [g.tokens[-1], *guess], before - 1, first=0)
        for i, row in enumerate(logits):
            g.read = before + i
            yield from self._draw([(g, row)])
            if g.finish is not None or i == len(guess) or g.tokens[-1] != guess[i]:
                break
        g.lookup.learn(len(g.tokens) - before - 1, len(g.tokens))

    def _decode(self, ready: list[Generation]) -> list[Array]:
        """The logits behind the last token of each."""
        by_slot = {g.slot: g for g in ready}
        # a zero is written where each of the others goes on, so that there must be room for it
        ends = [len(self._left[i][1]) if h is None else h.read for i, h in enumerate(self._slots)]
        used = [g.slot for g in ready if g.slot is not None]
        n = self.engine.width(1 + max(used) - min(used))
        first = min(min(used), self.engine.slots - n)
        self.engine.reserve(max(ends[first : first + n]) + 1)
        tokens, positions, live = [0] * n, ends[first : first + n], [False] * n
        for slot, g in by_slot.items():
            assert slot is not None
            i = slot - first
            tokens[i], positions[i], live[i] = g.tokens[-1], len(g.tokens) - 1, True
        out = self.engine.step(tokens, positions, live, first)
        for g in ready:
            g.read = len(g.tokens)
        return [out[slot - first] for slot in used]

    def _draw(
        self, rows: list[tuple[Generation, Array]]
    ) -> Iterator[tuple[Generation, int | None]]:
        ready: list[tuple[Generation, Array, Array]] = []
        for g, logits in rows:
            if not g.max_tokens:
                g.finish = LENGTH
                yield g, None
                continue
            try:
                ready.append((g, logits, self._adjusted(g, logits)))
            except ReeError as e:
                g.finish, g.failure = ABORTED, e
                yield g, None
        if not ready:
            return
        drawn = draw(self._sampler, [self._drawings[g] for g, _, _ in ready],
                     [x for _, _, x in ready], [len(g.tokens) for g, _, _ in ready])  # fmt: skip
        for (g, logits, _), token in zip(ready, drawn, strict=True):
            if g.logprobs is not None:
                g.drawn_logprobs += self._logprobs(logits[None], [token], g.logprobs)
            g.tokens.append(token)
            try:
                if g.matcher is not None:
                    g.matcher.took(token)
            except ReeError as e:
                g.finish, g.failure = ABORTED, e
                yield g, None
                continue
            if token in g.stop:
                g.finish = STOP
            elif g.drawn >= g.max_tokens:
                g.finish = LENGTH
            yield g, token

    def _adjusted(self, g: Generation, logits: Array) -> Array:
        """What a token is drawn from; ReeError if the grammar has no way on."""
        drawing = self._drawings[g]
        if g.matcher is None:
            return drawing.adjusted(logits)
        g.masks.append(g.matcher.mask())
        return drawing.adjusted(logits, g.masks[-1])
