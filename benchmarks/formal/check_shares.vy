# pragma version 0.4.3
"""
@title Properties of payouts and shares
@notice For all amounts up to 2^128 and all that can have become of two claims. This is the Court itself, beside it
        functions that write what it keeps and read what it has done. Lemmas of lemmas.py say what follows for shares.
"""

from . import expect
from ..court import bank
from ..court import court
from ..court import disputes
from ..court import registry
from ..generated import protocol

initializes: court
uses: bank
uses: registry
uses: disputes
exports: court.__interface__

MASK128: constant(uint256) = 2**128 - 1
MASK32: constant(uint256) = 2**32 - 1
TOKEN: constant(address) = 0x00000000000000000000000000000000000000AA
POSTER: constant(address) = 0x00000000000000000000000000000000000000B0
A: constant(address) = 0x00000000000000000000000000000000000000A1
B: constant(address) = 0x00000000000000000000000000000000000000A2
TREASURY: constant(address) = 0x00000000000000000000000000000000000000ff
ROOT: constant(bytes32) = keccak256("root")
DISPUTE: constant(bytes32) = keccak256("dispute")


@deploy
def __init__():
    # a contract that answers everything with 32 zeros
    court.__init__(raw_create(x"6360205ff35f526004601cf3"), TREASURY)


@internal
@pure
def _job(reward: uint256, payees: uint256, provider_bond: uint256, challenger_bond: uint256) -> registry.Job:
    return registry.Job(
        poster=POSTER,
        token=TOKEN,
        reward=reward,
        payees=payees,
        slots=8,
        provider_bond=provider_bond,
        challenger_bond=challenger_bond,
        accept_until=10,
        commit_until=20,
        reveal_until=30,
        challenge_until=40,
        open_until=50,
        clock=60,
        grace=60,
        facts=empty(bytes32),
        nonce=0,
    )


@internal
@view
def _credits() -> uint256:
    return (
        bank.credits[TOKEN][A] + bank.credits[TOKEN][B] + bank.credits[TOKEN][POSTER] + bank.credits[TOKEN][TREASURY]
    )


