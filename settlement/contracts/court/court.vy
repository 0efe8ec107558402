# pragma version 0.4.3
"""
@title Court
@notice Jobs: terms, escrow, providers and their commitments, and payouts. docs/settlement.md tells the life of
        a job. There is no owner.
@dev Time is block.timestamp; a deadline is the last second that counts.
"""

from . import bank
from . import disputes
from . import registry
from ..lib import merkle
from ..generated import protocol

initializes: bank
initializes: registry
initializes: disputes[bank := bank, registry := registry]
exports: (bank.deposit, bank.withdraw, bank.credits, bank.held, bank.burnt)
exports: (
    disputes.challenge,
    disputes.open_challenge,
    disputes.confront,
    disputes.respond,
    disputes.descend,
    disputes.timeout,
    disputes.referee,
)
exports: (
    registry.job_id,
    registry.job_status,
    registry.outcome,
    registry.providers,
    registry.claim_of,
    registry.challenge_status,
    registry.dispute_of,
    registry.claim_commitment,
    registry.challenge_commitment,
)

LEAST: constant(uint256) = 60  # seconds of a move; clients ask for more, and for windows (settlement/policy.py)
LONGEST: constant(uint256) = 90 * 86400  # seconds of a clock, and until the last window ends
FEE: constant(uint256) = 200  # one part in 200 of a reward: 0.5 %

event Posted:
    job: indexed(bytes32)
    poster: indexed(address)
    terms: registry.Job
    facts: Bytes[protocol.TRAINING_BYTES]
    data: String[256]


event Voided:
    job: indexed(bytes32)
    opcode: uint256


event Accepted:
    job: indexed(bytes32)
    provider: indexed(address)


event Committed:
    job: indexed(bytes32)
    provider: indexed(address)


event Revealed:
    job: indexed(bytes32)
    provider: indexed(address)
    root: bytes32


event Finalised:
    job: indexed(bytes32)
    root: bytes32
    standing: uint256
    stood: uint256


event Collected:
    dispute: indexed(bytes32)
    winner: indexed(address)
    amount: uint256


event Forfeited:
    job: indexed(bytes32)
    account: indexed(address)


NUMERIC_ID: immutable(bytes32)
TREASURY: immutable(address)


@deploy
def __init__(referee: address, treasury: address):
    assert treasury != empty(address), "court: treasury"
    disputes.__init__(referee)
    NUMERIC_ID = staticcall disputes.REFEREE.numeric_id()
    TREASURY = treasury


# jobs


@external
def post(job: registry.Job, facts: Bytes[protocol.TRAINING_BYTES], data: String[256]) -> bytes32:
    """
    @notice Offer a job; its rewards come from the poster's credit.
    @param job The terms, whole: their hash is the job
    @param facts Instance and roots, 220 bytes, or 228 of a training run, as settlement/layout.py has them
    @param data Where what a verdict needs is public: the instance, the inputs.
    @return The job's id
    """
    assert msg.sender == job.poster, "court: poster"
    id: bytes32 = registry._id(job)
    assert registry.active[id] == 0, "court: posted"
    registry._by(job.accept_until)
    assert (
        job.accept_until < job.commit_until
        and job.commit_until < job.reveal_until
        and job.reveal_until < job.challenge_until
        and job.challenge_until < job.open_until
        and job.open_until <= unsafe_add(block.timestamp, LONGEST)  # nothing is locked for ever
    ), "court: deadlines"
    assert LEAST <= job.grace and job.grace <= job.clock and job.clock <= LONGEST, "court: clock"
    assert job.payees > 0 and job.payees <= job.slots and job.slots <= registry.MAX_SLOTS, "court: slots"
    # 1 to 2^128: times a weight, of 64 bits, it is shared
    assert unsafe_sub(job.provider_bond, 1) >> 128 == 0 and job.challenger_bond > 0, "court: bond"
    assert keccak256(facts) == job.facts, "court: facts"
    assert len(facts) == protocol.ONE_RUN_BYTES or len(facts) == protocol.TRAINING_BYTES, "court: facts"
    assert extract32(facts, protocol.STATEMENT_NUMERIC_ID) == NUMERIC_ID, "court: numeric id"
    # refuses facts that the referee cannot read
    opening: Bytes[protocol.STATE_BYTES] = disputes._opening(facts, empty(bytes32))
    registry.active[id] = 1
    bank._hold(job.token, msg.sender, job.reward * job.payees)
    log Posted(job=id, poster=msg.sender, terms=job, facts=facts, data=data)
    return id


