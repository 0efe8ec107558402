"""`ree job commit`: commit to the root."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.grammar import Parser
from ree.cli.job.subject import add_job, add_subject, agreed_root, job_name, require_enough

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "commit to the root that two computations agree on"


def add_arguments(parser: Parser) -> None:
    add_job(parser)
    add_subject(parser)


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    subject, agreed = agreed_root(args, court)
    require_enough(court, subject, court.posting(job_name(args))[0], 0)
    court.commit(job_name(args), agreed)
    return {"root": agreed.root.hex()}
