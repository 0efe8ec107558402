"""`ree job post`: offer a job."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.grammar import Parser
from ree.cli.job.subject import add_caution, add_subject, load_subject, require_enough
from ree.errors import InputError

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "offer a job: its reward is paid in"


def add_arguments(parser: Parser) -> None:
    add_subject(parser)
    parser.add_argument("--terms", metavar="TERMS.json", help="token, amounts, windows in seconds")
    add_caution(parser)


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    if not args.terms:
        raise InputError("job post needs --terms")
    subject = load_subject(args)
    from ree.settlement.terms_file import read_terms

    terms, data = read_terms(args.terms, court, subject.facts)
    require_enough(court, subject, terms, terms.reward * terms.payees)
    return {"job": court.post(terms, subject.facts, data).hex()}
