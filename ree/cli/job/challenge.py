"""`ree job challenge`: dispute a claim."""

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
from ree.errors import InputError

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "dispute a provider's claim: bond now, open the dispute once claims are closed"


def add_arguments(parser: Parser) -> None:
    add_job(parser)
    add_subject(parser)
    parser.add_argument("--provider", metavar="ADDRESS", help="whose claim")
    add_caution(parser)


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    if not args.provider:
        raise InputError("job challenge needs --provider")
    job, (subject, agreed) = job_name(args), agreed_root(args, court)
    terms = court.posting(job)[0]
    if court.node.now <= terms.challenge_until:
        bonds, tokens = court.to_challenge(job, args.provider, agreed)
        require_enough(court, subject, terms, tokens, bonds)
        court.challenge(job, args.provider, agreed)
    else:
        court.open_challenge(job, args.provider)
    return {"dispute": court.challenge_dispute(job, args.provider).hex()}
