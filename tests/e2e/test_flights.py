"""Several transactions on their way at once, on a real node."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")

from ree.settlement.client import DEFENDER_WON, Agreed, Court
from ree.settlement.testing.mock_game import MockPlayer
from ree.settlement.testing.town import FACTS, LIE, TRUE, Town
from ree.settlement.watcher import Watcher

MANY = 6


@pytest.fixture
def attacked(anvil: Any) -> Any:
    """A true claim with challengers whose disputes are open."""
    mark = anvil.snapshot()
    town = Town(anvil)
    terms = replace(town.terms(), clock=60)
    job = town.court("poster").post(terms, FACTS, "")
    alice, me = town.court("alice"), town.nodes["alice"].account
    alice.accept(job, Agreed(TRUE.root))
    alice.commit(job, Agreed(TRUE.root))
    anvil.wait_until(terms.commit_until + 1)
    alice.reveal(job, TRUE.root)
    anvil.wait_until(terms.reveal_until + 1)
    deployer, liars = town.nodes["deployer"], []
    mint = deployer.contract("token", town.token).functions.mint
    for i in range(MANY):
        node = anvil.account(f"liar {i}")
        deployer.send("mint", mint(node.account, 10_000))
        court = Court(node, town.address, town.since)
        court.challenge(job, me, Agreed(LIE.root))
        liars.append(Watcher(court, job, Agreed(LIE.root), MockPlayer(LIE)))
    anvil.wait_until(terms.challenge_until + 1)
    for w in liars:
        w.court.open_challenge(job, me)
    yield town, job, liars
    anvil.rpc("evm_setAutomine", True)
    anvil.revert(mark)


def until(true: Any) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_all_that_is_due_goes_into_one_block(anvil: Any, attacked: Any) -> None:
    """One block every 12 s and 60 s a clock: one after the other, the last would come too late."""
    town, job, liars = attacked
    watcher = town.watcher("alice", job, TRUE)
    for _ in range(3):
        anvil.rpc("evm_setAutomine", False)
        thread = threading.Thread(target=watcher.tick, daemon=True)
        thread.start()
        until(lambda: int(anvil.rpc("txpool_status")["pending"], 16) == MANY)
        anvil.next_at(anvil.now + 12)
        anvil.rpc("evm_mine")
        thread.join(120)
        assert not thread.is_alive()
        anvil.rpc("evm_setAutomine", True)
        rounds = {d.clocks.round for d in watcher.court.disputes(job) if not d.decided}
        for w in liars:
            w.tick()
        if not rounds:
            break
    assert {d.turn for d in watcher.court.disputes(job)} == {DEFENDER_WON}


def test_a_base_fee_that_jumps_after_the_move_was_sent(anvil: Any, attacked: Any) -> None:
    """The client that offered twice the base fee waited until its clock had run out."""
    town, job, _ = attacked
    anvil.rpc("evm_setAutomine", False)
    fee = anvil.web3.eth.get_block("latest")["baseFeePerGas"]
    watcher = town.watcher("alice", job, TRUE)
    thread = threading.Thread(target=watcher.tick, daemon=True)
    thread.start()
    until(lambda: int(anvil.rpc("txpool_status")["pending"], 16) == MANY)
    anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(20 * fee))
    anvil.rpc("evm_mine")
    thread.join(120)
    assert {d.clocks.round for d in watcher.court.disputes(job)} == {1}
