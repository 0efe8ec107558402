"""The commands of jobs on a chain: job and demo."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ree.cli import OK
from ree.cli.commands import progress
from ree.cli.output import emit, say, tell
from ree.errors import ChainError, EnvironmentError_, InputError

if TYPE_CHECKING:
    from ree.compiler.instance import Instance
    from ree.settlement.client import Agreed, Court
    from ree.settlement.gate import Need
    from ree.settlement.terms import Facts, Terms
    from ree.settlement.watcher import Player
    from ree.verde.party import Party
    from ree.verde.run_party import RunParty

CLAIMS = ("none", "accepted", "committed", "revealed", "refuted")


@dataclass
class Subject:
    """What a job is about, as this party has it."""

    facts: Facts
    computations: tuple[Callable[[], bytes], ...]  # of the root, independent of each other
    party: Callable[[], tuple[Party | RunParty, Instance]]

    def player(self) -> Player:
        from ree.settlement.player import VerdePlayer

        return VerdePlayer(*self.party())


def job_command(args: argparse.Namespace) -> int:
    """One action on a job."""
    try:
        import web3  # noqa: F401
    except ImportError as e:
        raise EnvironmentError_(f"jobs need '{e.name}'", "pip install 'ree-ml[settlement]'") from e
    from ree.settlement.bonds import Prices
    from ree.settlement.client import Court
    from ree.settlement.keys import load_key
    from ree.settlement.node import Node
    from ree.settlement.policy import DEVELOPMENT, Policy

    key = None if args.action == "status" and not args.key else load_key(args.key)
    policy = DEVELOPMENT if args.allow_short_windows else Policy()
    if args.prices is not None:
        policy = replace(policy, prices=Prices(*args.prices))
    court = Court(Node.connect(args.rpc, key), args.court, args.since, policy)
    data = _ACTIONS[args.action](args, court)
    receipts = [r.__dict__ for r in court.node.receipts]
    lines = [f"{k:11} {v}" for k, v in data.items()]
    lines += [f"{r['function']:11} {r['gas']:,} gas, block {r['block']}" for r in receipts]
    emit(args, {**data, "transactions": receipts}, lines or ["done already"])
    return OK


def _subject(args: argparse.Namespace) -> Subject:
    from ree.training.directory import is_run

    if not args.artifact:
        raise InputError(f"job {args.action} needs --artifact")
    with progress("load"):
        return (
            _of_run(args.artifact)
            if is_run(args.artifact)
            else _of_call(args.artifact, args.inputs)
        )


def _of_call(path: str, inputs: str | None) -> Subject:
    from ree.artifact import load
    from ree.given import named_inputs
    from ree.settlement.work import call_facts, independent, memory_run
    from ree.verde.party import Party

    program = load(path)
    given = named_inputs(program, inputs)
    missing = [n for n in program.names.inputs if n not in given]
    if missing:
        raise InputError(f"missing input '{missing[0]}'")

    @lru_cache(maxsize=1)  # the gate's party is the one that answers
    def party() -> tuple[Party, Instance]:
        run, instance = memory_run(program, given)
        return Party(run, instance.digest), instance

    return Subject(call_facts(program, given), tuple(independent(program, given)), party)


def _of_run(path: str) -> Subject:
    from ree.settlement.gate import admit
    from ree.settlement.work import run_facts
    from ree.training.directory import RunReader
    from ree.training.replay import verify_run
    from ree.verde.moves import RunStatement
    from ree.verde.run_party import RunParty
    from ree.verde.service import run_service

    reader, party = RunReader(Path(path)), run_service(path).party
    assert isinstance(party, RunParty)  # of a run
    assert isinstance(party.statement, RunStatement)
    instance = admit(reader.step.instance)

    def replayed() -> bytes:
        if not verify_run(reader, isa="portable", threads=1).same:
            raise ChainError("a replay of the run differs from it; nothing was sent")
        return reader.history.history_root

    statement = party.statement
    return Subject(run_facts(instance, statement), (lambda: statement.history, replayed),
                   lambda: (party, instance))  # fmt: skip


def _agreed(args: argparse.Namespace, court: Court) -> tuple[Subject, Agreed]:
    """The root that two computations agree on, of a job that is about this party's data."""
    from ree.settlement.client import agree

    subject = _subject(args)
    if court.posting(_job(args))[1] != subject.facts.encode():
        raise InputError("the job is about another program, other inputs or another run")
    with progress("compute the root twice"):
        begin = time.monotonic()
        agreed = agree(*subject.computations)
    if court.policy is not None:
        court.policy = replace(court.policy, work=time.monotonic() - begin)
    return subject, agreed


def _gate(court: Court, subject: Subject, terms: Terms, tokens: int) -> list[Need]:
    """What a dispute under these terms needs, and what there is. ChainError if something is not enough."""
    from ree.settlement.gate import Need, require, table

    move = 0
    if court.policy is not None and tokens:  # afterwards the terms are what they are
        move = court.policy.move
        court.policy.check(terms, court.node.now)  # the cheap question first
    party, instance = subject.party()
    money = Need("tokens", tokens, court.funds(terms.token), f"of token {terms.token}")
    with progress("rehearse"):
        rows = table(instance, terms, party, money, move, court.node.block_gas)
    require(rows)
    return rows


