# pragma version 0.4.3
"""
@title Disputes
@notice Challenges, turns and clocks. The rules of the game are the referee's; of a dispute that is played one word
        is kept, a hash of the clocks, the players and the game's state: `_name_of`. Events say what it is of.
"""

from . import bank
from . import clocks
from ..referee import descent
from . import registry
from ..generated import protocol
from ..referee import calldata
from ..interfaces import IReferee

uses: bank
uses: registry

DESCENT: constant(uint256) = 512  # bytes of a reveal
DESCENT_AT: constant(uint256) = 4 + 7 * 32  # where `descend` has the offset of its move
CONFRONTATION_TAG: constant(bytes32) = keccak256("ree.court.confrontation.1")

event Challenged:
    job: indexed(bytes32)
    challenger: indexed(address)
    commitment: bytes32


event Opened:
    job: indexed(bytes32)
    dispute: indexed(bytes32)
    defender: address
    challenger: address
    confrontation: bool
    clocks: uint256


event Moved:
    dispute: indexed(bytes32)
    clocks: uint256  # after it
    move: Bytes[protocol.MOVE_BYTES]


event Decided:  # by a move, which nobody has to go on from
    dispute: indexed(bytes32)
    winner: uint256  # 1 defender, 2 challenger


event TimedOut:
    dispute: indexed(bytes32)
    turn: uint256


REFEREE: immutable(IReferee)


@deploy
def __init__(referee: address):
    assert referee.is_contract, "court: referee"
    REFEREE = IReferee(referee)


@external
def challenge(job: registry.Job, commitment: bytes32):
    """
    @notice Commit, with a bond, to challenging a claim: `challenge_commitment` of it.
    @param job The terms, whole: their hash is the job
    @param commitment What `challenge_commitment` gives for the provider and a salt
    """
    id: bytes32 = registry._open(job)
    registry._after(job.reveal_until)
    registry._by(job.challenge_until)
    assert registry.challenges[id][msg.sender][commitment] == 0, "court: challenged"
    registry.challenges[id][msg.sender][commitment] = protocol.CHALLENGE_PENDING
    bank._hold(job.token, msg.sender, job.challenger_bond)
    log Challenged(job=id, challenger=msg.sender, commitment=commitment)


@external
def open_challenge(
    job: registry.Job, facts: Bytes[protocol.TRAINING_BYTES], provider: address, salt: bytes16
) -> bytes32:
    """
    @notice Show the challenge that was committed to, and open its dispute.
    @param job The terms, whole: their hash is the job
    @param facts As at posting
    @param provider Whose claim is challenged
    @param salt That of the commitment
    @return The dispute's key
    """
    id: bytes32 = registry._open(job)
    registry._after(job.challenge_until)
    registry._by(job.open_until)
    commitment: bytes32 = registry._challenge_commitment(id, msg.sender, provider, salt)
    assert registry.challenges[id][msg.sender][commitment] == protocol.CHALLENGE_PENDING, "court: no challenge, or open"
    registry.challenges[id][msg.sender][commitment] = protocol.CHALLENGE_OPENED
    dispute: bytes32 = registry._challenge_dispute(id, msg.sender, commitment)
    self._start(dispute, id, job, facts, provider, msg.sender, False)
    return dispute


@external
def confront(
    job: registry.Job, facts: Bytes[protocol.TRAINING_BYTES], defender: address, challenger: address
) -> bytes32:
    """
    @notice Open the dispute between two providers whose roots differ; anyone may. Whoever loses is refuted.
    @param job The terms, whole: their hash is the job
    @param facts As at posting
    @param defender Provider of one claim
    @param challenger Provider of the other
    @return The dispute's key
    """
    id: bytes32 = registry._open(job)
    registry._after(job.reveal_until)
    other: registry.Claim = registry._claim(id, challenger)
    assert other.status == protocol.CLAIM_REVEALED, "court: no claim"
    assert other.digest != registry.claims[id][defender].digest, "court: same root"
    low: address = defender
    high: address = challenger
    if convert(low, uint256) > convert(high, uint256):
        low = challenger
        high = defender
    dispute: bytes32 = keccak256(abi_encode(CONFRONTATION_TAG, id, low, high))
    assert registry.disputes[dispute].state == empty(bytes32), "court: open"
    self._start(dispute, id, job, facts, defender, challenger, True)
    return dispute


@internal
@view
def _opening(facts: Bytes[protocol.TRAINING_BYTES], root: bytes32) -> Bytes[protocol.STATE_BYTES]:
    """
    @notice First state of a dispute over a claim.
    """
    if len(facts) == protocol.ONE_RUN_BYTES:
        return staticcall REFEREE.begin(concat(slice(facts, 0, protocol.ONE_RUN_BYTES), root, empty(bytes32)))
    return staticcall REFEREE.begin_run(
        concat(
            slice(facts, 0, protocol.INSTANCE_BYTES),
            empty(bytes32),
            slice(facts, protocol.TRAINING_WEIGHTS, 32),
            empty(bytes32),
            empty(bytes32),
            empty(bytes32),
        ),
        concat(slice(facts, protocol.TRAINING_RUN, protocol.RUN_HISTORY), root),
    )