@external
def void(
    job: registry.Job,
    facts: Bytes[protocol.TRAINING_BYTES],
    index: uint256,
    record: Bytes[protocol.RECORD_BYTES],
    proof: DynArray[bytes32, merkle.MAX_DEPTH],
):
    """
    @notice End a job whose program has an operator that the referee cannot decide, shown by its record; anyone
            may. Everyone gets back what they gave.
    @param job The terms, whole: their hash is the job
    @param facts As at posting
    @param index Of the record among the instance's values
    @param record Record of a value, 240 bytes
    @param proof Siblings from the record to the node root
    """
    id: bytes32 = registry._open(job)
    assert keccak256(facts) == job.facts, "court: facts"
    opcode: uint256 = staticcall disputes.REFEREE.undecided(facts, index, record, proof)
    registry.active[id] = registry.VOID
    bank._credit(job.token, job.poster, job.reward * job.payees)
    for provider: address in registry.accepted[id]:
        bank._credit(job.token, provider, job.provider_bond)
    log Voided(job=id, opcode=opcode)


@external
def accept(job: registry.Job):
    """
    @notice Become a provider, with a bond; says that one has the data of the job.
    @param job The terms, whole: their hash is the job
    """
    id: bytes32 = registry._open(job)
    registry._by(job.accept_until)
    assert registry.claims[id][msg.sender].numbers == 0, "court: accepted"
    assert len(registry.accepted[id]) < job.slots, "court: full"
    registry.accepted[id].append(msg.sender)
    registry.claims[id][msg.sender].numbers = protocol.CLAIM_ACCEPTED
    bank._hold(job.token, msg.sender, job.provider_bond)
    log Accepted(job=id, provider=msg.sender)


@external
def commit(job: registry.Job, commitment: bytes32):
    """
    @notice Commit to a root: `claim_commitment` of it.
    @param job The terms, whole: their hash is the job
    @param commitment What `claim_commitment` gives for the root and a salt
    """
    id: bytes32 = registry._open(job)
    registry._by(job.commit_until)
    assert registry.claims[id][msg.sender].numbers == protocol.CLAIM_ACCEPTED, "court: not a provider, or committed"
    registry.claims[id][msg.sender].numbers = protocol.CLAIM_COMMITTED
    registry.claims[id][msg.sender].digest = commitment
    log Committed(job=id, provider=msg.sender)


@external
def reveal(job: registry.Job, root: bytes32, salt: bytes16):
    """
    @notice Show the root that was committed to, once nobody can commit any more.
    @param job The terms, whole: their hash is the job
    @param root Root of the trace or history
    @param salt That of the commitment
    """
    id: bytes32 = registry._open(job)
    registry._after(job.commit_until)
    registry._by(job.reveal_until)
    assert registry.claims[id][msg.sender].numbers == protocol.CLAIM_COMMITTED, "court: not committed, or revealed"
    assert registry.claims[id][msg.sender].digest == registry._claim_commitment(
        id, msg.sender, root, salt
    ), "court: commitment"
    registry.claims[id][msg.sender].numbers = protocol.CLAIM_REVEALED
    registry.claims[id][msg.sender].digest = root
    log Revealed(job=id, provider=msg.sender, root=root)


# payout


@external
def finalise(job: registry.Job):
    """
    @notice End a job: no dispute is open, none can be opened, and all claims that stand agree; anyone may.
    @param job The terms, whole: their hash is the job
    """
    id: bytes32 = registry._open(job)
    assert registry.active[id] == 1, "court: open disputes"
    revealed: bool = False
    outcome: registry.Outcome = empty(registry.Outcome)
    for provider: address in registry.accepted[id]:
        claim: registry.Claim = registry._claim(id, provider)
        if claim.status == protocol.CLAIM_REVEALED or claim.status == protocol.CLAIM_REFUTED:
            revealed = True
        if claim.status == protocol.CLAIM_REVEALED:
            assert outcome.standing == 0 or claim.digest == outcome.root, "court: claims differ"
            outcome.root = claim.digest
            outcome.standing += 1
            outcome.stood += claim.stood
    if revealed:
        registry._after(job.open_until)
    elif len(registry.accepted[id]) > 0:
        registry._after(job.reveal_until)
    else:
        registry._after(job.accept_until)
    registry.active[id] = registry.FINAL
    registry.outcomes[id] = outcome
    self._pay(id, job)
    log Finalised(job=id, root=outcome.root, standing=outcome.standing, stood=outcome.stood)


