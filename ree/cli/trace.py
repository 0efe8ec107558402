"""`ree trace`: one step of a training run, every operator of it."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_batches, add_json, add_threads
from ree.cli.loading import open_run, script_batches
from ree.cli.output import print_result, progress

HELP = "trace one step of a training run, every operator of it"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--step", type=int, required=True, metavar="S")
    parser.add_argument("-o", "--output", required=True, metavar="FILE")
    add_threads(parser)
    add_batches(parser)


def run(args: argparse.Namespace) -> int:
    from ree.files.atomic import check_file_place
    from ree.training.replay import trace_step

    check_file_place(args.output)
    run = open_run(args.run)
    batches = script_batches(args, run)
    with progress(f"trace step {args.step}"):
        made = trace_step(run, args.step, batches=batches, threads=args.threads)
    made.trace.save(args.output)
    data = {"step": args.step, "same": made.same, "root": made.trace.root.hex(),
            "io_root": made.trace.io_root.hex(), "values": len(made.trace.values),
            "program": made.trace.program.hex(), "instance": made.trace.instance.hex()}  # fmt: skip
    lines = [f"wrote {args.output}", f"root {data['root']}"]
    if not made.same:
        lines.append(
            f"differs: the step does not lead to the state that the run claims after {args.step}"
        )
    print_result(args, data, lines)
    return OK if made.same else DIFFERS
