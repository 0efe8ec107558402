"""`ree claim`: what a receipt claims, as a run that party, dispute and job take."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_json, add_threads
from ree.cli.output import print_result

HELP = "execute what a receipt claims as a run, chunk by chunk, for 'ree party', 'ree dispute' and 'ree job'"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("receipt", metavar="RECEIPT")
    parser.add_argument("--artifact", required=True, metavar="ART.ree", help="the model's")
    parser.add_argument("-o", "--output", required=True, metavar="RUN")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    from ree.cli.receipt_run import opened, write_claim

    receipt, model, text = opened(args.receipt, args.artifact)
    history = write_claim(model, text, args.output, args.threads)
    same = history.commitment.hex() == receipt.commitment
    data = {"same": same, "steps": history.steps, "commitment": history.commitment.hex(),
            "claimed": receipt.commitment}  # fmt: skip
    lines = [f"wrote {args.output}: {history.steps} steps, commitment {data['commitment']}"]
    if not same:
        lines.append(f"differs: the receipt commits to {receipt.commitment}")
    print_result(args, data, lines)
    return OK if same else DIFFERS