def _job(args: argparse.Namespace) -> bytes:
    try:
        job = bytes.fromhex((args.job or "").removeprefix("0x"))
        if len(job) != 32:
            raise ValueError
    except ValueError:
        raise InputError("expected a job's name: 32 bytes as hex") from None
    return job


def _post(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    if not args.terms:
        raise InputError("job post needs --terms")
    subject = _subject(args)
    from ree.settlement.terms_file import read_terms

    terms, data = read_terms(args.terms, court, subject.facts)
    _gate(court, subject, terms, terms.reward * terms.payees)
    return {"job": court.post(terms, subject.facts, data).hex()}


def _accept(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    subject, agreed = _agreed(args, court)
    terms = court.posting(_job(args))[0]
    rows = _gate(court, subject, terms, 0 if _accepted(args, court) else terms.provider_bond)
    if args.dry_run:
        return {"root": agreed.root.hex(), **{r.what: r.line for r in rows}}
    court.accept(_job(args), agreed)
    return {"root": agreed.root.hex()}


def _accepted(args: argparse.Namespace, court: Court) -> bool:
    return court.claim(_job(args), court.node.account).status > 0


def _commit(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    subject, agreed = _agreed(args, court)
    _gate(court, subject, court.posting(_job(args))[0], 0)
    court.commit(_job(args), agreed)
    return {"root": agreed.root.hex()}


def _reveal(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    _, agreed = _agreed(args, court)
    court.reveal(_job(args), agreed.root)
    return {"root": agreed.root.hex()}


def _challenge(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    if not args.provider:
        raise InputError("job challenge needs --provider")
    job, (subject, agreed) = _job(args), _agreed(args, court)
    terms = court.posting(job)[0]
    if court.node.now <= terms.challenge_until:
        pending = court.challenge_status(job, args.provider) != 0
        _gate(court, subject, terms, 0 if pending else terms.challenger_bond)
        court.challenge(job, args.provider, agreed)
    else:
        court.open_challenge(job, args.provider)
    return {"dispute": court.challenge_dispute(job, args.provider).hex()}


def _respond(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    from ree.settlement.watcher import Watcher

    subject, agreed = _agreed(args, court)
    if args.provider:  # it challenges whoever claims another root
        _gate(court, subject, court.posting(_job(args))[0], 0)
    watcher = Watcher(
        court, _job(args), agreed, subject.player(), challenge=bool(args.provider), say=say
    )
    if args.watch:
        watcher.run(watcher.over)
    else:
        watcher.tick()
    return {}


def _claim(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    from ree.settlement.client import FINAL, VOID
    from ree.settlement.watcher import collect_won

    job = _job(args)
    if court.status(job) not in (FINAL, VOID):
        court.finalise(job)
    collect_won(court, job)
    token = court.posting(job)[0].token
    credit = court.credit(token)
    court.withdraw(token)
    return {"withdrawn": credit}


def _status(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    from ree.settlement.client import FINAL, VOID

    job = _job(args)
    terms, status = court.posting(job)[0], court.status(job)
    out: dict[str, Any] = {
        "state": {FINAL: "final", VOID: "void"}.get(status, f"{status - 1} disputes open")
    }
    for c in court.claims(job):
        root = f", root {c.digest.hex()}" if c.status >= 3 else ""
        out[c.provider] = f"{CLAIMS[c.status]}{root}, won {c.stood}, lost {c.lost}"
    for d in court.disputes(job):
        out[d.id.hex()] = (
            "decided"
            if d.decided
            else f"move {d.clocks.round + 1}: {d.player} until {d.clocks.deadline()}"
        )
    if status == FINAL:
        root, standing, stood = court.call("outcome", job)
        what = f"won {stood} disputes" if stood else "unverified: nobody challenged it"
        out["outcome"] = f"{bytes(root).hex()}, {what}" if standing else "no claim stands"
    else:
        from ree.settlement.terms import DEADLINES

        out["until"] = {d.removesuffix("_until"): getattr(terms, d) for d in DEADLINES}
    return out


_ACTIONS: dict[str, Callable[[argparse.Namespace, Court], dict[str, Any]]] = {
    "post": _post, "accept": _accept, "commit": _commit, "reveal": _reveal, "challenge": _challenge,
    "respond": _respond, "claim": _claim, "status": _status,
}  # fmt: skip


def demo_command(args: argparse.Namespace) -> int:
    """A dispute on the embedded chain, told as it happens."""
    from ree.settlement.demo import call_dispute

    told = say if args.json else tell
    if args.training:
        from ree.settlement.demo_run import run_dispute

        result = run_dispute(told)
        if args.json:
            emit(args, result, [])
        return OK
    program = given = None
    if args.artifact:
        from ree.artifact import load
        from ree.given import named_inputs

        program = load(args.artifact)
        given = named_inputs(program, args.inputs)
    result = call_dispute(program, given, told)
    if args.json:
        emit(args, result, [])
    return OK
