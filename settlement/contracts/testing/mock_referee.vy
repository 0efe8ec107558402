# pragma version 0.4.3
"""
@title MockReferee
@notice Tests only: a game of the true one's form that is quick to play. A run is 256 words, each the hash of the
        one before and its position, the first from a seed; its root hashes 16 digests of 16 words each. The
        defender shows the digests, the challenger points at one, the defender shows its words, the challenger
        points at one, and the defender proves the word from the one before, which is executed.
@dev State: 12 bytes as in IReferee, group and word at 4 and 5, then root and seed, then zeros. The seed is the
     root of the inputs of one run, or S0 of a training run. Phases are none of those that the Court plays itself.
"""

from ..lib import merkle
from ..generated import protocol
from ..referee import undecided as records
from ..interfaces import IReferee

implements: IReferee

DIGESTS: constant(uint256) = 100
PICK: constant(uint256) = 101
WORDS: constant(uint256) = 102
WORD: constant(uint256) = 103
PROVE: constant(uint256) = 104
OVER: constant(uint256) = 105


@external
@view
def numeric_id() -> bytes32:
    return keccak256("mock")


@external
@view
def decides(opcode: uint256) -> bool:
    return opcode != 666


@external
@view
def undecided(
    facts: Bytes[protocol.TRAINING_BYTES],
    index: uint256,
    record: Bytes[protocol.RECORD_BYTES],
    proof: DynArray[bytes32, merkle.MAX_DEPTH],
) -> uint256:
    opcode: uint256 = records.opcode(facts, index, record, proof)
    assert opcode == 666, "mock: decidable"
    return opcode


@external
@view
def begin(statement: Bytes[284]) -> Bytes[384]:
    # inputs are the seed, outputs the root
    return self._state(extract32(statement, 220), extract32(statement, 124), DIGESTS, 0, 0)


@external
@view
def begin_run(statement: Bytes[284], run: Bytes[104]) -> Bytes[384]:
    return self._state(extract32(run, 72), extract32(run, 0), DIGESTS, 0, 0)


@external
@view
def respond(
    dispute: bytes32, clocks: uint256, other: address, state: Bytes[384], move: Bytes[12288]
) -> Bytes[384]:
    root: bytes32 = extract32(state, 12)
    seed: bytes32 = extract32(state, 44)
    phase: uint256 = convert(slice(state, 1, 1), uint256)
    group: uint256 = convert(slice(state, 4, 1), uint256)
    if phase == DIGESTS:
        assert len(move) == 512 and keccak256(move) == root, "mock: digests"
        return self._state(root, seed, PICK, 0, 0)
    if phase == PICK:
        return self._state(root, seed, WORDS, self._point(move), 0)
    if phase == WORDS:  # the digests, and the words of the group
        assert len(move) == 1024, "mock: words"
        self._check(root, group, move)
        return self._state(root, seed, WORD, group, 0)
    if phase == WORD:
        return self._state(root, seed, PROVE, group, self._point(move))
    # the digests, the words of the group, and those of the group before
    word: uint256 = convert(slice(state, 5, 1), uint256)
    assert len(move) == 1536, "mock: proof"
    self._check(root, group, move)
    before: bytes32 = seed
    if word > 0:
        before = extract32(move, 512 + 32 * (word - 1))
    elif group > 0:
        assert keccak256(slice(move, 1024, 512)) == extract32(move, 32 * (group - 1)), "mock: words"
        before = extract32(move, 1024 + 32 * 15)
    right: bytes32 = keccak256(concat(before, convert(16 * group + word, bytes32)))
    return self._over(root, seed, group, word, 1 if extract32(move, 512 + 32 * word) == right else 2)


@internal
@pure
def _check(root: bytes32, group: uint256, move: Bytes[12288]):
    assert keccak256(slice(move, 0, 512)) == root, "mock: digests"
    assert keccak256(slice(move, 512, 512)) == extract32(move, 32 * group), "mock: words"


@internal
@pure
def _point(move: Bytes[12288]) -> uint256:
    assert len(move) == 1, "mock: one byte"
    i: uint256 = convert(slice(move, 0, 1), uint256)
    assert i < 16, "mock: no such place"
    return i


@internal
@pure
def _state(
    root: bytes32, seed: bytes32, phase: uint256, group: uint256, word: uint256
) -> Bytes[384]:
    turn: uint256 = 2 if phase == PICK or phase == WORD else 1
    return self._written(root, seed, (phase << 80) | (group << 56) | (word << 48) | turn)


@internal
@pure
def _over(
    root: bytes32, seed: bytes32, group: uint256, word: uint256, winner: uint256
) -> Bytes[384]:
    return self._written(root, seed, (OVER << 80) | (winner << 72) | (group << 56) | (word << 48))


@internal
@pure
def _written(root: bytes32, seed: bytes32, numbers: uint256) -> Bytes[384]:
    zeros: bytes32[10] = empty(bytes32[10])  # more than fill the state
    head: bytes32 = convert((1 << 88) | numbers, bytes32)
    return slice(concat(slice(head, 20, 12), root, seed, abi_encode(zeros)), 0, 384)
