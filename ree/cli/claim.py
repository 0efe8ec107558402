"""`ree claim`: what a receipt claims, as a run that party, dispute and job take."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_json, add_threads
from ree.cli.output import print_result, progress, progress_bar

HELP = "execute what a receipt claims as a run, chunk by chunk, for 'ree party', 'ree dispute' and 'ree job'"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("receipt", metavar="RECEIPT")
    parser.add_argument("--artifact", required=True, metavar="ART.ree", help="the model's")
    parser.add_argument("-o", "--output", required=True, metavar="RUN")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    from ree.cli.receipt_checked import read_receipt
    from ree.generation.claim import write_run
    from ree.generation.model import LanguageModel
    from ree.generation.verification import whole_claim

    receipt = read_receipt(args.receipt)
    with progress("load"):
        model = LanguageModel.load(args.artifact)
    text = whole_claim(receipt, model)
    text.check(model.forward.vocabulary, model.settings.context)
    with progress_bar("claim", text.chunks) as done:
        history = write_run(model.forward, text, args.output, threads=args.threads,
                            progress=lambda s, loss: done(s, f"chunk {s}"))  # fmt: skip
    same = history.commitment.hex() == receipt.commitment
    data = {"same": same, "steps": history.steps, "commitment": history.commitment.hex(),
            "claimed": receipt.commitment}  # fmt: skip
    lines = [f"wrote {args.output}: {history.steps} steps, commitment {data['commitment']}"]
    if not same:
        lines.append(f"differs: the receipt commits to {receipt.commitment}")
    print_result(args, data, lines)
    return OK if same else DIFFERS
