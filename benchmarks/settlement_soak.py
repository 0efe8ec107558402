"""Honest watchers under load on a real node (anvil): writes results/settlement_soak.json.

python benchmarks/settlement_soak.py [--seed N]

Twenty-four disputes by the real referee in one job, about two layers and a softmax; blocks of 12 s (of the
chain; each takes 2 s here): 21 liars against a true claim, two honest challengers and a provider against a
false one. Full blocks drive the base fee up, which jumps besides; blocks are reorganised away; each honest
watcher is a process, and is killed twice in the middle and started again. Nothing may be lost: each dispute is
won by the honest side, by a move and in time.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ree.errors import ChainError
from ree.settlement.client import (
    CHALLENGER_WON,
    DEFENDER_WON,
    FINAL,
    REFUTED,
    REVEALED,
    Agreed,
    Court,
    Dispute,
)
from ree.settlement.clocks import DEFENDER
from ree.settlement.keys import role_key
from ree.settlement.node import Node
from ree.settlement.player import VerdePlayer
from ree.settlement.policy import Policy
from ree.settlement.terms import facts_digest
from ree.settlement.testing.anvil import Anvil, Missing
from ree.settlement.testing.fixtures import Fixture, fixture
from ree.settlement.testing.town import MONEY, Town
from ree.settlement.watcher import FAR, Position, Watcher

RESULT = Path(__file__).resolve().parent / "results" / "settlement_soak.json"
LIARS, HONEST = 21, ("alice", "carol", "dan")
BLOCK, SECOND = 12, 2.0  # of the chain, and how long it takes here
GAS = 30_000_000  # of a block
SPAM = 16_000_000  # gas of a transaction that does nothing
LONGEST = 1800.0  # seconds
# after how many moves all honest watchers are killed, and for how many blocks
CRASHES, AWAY = (60, 140), 5
STILL = 6  # blocks without a move
DEAR = 200 * 10**9  # base fee above which nobody makes it dearer


def about() -> Fixture:
    """What is disputed: the truth about it and lies."""
    return fixture("layers")


def watch(url: str, address: str, since: int, job: str, role: str) -> int:
    """A watcher as a process: it knows the chain and its run, and nothing else."""
    court = Court(Node.connect(url, role_key(role)), address, since, Policy())
    truth = about()
    watcher = Watcher(court, bytes.fromhex(job), truth.agreed, truth.honest, challenge=role != "alice",
                      say=lambda text: print(text, flush=True))  # fmt: skip
    watcher.run(watcher.over, pause=0.5)
    return 0


class Processes:
    """The honest watchers, and what they have said."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: dict[str, list[int]] = {r: [] for r in HONEST}

    def start(self, role: str) -> None:
        with (self.folder / f"{role}.log").open("ab") as log:
            command = [sys.executable, "-P", __file__, "--watch", *self.arguments, role]
            self.running[role] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, role: str, block: int) -> None:
        self.running[role].send_signal(signal.SIGKILL)
        self.running.pop(role).wait()
        self.killed[role].append(block)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def said(self, role: str) -> list[str]:
        return (self.folder / f"{role}.log").read_text().splitlines()


class Weather:
    """Spam, jumps of the base fee and reorganisations, by a seed."""

    def __init__(self, chain: Anvil, rng: random.Random) -> None:
        self.chain, self.rng, self.spam = chain, rng, chain.account("spammer")
        self.chain.rpc("anvil_setBalance", self.spam.account, hex(10**24))
        self.full, self.jumps, self.dropped = 0, 0, list[int]()
        self.fees: list[int] = []

    def before(self, block: int) -> None:
        """What the next block shall meet."""
        base = int(self.chain.web3.eth.get_block("latest")["baseFeePerGas"])
        self.fees.append(base)
        if 5 <= block % 40 < 25 and base < DEAR:
            self._fill(base)
        if self.rng.random() < 0.05 and 20 * base < DEAR:
            self.jumps += 1
            self.chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(20 * base))

    def after(self, block: int) -> None:
        if block > 3 and self.rng.random() < 0.15:
            depth = self.rng.randint(1, 3)
            self.chain.drop(depth)
            self.dropped.append(depth)

    def _fill(self, base: int) -> None:
        """Two transactions that use up a block: the creation of a contract whose code is no code."""
        self.full += 1
        eth, key = self.spam.web3.eth, role_key("spammer")
        number = eth.get_transaction_count(key.address)
        for i in range(2):
            fields = {"nonce": number + i, "gas": SPAM - 2_000_000 * i, "value": 0, "data": b"\xfe",
                      "chainId": eth.chain_id, "maxFeePerGas": 4 * base + 50 * 10**9,
                      "maxPriorityFeePerGas": 3 * 10**9}  # fmt: skip
            with suppress(Exception):  # one from before waits
                eth.send_raw_transaction(key.sign(fields))


