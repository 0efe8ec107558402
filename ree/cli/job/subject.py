"""What a job is about as this party has it, and what stands before its money."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ree.cli.grammar import Parser, add_inputs
from ree.cli.output import progress, stderr_line
from ree.cli.receipt_run import add_model, run_path
from ree.errors import ChainError, InputError

if TYPE_CHECKING:
    from ree.compiler.instance import Instance
    from ree.settlement.client import Agreed, Court
    from ree.settlement.gate import Need
    from ree.settlement.terms import Facts, Terms
    from ree.settlement.watcher import ClaimPlayer
    from ree.verde.party import Party
    from ree.verde.run_party import RunParty


def add_job(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", help="its name, as post has printed it")


def add_subject(parser: Parser) -> None:
    parser.add_argument("--artifact", metavar="ART.ree|RUN|RECEIPT", help="what the job is about")
    add_model(parser)
    add_inputs(parser)


def add_caution(parser: Parser) -> None:
    """Of actions that put money on terms."""
    parser.add_argument("--allow-short-windows", action="store_true",
                        help="on a chain for development: terms that leave no time for censorship")  # fmt: skip
    parser.add_argument("--prices", type=_prices, metavar="GAS:RUN",
                        help="refuse bonds that do not cover costs, with one honest challenger of a "
                        "claim: units of the job's token for a million gas, and for computing the run "
                        "again")  # fmt: skip


def _prices(text: str) -> tuple[int, int]:
    """GAS:RUN, whole numbers above 0."""
    gas, colon, run = text.partition(":")
    if not (colon and all(x.isdecimal() and len(x) <= 40 and int(x) > 0 for x in (gas, run))):
        raise argparse.ArgumentTypeError(f"expected GAS:RUN, such as 1000:500, got {text[:40]!r}")
    return int(gas), int(run)


class Subject(NamedTuple):
    """What a job is about, as this party has it."""

    facts: Facts
    computations: tuple[Callable[[], bytes], ...]  # of the root, independent of each other
    party: Callable[[], tuple[Party | RunParty, Instance]]

    def player(self) -> ClaimPlayer:
        from ree.settlement.player import VerdePlayer

        return VerdePlayer(*self.party())


def job_name(args: argparse.Namespace) -> bytes:
    try:
        job = bytes.fromhex((args.job or "").removeprefix("0x"))
        if len(job) != 32:
            raise ValueError
    except ValueError:
        raise InputError("expected a job's name: 32 bytes as hex") from None
    return job


def load_subject(args: argparse.Namespace) -> Subject:
    from ree.training.directory import is_run

    if not args.artifact:
        raise InputError(f"job {args.action} needs --artifact")
    path = run_path(args)
    if is_run(path) and args.inputs:
        raise InputError("a run has its batches: it goes without --inputs")
    with progress("load"):
        return _of_run(path) if is_run(path) else _of_call(path, args.inputs)


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
    from pathlib import Path

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


def agreed_root(args: argparse.Namespace, court: Court) -> tuple[Subject, Agreed]:
    """The root that two computations agree on, of a job that is about this party's data."""
    from dataclasses import replace

    from ree.settlement.client import agree

    subject = load_subject(args)
    if court.posting(job_name(args))[1] != subject.facts.encode():
        raise InputError("the job is about another program, other inputs or another run")
    with progress("compute the root twice"):
        begin = time.monotonic()
        agreed = agree(*subject.computations)
    if court.policy is not None:
        court.policy = replace(court.policy, work=time.monotonic() - begin)
    return subject, agreed


def require_enough(
    court: Court, subject: Subject, terms: Terms, tokens: int, bonds: int = 1
) -> list[Need]:
    """What a dispute under these terms needs, and what there is. ChainError if something is not enough.
    bonds: as many as tokens are for, where a crowd may make it several."""
    from ree.settlement.gate import Need, require, table

    move = 0
    if court.policy is not None and tokens:  # afterwards the terms are what they are
        move = court.policy.move
        court.policy.check(terms, court.node.now)  # the cheap question first
        for line in court.policy.assumed(terms):
            stderr_line(f"note: {line}")
    party, instance = subject.party()
    what = f"tokens (up to {bonds} bonds in a crowd)" if bonds > 1 else "tokens"
    money = Need(what, tokens, court.funds(terms.token), f"of token {terms.token}")
    with progress("rehearse"):
        rows = table(instance, terms, party, money, move, court.node.block_gas)
    require(rows)
    return rows
