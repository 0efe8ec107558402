"""`ree job status`: how a job stands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.grammar import Parser
from ree.cli.job.subject import add_job, job_name

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "show claims, disputes, times and the outcome"
CLAIMS = ("none", "accepted", "committed", "revealed", "refuted")


def add_arguments(parser: Parser) -> None:
    add_job(parser)


def act(args: argparse.Namespace, court: Court) -> dict[str, Any]:
    from ree.settlement.client import FINAL, VOID

    job = job_name(args)
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
