"""`ree job accept`: provide for a job."""

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

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "provide for a job: bond that its root can be computed"


def add_arguments(parser: Parser) -> None:
    add_job(parser)
    add_subject(parser)
    add_caution(parser)
    parser.add_argument("--dry-run", action="store_true",
                        help="show what a dispute would need and what there is; bond nothing")  # fmt: skip


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    subject, agreed = agreed_root(args, court)
    terms = court.posting(job_name(args))[0]
    rows = require_enough(
        court, subject, terms, 0 if _accepted(args, court) else terms.provider_bond
    )
    if args.dry_run:
        return {"root": agreed.root.hex(), **{r.what: r.line for r in rows}}
    court.accept(job_name(args), agreed)
    return {"root": agreed.root.hex()}


def _accepted(args: argparse.Namespace, court: Court) -> bool:
    return court.claim(job_name(args), court.node.account).status > 0