@external
def check_pay(reward_: uint256, bond_: uint256, more: uint256, first: uint256, second: uint256):
    """
    @notice Whatever became of two claims and however many are paid, if it does not revert: rewards and bonds go out to the last unit, but
            for the halves that winners of disputes collect; who stands has its bond and, if it is paid, the reward
            less the fee.
    """
    payees: uint256 = 1 + (more & 1)
    bond: uint256 = bond_ & MASK128
    reward: uint256 = reward_ & MASK128
    id: bytes32 = ROOT
    status: uint256[2] = [1 + (first & 3), 1 + (second & 3)]
    registry.accepted[id] = [A, B]
    registry.claims[id][A] = registry.Kept(numbers=status[0], digest=ROOT)
    registry.claims[id][B] = registry.Kept(numbers=status[1], digest=ROOT)
    bank.held[TOKEN] = reward * payees + 2 * bond
    court._pay(id, self._job(reward, payees, bond, 1))
    winners: uint256 = 0
    left: uint256 = payees
    poster: uint256 = 0
    for i: uint256 in range(2):
        credit: uint256 = bank.credits[TOKEN][A if i == 0 else B]
        if status[i] == protocol.CLAIM_REVEALED:
            pay: uint256 = reward - reward // 200 if left > 0 else 0
            expect.holds(credit == bond + pay)
            left -= min(left, 1)
        else:
            expect.holds(credit == 0)
            if status[i] == protocol.CLAIM_REFUTED:
                winners += bond // 2
            else:
                poster += bond // 2
    expect.holds(bank.credits[TOKEN][TREASURY] == (payees - left) * (reward // 200))
    expect.holds(bank.credits[TOKEN][POSTER] == left * reward + poster)
    expect.holds(bank.held[TOKEN] == winners)
    expect.holds(self._credits() + bank.held[TOKEN] + bank.burnt[TOKEN] == reward * payees + 2 * bond)


@external
def check_collect(bond_: uint256, challenger_: uint256, weights_: uint256, before_: uint256, after_: uint256, more_: uint256, against: bool, confrontation: bool):
    """
    @notice A winner gets its share, what the weights up to it have earned of the half less what those before it have,
            and a challenger its bonds; the winner of a challenge that was lost gets half of that bond. Nothing is made.
    """
    bond: uint256 = bond_ & MASK128
    more: uint256 = more_ & 7
    stake: uint256 = (challenger_ & MASK128) * (1 + more)
    weights: uint256 = weights_ & MASK32
    after: uint256 = after_ & MASK32
    before: uint256 = before_ & MASK32
    assert before < after and after <= weights
    job: registry.Job = self._job(1, 1, bond, challenger_ & MASK128)
    id: bytes32 = registry._id(job)
    winner: address = B if against else A
    loser: address = A if against else B
    verdict: uint256 = (protocol.CHALLENGER_WON if against else protocol.DEFENDER_WON) | before << 8 | after << 72
    registry.disputes[DISPUTE] = registry.Dispute(
        state=convert(verdict, bytes32), job=id, defender=A, challenger=B, confrontation=confrontation, paid=False, more=more
    )
    registry.claims[id][loser].numbers = protocol.CLAIM_REFUTED | weights * registry.WEIGHT
    registry.active[id] = registry.FINAL
    bank.held[TOKEN] = bond + stake
    ok: bool = raw_call(self, abi_encode(job, DISPUTE, method_id=method_id("collect((address,address,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256),bytes32)")), revert_on_failure=False)
    if not ok:  # that it cannot be, is a lemma: shares are not negative
        return
    half: uint256 = bond // 2
    due: uint256 = stake // 2
    burnt: uint256 = stake - stake // 2
    if against or confrontation:
        burnt = 0
        due = unsafe_div(unsafe_mul(half, after), weights) - unsafe_div(unsafe_mul(half, before), weights)
        if not confrontation:
            due += stake
    expect.holds(bank.credits[TOKEN][winner] == due and bank.credits[TOKEN][loser] == 0)
    expect.holds(bank.burnt[TOKEN] == burnt)
    expect.holds(bank.held[TOKEN] + due + burnt == bond + stake)
    # once
    ok = raw_call(self, abi_encode(job, DISPUTE, method_id=method_id("collect((address,address,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint256,bytes32,uint256),bytes32)")), revert_on_failure=False)
    expect.holds(not ok)


@external
def check_weights(known_: uint256, load_: uint256, round_: uint256, against: bool, confrontation: bool):
    """
    @notice A verdict keeps the loser's weight before it and after it, 9 and the rounds more, and the claim has that
            after it: the next one begins where this one ends. Whoever has no claim has no weight.
    """
    known: uint256 = known_ & MASK32
    load: uint256 = 1 + (load_ & 7)
    played: uint256 = round_ & MASK32
    id: bytes32 = ROOT
    registry.active[id] = 3
    registry.disputes[DISPUTE].job = id
    registry.disputes[DISPUTE].defender = A
    registry.disputes[DISPUTE].challenger = B
    registry.disputes[DISPUTE].confrontation = confrontation
    for who: address in [A, B]:
        registry.claims[id][who].numbers = protocol.CLAIM_REVEALED | load << 8 | known << 200
    disputes._decide(DISPUTE, 1 | played << 8, protocol.CHALLENGER_WON if against else protocol.DEFENDER_WON)
    loser: address = A if against else B
    winner: address = B if against else A
    kept: uint256 = convert(registry.disputes[DISPUTE].state, uint256)
    expect.holds(kept % 256 == (protocol.CHALLENGER_WON if against else protocol.DEFENDER_WON))
    expect.holds((kept >> 8) % 2**64 == known and kept >> 72 == known + 9 + played)
    lost: registry.Claim = registry._claim(id, loser)
    won: registry.Claim = registry._claim(id, winner)
    claims: bool = against or confrontation
    expect.holds(lost.weight == (known + 9 + played if claims else known))
    expect.holds(lost.status == (protocol.CLAIM_REFUTED if claims else protocol.CLAIM_REVEALED))
    expect.holds(lost.load == load - 1 and won.load == load - 1)
    expect.holds(won.weight == known and won.status == protocol.CLAIM_REVEALED and won.lost == 0)
    expect.holds(registry.active[id] == 2)
