"""What a job says, and how it and its commitments are encoded: the Court's names, computed off chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ree.compiler.layout import INSTANCE, WORD
from ree.settlement.layout import HEAD, NODE, ONE_RUN, PLACE, TRAINING

TAG_CLAIM, TAG_CHALLENGE = "ree.court.claim.1", "ree.court.challenge.1"
SALT_BYTES = 16
DEADLINES = ("accept_until", "commit_until", "reveal_until", "challenge_until", "open_until")
# dispute, clocks and other player of a call to the referee, which reads none of them
UNREAD: tuple[Any, ...] = (bytes(32), 0, "0x" + "00" * 20)
_ADDRESSES, _HASHES = ("poster", "token"), ("facts",)


@dataclass(frozen=True)
class Terms:
    """A job's terms, in the Court's order. Amounts in the token's units; deadlines are timestamps, the last
    second that counts; clock and grace in seconds; facts is the keccak256 of `Facts.encode`."""

    poster: str
    token: str
    reward: int
    payees: int
    slots: int
    provider_bond: int
    challenger_bond: int
    accept_until: int
    commit_until: int
    reveal_until: int
    challenge_until: int
    open_until: int
    clock: int
    grace: int
    facts: bytes
    nonce: int

    def values(self) -> tuple[Any, ...]:
        """As the contract takes them."""
        return tuple(getattr(self, f.name) for f in fields(self))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Terms:
        """From an event's terms."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})

    def id(self, chain_id: int, court: str) -> bytes:
        """The job's name. The contract's `job_id` is the same."""
        types = "(" + ",".join(map(_type, (f.name for f in fields(self)))) + ")"
        return _keccak(["uint256", "address", types], [chain_id, court, self.values()])


def _type(name: str) -> str:
    return "address" if name in _ADDRESSES else "bytes32" if name in _HASHES else "uint256"


@dataclass(frozen=True)
class OneRun:
    """Facts of a job over one run of a program: the claim is the root of its outputs.
    instance: the bytes that its digest is of; the other roots 32 bytes each."""

    instance: bytes
    inputs: bytes
    weights: bytes
    states: bytes

    def encode(self) -> bytes:
        """The bytes of ONE_RUN (layout.py)."""
        return ONE_RUN.pack(**INSTANCE.unpack(self.instance), inputs_root=self.inputs,
                            weights_root=self.weights, states_root=self.states)  # fmt: skip


@dataclass(frozen=True)
class TrainingRun:
    """Facts of a job over a training run: the claim is the root of its history.
    The seed is one of the states that `initial` is the root of."""

    instance: bytes
    weights: bytes
    initial: bytes
    steps: int
    batches: bytes

    def encode(self) -> bytes:
        """The bytes of TRAINING (layout.py)."""
        return TRAINING.pack(**INSTANCE.unpack(self.instance), weights_root=self.weights, initial=self.initial,
                             steps=self.steps, batches=self.batches)  # fmt: skip


Facts = OneRun | TrainingRun


def decode_facts(raw: bytes) -> Facts:
    """Facts from a job's bytes; ValueError if they are of neither form."""
    instance = raw[: INSTANCE.size]
    if len(raw) == ONE_RUN.size:
        x = ONE_RUN.unpack(raw)
        return OneRun(instance, x["inputs_root"], x["weights_root"], x["states_root"])
    if len(raw) == TRAINING.size:
        x = TRAINING.unpack(raw)
        return TrainingRun(instance, x["weights_root"], x["initial"], x["steps"], x["batches"])
    raise ValueError(f"facts: expected {ONE_RUN.size} or {TRAINING.size} bytes, got {len(raw)}")


def facts_digest(facts: Facts) -> bytes:
    """What the terms hold of the facts."""
    from eth_utils.crypto import keccak

    return bytes(keccak(facts.encode()))


def claim_commitment(
    chain_id: int, court: str, job: bytes, provider: str, root: bytes, salt: bytes
) -> bytes:
    """What a provider commits to; salt: 16 random bytes. It binds who is paid."""
    return _keccak(["bytes32", "uint256", "address", "bytes32", "address", "bytes32", "bytes16"],
                   [_tag(TAG_CLAIM), chain_id, court, job, provider, root, salt])  # fmt: skip


def challenge_commitment(
    chain_id: int, court: str, job: bytes, challenger: str, provider: str, salt: bytes
) -> bytes:
    """What a challenger commits to: which provider's claim it will dispute."""
    return _keccak(["bytes32", "uint256", "address", "bytes32", "address", "address", "bytes16"],
                   [_tag(TAG_CHALLENGE), chain_id, court, job, challenger, provider, salt])  # fmt: skip


def dispute_id(job: bytes, challenger: str, commitment: bytes) -> bytes:
    """The name of the dispute that a challenge opens."""
    return _keccak(["bytes32", "bytes32", "address", "bytes32"],
                   [_tag(TAG_CHALLENGE), job, challenger, commitment])  # fmt: skip


def descent(state: bytes) -> tuple[int, int, bytes, bytes]:
    """What the Court takes of a state to descend in a tree: head, place, node, and the hash of the rest."""
    from eth_utils.crypto import keccak

    words = [state[i : i + WORD] for i in range(0, len(state), WORD)]
    head, place = (int.from_bytes(words[i], "big") for i in (HEAD, PLACE))
    rest = b"".join(w for i, w in enumerate(words) if i not in (HEAD, PLACE, NODE))
    return head, place, words[NODE], bytes(keccak(rest))


def state_name(dispute: bytes, clocks: int, player: str, other: str, state: bytes) -> bytes:
    """What the Court keeps of a dispute: clocks in a word, the player whose turn it is, the other, state."""
    types = ["bytes32", "uint256", "address", "address", "uint256", "uint256", "bytes32", "bytes32"]
    return _keccak(types, [dispute, clocks, player, other, *descent(state)])


def _tag(text: str) -> bytes:
    from eth_utils.crypto import keccak

    return bytes(keccak(text=text))


def _keccak(types: list[str], values: list[Any]) -> bytes:
    from eth_abi import encode
    from eth_utils.crypto import keccak

    return bytes(keccak(encode(types, values)))