class Liars:
    """Challengers of a true claim, and the provider of a false one, who answer at once."""

    def __init__(self, seen: Court, job: bytes, courts: list[Court]) -> None:
        self.courts = {c.node.account: c for c in courts}
        self.position, self.lies = Position(seen, job), [p for _, p in about().lies]

    def step(self, disputes: list[Dispute]) -> None:
        for court in self.courts.values():
            for flight in court.node.flights:
                with suppress(ChainError):
                    court.node.land(flight)
        now = self.position.court.node.now
        for d in disputes:
            late = not d.decided and now > d.clocks.deadline()
            court = self.courts.get(d.other if late else d.player)
            if court is None or len(court.node.flights) > 2:
                continue
            with suppress(ChainError), court.node.flying(FAR):
                at = self.position.of(d)
                if late:
                    court.timeout(d, at.state)
                else:
                    court.respond(d, at.state, self._lie(d).move(at))

    def _lie(self, d: Dispute) -> VerdePlayer:
        """A provider's is the one that it claims; challengers point by any."""
        return self.lies[0 if d.turn == DEFENDER or d.confrontation else d.id[0] % len(self.lies)]


def prepare(town: Town, chain: Anvil) -> tuple[bytes, list[Court]]:
    """The job when its disputes have been opened."""
    what = about()
    true, false = what.agreed, Agreed(what.lies[0][0])
    terms = replace(
        town.terms(), clock=3600 + 16 * BLOCK, grace=300, facts=facts_digest(what.facts)
    )
    start = chain.now
    terms = replace(terms, **{f"{w}_until": start + 4000 * (i + 1) for i, w in
                              enumerate(("accept", "commit", "reveal", "challenge", "open"))})  # fmt: skip
    Policy().check(terms, start)
    job = town.court("poster").post(terms, what.facts, "")
    for role, root in (("alice", true), ("bob", false)):
        town.court(role).accept(job, root)
        town.court(role).commit(job, root)
    chain.wait_until(terms.commit_until + 1)
    for role, root in (("alice", true), ("bob", false)):
        town.court(role).reveal(job, root.root)
    chain.wait_until(terms.reveal_until + 1)
    alice, bob = (town.nodes[r].account for r in ("alice", "bob"))
    mint = town.nodes["deployer"].contract("token", town.token).functions.mint
    courts = {}
    for role in (*(f"liar {i}" for i in range(LIARS)), "carol", "dan"):
        node = chain.account(role)
        town.nodes["deployer"].send("mint", mint(node.account, MONEY))
        courts[role] = Court(node, town.address, town.since)
        honest = role in HONEST
        courts[role].challenge(job, bob if honest else alice, true if honest else false)
    chain.wait_until(terms.challenge_until + 1)
    for role, court in courts.items():
        court.open_challenge(job, bob if role in HONEST else alice)
    return job, [*(c for r, c in courts.items() if r not in HONEST), town.court("bob")]


