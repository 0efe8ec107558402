"""The game of contracts/testing/mock_referee.vy: runs of 256 words, honest or not, and their moves."""

from __future__ import annotations

from eth_utils.crypto import keccak

from ree.settlement.terms import OneRun
from ree.settlement.watcher import Standing

NUMERIC_ID = bytes(keccak(text="mock"))
WORDS, GROUP = 256, 16
DIGESTS, PICK, SHOW, WORD, PROVE = range(100, 105)  # phases
MOVES = 5  # of a whole dispute


def facts(seed: bytes, node_root: bytes = bytes(32), values: int = 0) -> OneRun:
    """Facts that the mock reads: the seed stands as the root of the inputs."""
    instance = NUMERIC_ID + node_root + values.to_bytes(8, "big") + bytes(52)
    return OneRun(instance, seed, bytes(32), bytes(32))


class MockRun:
    """A run; with `wrong`, the word at that place is false and all that follow are computed from it."""

    def __init__(self, seed: bytes, wrong: int | None = None) -> None:
        self.words: list[bytes] = []
        before = seed
        for i in range(WORDS):
            before = bytes(keccak(before + i.to_bytes(32, "big")))
            if i == wrong:
                before = bytes([before[0] ^ 1]) + before[1:]
            self.words.append(before)
        self._groups = [b"".join(self.words[i : i + GROUP]) for i in range(0, WORDS, GROUP)]
        self._digests = [bytes(keccak(g)) for g in self._groups]
        self.root = bytes(keccak(b"".join(self._digests)))

    def move(self, state: bytes, shown: bytes) -> bytes:
        """The move that is due, whoever's it is; `shown`: the move before it."""
        phase, group = state[1], state[4]
        digests = b"".join(self._digests)
        if phase == DIGESTS:
            return digests
        if phase == PICK:
            return bytes([_first_difference(shown, digests)])
        if phase == SHOW:
            return digests + self._groups[group]
        if phase == WORD:
            return bytes([_first_difference(shown[512:], self._groups[group])])
        return digests + self._groups[group] + self._groups[max(group - 1, 0)]


class MockPlayer:
    """A run's player for a watcher."""

    def __init__(self, run: MockRun) -> None:
        self.run = run

    def move(self, standing: Standing) -> bytes:
        """The move that is due."""
        return self.run.move(standing.state, standing.moves[-1] if standing.moves else b"")


def _first_difference(theirs: bytes, mine: bytes) -> int:
    for i in range(GROUP):
        if theirs[32 * i : 32 * i + 32] != mine[32 * i : 32 * i + 32]:
            return i
    return 0
