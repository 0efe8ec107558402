"""`ree job reveal`: show the root committed to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.grammar import Parser
from ree.cli.job.subject import add_job, add_subject, agreed_root, job_name

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "show the root committed to"


def add_arguments(parser: Parser) -> None:
    add_job(parser)
    add_subject(parser)


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    _, agreed = agreed_root(args, court)
    court.reveal(job_name(args), agreed.root)
    return {"root": agreed.root.hex()}
