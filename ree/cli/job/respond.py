"""`ree job respond`: make the moves that are due."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.grammar import Parser
from ree.cli.job.subject import (
    add_caution,
    add_job,
    add_subject,
    agreed_root,
    job_name,
    require_enough,
)
from ree.cli.output import stderr_line

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "make the moves of disputes that are due"


def add_arguments(parser: Parser) -> None:
    add_job(parser)
    add_subject(parser)
    parser.add_argument(
        "--provider", metavar="ADDRESS", help="challenge whoever claims another root"
    )
    add_caution(parser)
    parser.add_argument("--watch", action="store_true", help="play until the job is over")


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    from ree.settlement.watcher import Watcher

    job, (subject, agreed) = job_name(args), agreed_root(args, court)
    if args.provider:  # it challenges whoever claims another root
        bonds, tokens = court.to_challenge(job, args.provider, agreed)
        require_enough(court, subject, court.posting(job)[0], tokens, bonds)
    watcher = Watcher(
        court,
        job,
        agreed,
        subject.player(),
        challenge=bool(args.provider),
        say=stderr_line,
    )
    if args.watch:
        watcher.run(watcher.over)
    else:
        watcher.tick()
    return {}
