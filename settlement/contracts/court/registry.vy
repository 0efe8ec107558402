# pragma version 0.4.3
"""
@title Registry
@notice What the Court keeps of jobs, claims, challenges and disputes, and how they are named.
@dev A job's terms travel with every call and are its name: nothing can change them. Jobs, claims and disputes
     are named by what they are, not by numbers, so that a reorganised chain cannot put one in another's place.
"""

from ..generated import protocol

MAX_SLOTS: constant(uint256) = 8

# open disputes of an account up to which each has a clock of its own, and a challenge of its claim costs one bond;
# each CROWD more cost a bond more, up to MOST_BONDS
CROWD: constant(uint256) = 16
MOST_BONDS: constant(uint256) = 8

# a job without its number of open disputes
FINAL: constant(uint256) = max_value(uint256)
VOID: constant(uint256) = max_value(uint256) - 1

# one more in what is kept of a claim
LOAD: constant(uint256) = 2**8
STOOD: constant(uint256) = 2**72
LOST: constant(uint256) = 2**136
WEIGHT: constant(uint256) = 2**200

# the weight of a lost dispute: the rounds played, and as many as opening and ending it cost
OPENING_ROUNDS: constant(uint256) = 9

CLAIM_TAG: constant(bytes32) = keccak256("ree.court.claim.1")
CHALLENGE_TAG: constant(bytes32) = keccak256("ree.court.challenge.1")


struct Job:
    poster: address
    token: address
    reward: uint256  # of a provider that is paid, before the fee
    payees: uint256  # how many of those that stand are paid, in the order of acceptance
    slots: uint256  # providers that may accept
    provider_bond: uint256
    challenger_bond: uint256
    accept_until: uint256
    commit_until: uint256
    reveal_until: uint256
    challenge_until: uint256
    open_until: uint256  # challenges are revealed
    clock: uint256  # seconds of each player of a dispute
    grace: uint256  # seconds of a move, at least
    facts: bytes32  # keccak256 of what the referee reads: instance, inputs
    nonce: uint256


struct Kept:  # of a claim
    numbers: uint256  # from the low end status 8 bits, load, stood, lost 64 each, weight 56
    digest: bytes32


struct Claim:
    status: uint256
    digest: bytes32  # the commitment, then the root
    load: uint256  # open disputes of the account, a provider or not
    stood: uint256  # disputes it has won
    lost: uint256  # disputes it has lost
    weight: uint256  # of these, together


struct Dispute:
    state: bytes32  # a hash while it is played, disputes._name_of; then the verdict, and 64 bits each the loser's weight before and after
    job: bytes32
    defender: address
    challenger: address
    confrontation: bool
    paid: bool
    more: uint256  # bonds of the challenger besides the first


struct Outcome:
    root: bytes32
    standing: uint256  # claims with that root
    stood: uint256  # disputes they have won: 0 is unverified


active: HashMap[bytes32, uint256]  # job: 0 unknown, 1 + open disputes, FINAL
accepted: HashMap[bytes32, DynArray[address, MAX_SLOTS]]
claims: HashMap[bytes32, HashMap[address, Kept]]  # job, provider
challenges: HashMap[bytes32, HashMap[address, HashMap[bytes32, uint256]]]  # job, challenger, commitment
disputes: HashMap[bytes32, Dispute]
outcomes: HashMap[bytes32, Outcome]


# names


@internal
@view
def _id(job: Job) -> bytes32:
    return keccak256(abi_encode(chain.id, self, job))


@internal
@view
def _open(job: Job) -> bytes32:
    id: bytes32 = self._id(job)
    state: uint256 = self.active[id]
    assert state != 0, "court: no such job"
    assert state < VOID, "court: final"
    return id


@internal
@view
def _claim_commitment(id: bytes32, provider: address, root: bytes32, salt: bytes16) -> bytes32:
    return keccak256(abi_encode(CLAIM_TAG, chain.id, self, id, provider, root, salt))


@internal
@view
def _challenge_commitment(
    id: bytes32, challenger: address, provider: address, salt: bytes16
) -> bytes32:
    return keccak256(abi_encode(CHALLENGE_TAG, chain.id, self, id, challenger, provider, salt))