@internal
def _pay(id: bytes32, job: registry.Job):
    """
    @notice Reward and bond to who stands; half of every other bond is burnt, so that losing to oneself costs.
    """
    left: uint256 = job.payees
    fee: uint256 = job.reward // FEE
    for provider: address in registry.accepted[id]:
        claim: registry.Claim = registry._claim(id, provider)
        if claim.status == protocol.CLAIM_REVEALED:
            due: uint256 = job.provider_bond
            if left > 0:
                left -= 1
                due += job.reward - fee
                bank._credit(job.token, TREASURY, fee)
            bank._credit(job.token, provider, due)
        elif claim.status == protocol.CLAIM_REFUTED:  # its winners collect the rest
            bank._burn(job.token, job.provider_bond - job.provider_bond // 2)
        else:
            self._forfeit(id, job, provider, job.provider_bond)
    bank._credit(job.token, job.poster, job.reward * left)


@external
def collect(job: registry.Job, dispute: bytes32):
    """
    @notice After the job's end, credit what a dispute's winner has won; anyone may.
    @param job The terms, whole: their hash is the job
    @param dispute A decided dispute of the job
    """
    id: bytes32 = registry._id(job)
    d: registry.Dispute = registry.disputes[dispute]
    assert d.job == id and registry.active[id] == registry.FINAL, "court: not final"
    assert not d.paid, "court: collected"
    registry.disputes[dispute].paid = True
    winner: address = d.defender
    loser: address = d.challenger
    verdict: uint256 = convert(d.state, uint256)
    against: bool = verdict & 255 == protocol.CHALLENGER_WON
    if against:
        winner = d.challenger
        loser = d.defender
    due: uint256 = 0
    bond: uint256 = job.challenger_bond * (1 + d.more)
    if d.confrontation or against:
        # what the rounds up to here have earned of the half, less what those before this dispute did
        weights: uint256 = registry._claim(id, loser).weight
        half: uint256 = job.provider_bond // 2
        due = half * (verdict >> 72) // weights - half * ((verdict >> 8) & protocol.MASK64) // weights
        if not d.confrontation:
            due += bond
    else:
        due = bond // 2
        bank._burn(job.token, bond - due)
    bank._credit(job.token, winner, due)
    log Collected(dispute=dispute, winner=winner, amount=due)


@external
def forfeit(job: registry.Job, challenger: address, commitment: bytes32):
    """
    @notice End a challenge that was not revealed in time; anyone may.
    @param job The terms, whole: their hash is the job
    @param challenger Who challenged
    @param commitment The challenge's commitment
    """
    id: bytes32 = registry._id(job)
    assert block.timestamp > job.open_until and registry.active[id] != registry.VOID, "court: early or void"
    assert registry.challenges[id][challenger][commitment] == protocol.CHALLENGE_PENDING, "court: no challenge"
    registry.challenges[id][challenger][commitment] = protocol.CHALLENGE_CLOSED
    self._forfeit(id, job, challenger, job.challenger_bond)


@external
def reclaim(job: registry.Job, challenger: address, commitment: bytes32):
    """
    @notice Give back the bond of a challenge in a void job; anyone may.
    @param job The terms, whole: their hash is the job
    @param challenger Who challenged
    @param commitment The challenge's commitment
    """
    id: bytes32 = registry._id(job)
    assert registry.active[id] == registry.VOID, "court: not void"
    status: uint256 = registry.challenges[id][challenger][commitment]
    assert status == protocol.CHALLENGE_PENDING or status == protocol.CHALLENGE_OPENED, "court: no challenge"
    registry.challenges[id][challenger][commitment] = protocol.CHALLENGE_CLOSED
    more: uint256 = registry.disputes[registry._challenge_dispute(id, challenger, commitment)].more
    bank._credit(job.token, challenger, job.challenger_bond * (1 + more))


@internal
def _forfeit(id: bytes32, job: registry.Job, account: address, bond: uint256):
    """
    @notice The bond of one who was silent: half to the poster who waited.
    """
    due: uint256 = bond // 2
    bank._burn(job.token, bond - due)
    bank._credit(job.token, job.poster, due)
    log Forfeited(job=id, account=account)


@external
@view
def treasury() -> address:
    """
    @notice Where fees go.
    @return Its account
    """
    return TREASURY