def soak(chain: Anvil, seed: int, folder: Path) -> dict[str, Any]:
    """Play it to the end; the figures."""
    rng, town = random.Random(seed), Town(chain, real=True)
    say("the job, its claims and its challenges")
    job, courts = prepare(town, chain)
    seen, weather = town.court("poster"), Weather(chain, rng)
    liars = Liars(seen, job, courts)
    honest = {(town.nodes[r] if r in town.nodes else chain.account(r)).account for r in HONEST}
    processes = Processes([chain.url, town.address, str(town.since), job.hex()], folder)
    chain.rpc("evm_setAutomine", False)
    chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(5 * 10**9))
    until, block, least = seen.posting(job)[0].open_until, 0, 10**9
    began = begun = time.monotonic()
    before, still = (0, 0), 0
    gone, crashes = dict[str, int](), list(CRASHES)
    try:
        for role in HONEST:
            processes.start(role)
        while seen.status(job) != FINAL and time.monotonic() - began < LONGEST:
            played = disputes_of(seen, job)
            least = min(
                [least, *(d.clocks.deadline() - chain.now for d in played if d.player in honest)]
            )
            if block % 5 == 0:
                decided, moves = sum(d.decided for d in played), sum(d.clocks.round for d in played)
                say(
                    f"block {block}, {time.monotonic() - began:.0f} s: {moves} moves, {decided} decided"
                )
            liars.step(played)
            weather.before(block)
            time.sleep(max(0.0, begun + SECOND - time.monotonic()))
            begun = time.monotonic()
            over = len(played) > LIARS and all(d.decided for d in played)  # what is left is to wait
            waits = [d for d in played if not d.decided]
            now = sum(d.clocks.round for d in played), len(waits)
            still = still + 1 if now == before and not gone else 0
            before, next_ = now, chain.now + BLOCK
            if over:
                next_ = max(next_, until + 1)
            elif still > STILL and not any(d.player in honest for d in waits):
                # a liar has no move: his clock runs
                next_ = max(next_, min(d.clocks.deadline() for d in waits) + 1)
            chain.next_at(next_)
            chain.rpc("evm_mine")
            block += 1
            if not over:
                weather.after(block)
            for role, again in list(gone.items()):
                if block >= again:
                    processes.start(role)
                    del gone[role]
            moves = sum(d.clocks.round for d in played)
            if crashes and moves >= crashes[0] and not gone:
                crashes.pop(0)
                for role in HONEST:
                    processes.kill(role, block)
                    gone[role] = block + AWAY
    finally:
        processes.close()
    return result(town, job, seen, block, least, weather, processes, seed, time.monotonic() - began)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def disputes_of(seen: Court, job: bytes) -> list[Dispute]:
    """The disputes; those known before if the chain is moving."""
    for _ in range(20):
        with suppress(ChainError):
            return seen.disputes(job)
    raise ChainError("the chain moves all the time")


def result(town: Town, job: bytes, seen: Court, block: int, least: int, weather: Weather, processes: Processes,
           seed: int, seconds: float) -> dict[str, Any]:  # fmt: skip
    alice, bob = (town.nodes[r].account for r in ("alice", "bob"))
    disputes = seen.disputes(job)
    lost = [d.id.hex() for d in disputes
            if d.turn != (DEFENDER_WON if d.defender == alice else CHALLENGER_WON if d.challenger != bob
                          else DEFENDER_WON)]  # fmt: skip
    a, b = seen.claim(job, alice), seen.claim(job, bob)
    said = {r: processes.said(r) for r in HONEST}
    return {
        "seed": seed, "disputes": len(disputes), "lost by the honest": lost, "blocks": block,
        "seconds": round(seconds), "final": seen.status(job) == FINAL,
        "true claim stands": a.status == REVEALED and a.lost == 0, "false claim refuted": b.status == REFUTED,
        "least seconds left to an honest player": least, "full blocks": weather.full,
        "jumps of the base fee by 20": weather.jumps, "reorganisations, blocks each": weather.dropped,
        "base fee in gwei, least and most": [round(f(weather.fees) / 1e9, 3) for f in (min, max)],
        "killed at block": processes.killed,
        "clocks run out": sum("our time has run out" in x for lines in said.values() for x in lines),
        "notes": {r: sum(x.startswith("note") for x in lines) for r, lines in said.items()},
    }  # fmt: skip


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--watch", nargs=5, metavar=("URL", "COURT", "SINCE", "JOB", "ROLE"))
    args = p.parse_args()
    if args.watch:
        url, court, since, job, role = args.watch
        return watch(url, court, int(since), job, role)
    import tempfile

    try:
        chain = Anvil("--gas-limit", str(GAS), "--base-fee", str(5 * 10**9))
    except Missing as e:
        print(f"the soak did not run: {e}")
        return 0
    with chain, tempfile.TemporaryDirectory() as folder:
        found = soak(chain, args.seed, Path(folder))
        for role in HONEST:
            tail = (Path(folder) / f"{role}.log").read_text().splitlines()[-3:]
            say("\n  ".join([f"{role}:", *tail]))
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(RESULT.read_text())
    good = found["final"] and found["true claim stands"] and found["false claim refuted"]
    good = (
        good
        and found["disputes"] == LIARS + 3
        and not (found["lost by the honest"] or found["clocks run out"])
    )
    print("nothing is lost" if good else "something is lost")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
