"""The Court plays a descent itself: as the referee does, and nothing else in its place."""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.compile import compile_contract
from ree.settlement.evidence import Evidence
from ree.settlement.terms import descent, state_name
from ree.settlement.testing.court import (
    CHALLENGER,
    DEFENDER,
    NOT_NOW,
    SALT,
    TREASURY,
    World,
    account,
    moved,
    refused,
)
from ree.settlement.testing.deep import DeepParty
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.referee import deploy
from ree.settlement.work import run_facts
from ree.verde.moves import Phase

ROLES = {"defender": "bob", "challenger": "carol"}
TURNS = {"defender": DEFENDER, "challenger": CHALLENGER}
DESCENT = (Phase.REVEAL, Phase.PICK)


def opened():
    """A Court with the true referee, and a dispute with its party and encodings."""
    world, party = World(), DeepParty()
    referee = deploy(world.chain).address
    world.court = world.chain.deploy(compile_contract("court.vy"), referee, TREASURY)
    world.facts = run_facts(party.instance, party.statement)
    world.fund("poster", "bob", "carol")
    job, root = world.post(), party.statement.history
    job.send("bob", "accept")
    job.send("bob", "commit", job.commitment("bob", root))
    job.at("commit_until", 1)
    job.send("bob", "reveal", root, SALT)
    job.challenge("carol", "bob")
    return world, party, Evidence(party.game, party.instance), job.open("carol", "bob")


def test_a_descent_is_that_of_the_referee():
    """In every tree the Court holds the same after both functions, and it is the rules' state."""
    world, party, evidence, d = opened()
    s, kinds = party.game.begin(party.statement), []
    while s.phase is not Phase.OVER:
        m = party.move(s)
        before, data, by = evidence.state(s), evidence.move(s, m), ROLES[s.player]
        held = None
        if s.phase in DESCENT:
            mark = world.chain.snapshot()
            world.send(by, "descend", d, *world.who(d), *descent(before), data)
            held = world.view("dispute_of", d)
            world.chain.revert(mark)
            kinds.append(s.node.kind)
        now = world.chain.now
        world.send(by, "respond", d, *world.who(d), before, data)
        assert held in (None, world.view("dispute_of", d))
        s = party.game.apply(s, m)
        if s.phase is not Phase.OVER:
            world.clocks[d] = moved(world.clocks[d], TURNS[s.player], now)
            players = [account(ROLES[p]) for p in (s.player, *(ROLES.keys() - {s.player}))]
            name = state_name(d, world.clocks[d].word, *players, evidence.state(s))
            assert world.view("dispute_of", d)[0] == name
            world.chain.now += 7
    assert {k: kinds.count(k) for k in kinds} == {
        "history": 10,
        "tensors": 6,
        "body": 10,
        "entries": 4,
    }


def test_what_is_not_the_state_or_the_move_is_refused():
    """Head, place, node, rest, move, caller and layout, each altered; a move of another phase."""
    world, party, evidence, d = opened()
    s = party.game.begin(party.statement)
    while s.phase in DESCENT:
        m = party.move(s)
        before, data, by = evidence.state(s), evidence.move(s, m), ROLES[s.player]
        head, place, node, rest = descent(before)
        word, other = world.who(d)
        false = bytes([rest[0] ^ 1]) + rest[1:]
        right = (word, other, head, place, node, rest)
        for at, wrong in ((0, word + (1 << 88)), (0, word ^ 3), (1, account("poster")), (2, head ^ 1 << 200),
                          (2, head ^ 1 << 240), (3, place ^ 1 << 128), (4, false), (5, false)):  # fmt: skip
            with refused(NOT_NOW):
                world.send(by, "descend", d, *right[:at], wrong, *right[at + 1 :], data)
        flipped = data[:40] + bytes([data[40] ^ 1]) + data[41:]
        for move in (data[:-1], data[:-32], flipped, b"", data + b"\0"):
            with pytest.raises(Reverted):
                world.send(by, "descend", d, *right, move)
        for name in {"poster", *ROLES.values()} - {by}:
            for waits in (other, account(by)):
                with refused(NOT_NOW):
                    world.send(name, "descend", d, word, waits, *right[2:], data)
        raw = world.court.encode("descend", d, *right, data)
        altered = [raw + bytes(32)]
        if len(data) % 32:  # what fills the last word is no part of the move
            altered.append(raw[:-1] + b"\1")
        for layout in altered:
            with pytest.raises(Reverted, match="calldata: layout"):
                world.court.call_raw("descend", layout, account(by))
        now = world.chain.now
        world.send(by, "descend", d, *right, data)
        with refused(NOT_NOW):  # once
            world.send(by, "descend", d, *right, data)
        s = party.game.apply(s, m)
        world.clocks[d] = moved(world.clocks[d], TURNS[s.player], now)
    assert s.phase is Phase.STEP
    with pytest.raises(Reverted, match="no descent"):
        world.send("bob", "descend", d, *world.who(d), *descent(evidence.state(s)), bytes(512))