@internal
@pure
def _challenge_dispute(id: bytes32, challenger: address, commitment: bytes32) -> bytes32:
    return keccak256(abi_encode(CHALLENGE_TAG, id, challenger, commitment))


# deadlines


@internal
@view
def _by(deadline: uint256):
    assert block.timestamp <= deadline, "court: late"


@internal
@view
def _after(deadline: uint256):
    assert block.timestamp > deadline, "court: early"


# claims


@internal
@view
def _claim(id: bytes32, provider: address) -> Claim:
    kept: Kept = self.claims[id][provider]
    return Claim(
        status=kept.numbers & 255,
        digest=kept.digest,
        load=(kept.numbers >> 8) & protocol.MASK64,
        stood=(kept.numbers >> 72) & protocol.MASK64,
        lost=(kept.numbers >> 136) & protocol.MASK64,
        weight=kept.numbers >> 200,
    )


@internal
def _decided(id: bytes32, account: address, claims: bool, lost: bool, weight: uint256):
    """
    @notice An account has one dispute less to play; where it is about its claim, that has won or lost it.
    """
    numbers: uint256 = self.claims[id][account].numbers - LOAD
    if claims and lost:
        numbers = ((numbers >> 8) << 8 | protocol.CLAIM_REFUTED) + LOST + weight * WEIGHT
    elif claims:
        numbers += STOOD
    self.claims[id][account].numbers = numbers


# views


@external
@view
def job_id(job: Job) -> bytes32:
    """
    @notice The name of a job, posted or not.
    @param job The terms, whole: their hash is the job
    @return The job's id, for this chain and Court
    """
    return self._id(job)


@external
@view
def job_status(id: bytes32) -> uint256:
    """
    @notice 0 unknown, 2^256 - 1 final, 2^256 - 2 void, otherwise 1 and the number of open disputes.
    @param id A job
    @return The status
    """
    return self.active[id]


@external
@view
def outcome(id: bytes32) -> Outcome:
    """
    @notice What a final job came to. No root is ever called verified: `stood` says how many disputes it won.
    @param id A job
    @return Root, claims with it, disputes that they won
    """
    return self.outcomes[id]


@external
@view
def providers(id: bytes32) -> DynArray[address, MAX_SLOTS]:
    """
    @notice Who accepted a job.
    @param id A job
    @return Accounts, in the order in which they accepted
    """
    return self.accepted[id]


@external
@view
def claim_of(id: bytes32, provider: address) -> Claim:
    """
    @notice A provider's claim as it stands.
    @param id A job
    @param provider An account
    @return Status, commitment or root, disputes open, won and lost, weight
    """
    return self._claim(id, provider)


@external
@view
def challenge_status(id: bytes32, challenger: address, commitment: bytes32) -> uint256:
    """
    @notice What became of a challenge.
    @param id A job
    @param challenger Who challenged
    @param commitment The challenge's commitment
    @return A CHALLENGE number of protocol.vy; 0 if unknown
    """
    return self.challenges[id][challenger][commitment]


@external
@view
def dispute_of(dispute: bytes32) -> Dispute:
    """
    @notice A dispute as it is kept.
    @param dispute Its key
    @return State or verdict, job, players, whether it is paid, further bonds
    """
    return self.disputes[dispute]


@external
@view
def claim_commitment(id: bytes32, provider: address, root: bytes32, salt: bytes16) -> bytes32:
    """
    @notice What a provider commits to before it reveals a root.
    @param id A job
    @param provider The provider
    @param root Root of the trace or history
    @param salt 16 bytes nobody can guess
    @return The commitment
    """
    return self._claim_commitment(id, provider, root, salt)


@external
@view
def challenge_commitment(
    id: bytes32, challenger: address, provider: address, salt: bytes16
) -> bytes32:
    """
    @notice What a challenger commits to before it names the claim.
    @param id A job
    @param challenger The challenger
    @param provider Whose claim it is against
    @param salt 16 bytes nobody can guess
    @return The commitment
    """
    return self._challenge_commitment(id, challenger, provider, salt)
