"""`ree job claim`: finalise, collect, withdraw."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.grammar import Parser
from ree.cli.job.subject import add_job, job_name

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "finalise the job, collect what was won and withdraw it"


def add_arguments(parser: Parser) -> None:
    add_job(parser)


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    from ree.settlement.client import FINAL, VOID
    from ree.settlement.watcher import collect_won

    job = job_name(args)
    if court.status(job) not in (FINAL, VOID):
        court.finalise(job)
    collect_won(court, job)
    token = court.posting(job)[0].token
    credit = court.credit(token)
    court.withdraw(token)
    return {"withdrawn": credit}