@internal
def _start(
    dispute: bytes32,
    id: bytes32,
    job: registry.Job,
    facts: Bytes[protocol.TRAINING_BYTES],
    defender: address,
    challenger: address,
    confrontation: bool,
):
    registry.claims[id][defender].numbers += registry.LOAD
    registry.claims[id][challenger].numbers += registry.LOAD
    registry.active[id] += 1
    claim: registry.Claim = registry._claim(id, defender)
    other: registry.Claim = registry._claim(id, challenger)
    assert claim.status == protocol.CLAIM_REVEALED or (
        claim.status == protocol.CLAIM_REFUTED and not confrontation
    ), "court: no claim"
    # a stranger has at most one claim of each provider to challenge; more would only stretch its clocks
    assert other.status != 0 or other.load <= registry.MAX_SLOTS, "court: open disputes"
    assert keccak256(facts) == job.facts, "court: facts"
    state: Bytes[protocol.STATE_BYTES] = self._opening(facts, claim.digest)
    more: uint256 = 0
    if not confrontation:
        more = min(unsafe_sub(claim.load, 1) // registry.CROWD, registry.MOST_BONDS - 1)
        if more > 0:
            bank._hold(job.token, challenger, job.challenger_bond * more)
    word: uint256 = clocks.packed(
        protocol.DEFENDER, 0, self._time(job, claim.load), self._time(job, other.load), job.grace
    )
    registry.disputes[dispute] = registry.Dispute(
        state=self._name(dispute, word, defender, challenger, state),
        job=id,
        defender=defender,
        challenger=challenger,
        confrontation=confrontation,
        paid=False,
        more=more,
    )
    log Opened(
        job=id,
        dispute=dispute,
        defender=defender,
        challenger=challenger,
        confrontation=confrontation,
        clocks=word,
    )


@internal
@pure
def _time(job: registry.Job, load: uint256) -> uint256:
    """
    @notice Seconds for the last of so many open disputes: a clock more for each, in a crowd a grace.
    """
    few: uint256 = min(load, registry.CROWD)
    return unsafe_add(unsafe_mul(job.clock, few), unsafe_mul(job.grace, unsafe_sub(load, few)))


@external
def respond(
    dispute: bytes32,
    word: uint256,
    other: address,
    state: Bytes[protocol.STATE_BYTES],
    move: Bytes[protocol.MOVE_BYTES],
):
    """
    @notice Play a move.
    @param dispute Its key
    @param word Clocks, one word
    @param other The other player
    @param state The game's state, whole
    @param move The move, as verde/messages.py encodes it
    """
    calldata.check()
    self._check_turn(dispute, word, self._name(dispute, word, msg.sender, other, state))
    # the call as it came: referee and Court have the same function
    after: Bytes[protocol.STATE_BYTES] = slice(
        raw_call(REFEREE.address, msg.data, max_outsize=64 + protocol.STATE_BYTES, is_static_call=True),
        64,
        protocol.STATE_BYTES,
    )
    head: uint256 = convert(slice(after, 0, 32), uint256)
    next: uint256 = (head >> protocol.STATE_PLAYER) & protocol.MASK8
    if next == protocol.DEFENDER or next == protocol.CHALLENGER:
        mover: address = msg.sender if next == clocks.turn(word) else other
        waits: address = other if next == clocks.turn(word) else msg.sender
        moved: uint256 = clocks.moved(word, next)
        registry.disputes[dispute].state = self._name(dispute, moved, mover, waits, after)
        log Moved(dispute=dispute, clocks=moved, move=move)
    else:
        winner: uint256 = (head >> protocol.STATE_WINNER) & protocol.MASK8
        assert winner == protocol.DEFENDER or winner == protocol.CHALLENGER, "court: referee"
        log Decided(dispute=dispute, winner=winner)
        self._decide(dispute, word, protocol.DEFENDER_WON if winner == protocol.DEFENDER else protocol.CHALLENGER_WON)


@external
def descend(
    dispute: bytes32,
    word: uint256,
    other: address,
    head: uint256,
    place: uint256,
    node: bytes32,
    rest: bytes32,
    move: Bytes[DESCENT],
):
    """
    @notice Play a move that reveals what lies below a node of a tree, or points at one of it. `respond` does the
            same for more gas.
    @param dispute Its key
    @param word Clocks, one word
    @param other The other player
    @param head Word 0 of the state
    @param place Word 2 of the state
    @param node Word 9 of the state
    @param rest keccak256 of the state's other words
    @param move The move, as verde/messages.py encodes it
    """
    calldata.check_last(convert(slice(msg.data, DESCENT_AT, 32), uint256) ^ 256, DESCENT_AT + 64, len(move))
    self._check_turn(
        dispute, word, self._name_of(dispute, word, msg.sender, other, head, place, node, rest)
    )
    head_after: uint256 = 0
    place_after: uint256 = 0
    node_after: bytes32 = empty(bytes32)
    head_after, place_after, node_after = descent.play(head, place, node, DESCENT_AT + 64, len(move))
    moved: uint256 = clocks.moved(word, (head_after >> protocol.STATE_PLAYER) & protocol.MASK8)  # always the other's turn
    registry.disputes[dispute].state = self._name_of(
        dispute, moved, other, msg.sender, head_after, place_after, node_after, rest
    )
    log Moved(dispute=dispute, clocks=moved, move=move)


@internal
@view
def _check_turn(dispute: bytes32, word: uint256, name: bytes32):
    """
    @notice It is the turn of the caller, whom the name has as the one who moves, and in time.
    """
    assert registry.disputes[dispute].state == name, "court: not your turn, or not the state"
    assert not clocks.late(word), "court: time is up"


@external
def timeout(
    dispute: bytes32, word: uint256, head: uint256, place: uint256, node: bytes32, rest: bytes32
):
    """
    @notice Decide a dispute against the player whose time is up; anyone may.
    @param dispute Its key
    @param word Clocks, one word
    @param head Word 0 of the state
    @param place Word 2 of the state
    @param node Word 9 of the state
    @param rest keccak256 of the state's other words
    """
    mover: address = registry.disputes[dispute].defender
    other: address = registry.disputes[dispute].challenger
    turn: uint256 = clocks.turn(word)
    if turn == protocol.CHALLENGER:
        mover = other
        other = registry.disputes[dispute].defender
    assert registry.disputes[dispute].state == self._name_of(
        dispute, word, mover, other, head, place, node, rest
    ), "court: not the state, or decided"
    assert clocks.late(word), "court: time is left"
    log TimedOut(dispute=dispute, turn=turn)
    self._decide(dispute, word, protocol.CHALLENGER_WON if turn == protocol.DEFENDER else protocol.DEFENDER_WON)


@internal
def _decide(dispute: bytes32, word: uint256, verdict: uint256):
    """
    @notice A verdict is about one claim, or the two that confront each other, and no other.
    """
    job: bytes32 = registry.disputes[dispute].job
    assert registry.active[job] < registry.VOID, "court: void"
    registry.active[job] -= 1
    defender: address = registry.disputes[dispute].defender
    challenger: address = registry.disputes[dispute].challenger
    won: bool = verdict == protocol.DEFENDER_WON
    before: uint256 = registry.claims[job][challenger if won else defender].numbers // registry.WEIGHT
    weight: uint256 = registry.OPENING_ROUNDS + clocks.round(word)
    registry.disputes[dispute].state = convert(
        verdict | (before << 8) | ((before + weight) << 72), bytes32
    )
    registry._decided(job, defender, True, not won, weight)
    registry._decided(job, challenger, registry.disputes[dispute].confrontation, won, weight)


@internal
@pure
def _name(
    dispute: bytes32, word: uint256, mover: address, other: address, state: Bytes[protocol.STATE_BYTES]
) -> bytes32:
    return self._name_of(
        dispute,
        word,
        mover,
        other,
        convert(extract32(state, 32 * protocol.WORD_HEAD), uint256),
        convert(extract32(state, 32 * protocol.WORD_PLACE), uint256),
        extract32(state, 32 * protocol.WORD_NODE),
        keccak256(
            concat(
                slice(state, 32 * protocol.WORD_NUMBERS, 32),
                slice(state, 32 * protocol.WORD_CONTEXT, 32 * (protocol.WORD_NODE - protocol.WORD_CONTEXT)),
                slice(state, 32 * protocol.WORD_LEAF, protocol.STATE_BYTES - 32 * protocol.WORD_LEAF),
            )
        ),
    )


@internal
@pure
def _name_of(
    dispute: bytes32,
    word: uint256,
    mover: address,
    other: address,
    head: uint256,
    place: uint256,
    node: bytes32,
    rest: bytes32,
) -> bytes32:
    """
    @notice What is kept of a dispute: it binds the clocks, in them the round, and both players, first the one whose
            turn it is.
    """
    return keccak256(abi_encode(dispute, word, mover, other, head, place, node, rest))


@external
@view
def referee() -> address:
    """
    @notice Who knows the rules.
    @return The referee's address
    """
    return REFEREE.address
