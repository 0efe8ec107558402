"""`ree demo`: a dispute on a chain inside this process, told as it happens."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_inputs, add_json
from ree.cli.output import print_result, stderr_line, stdout_line
from ree.cli.refusals import Rule, refuse_ignored

HELP = "a dispute from one wrong bit to the verdict, on a chain inside this process"
RULES: tuple[Rule, ...] = (
    ("artifact", lambda a: not a.training, "--training has a run of its own: give no artifact"),
    ("inputs", lambda a: a.artifact, "--inputs goes with an artifact"),
)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("what", choices=("dispute",))
    parser.add_argument("artifact", nargs="?", metavar="ART.ree", help="default: a small program")
    parser.add_argument(
        "--training", action="store_true", help="a false step of a training run instead"
    )
    add_inputs(parser)


def run(args: argparse.Namespace) -> int:
    """A dispute on the embedded chain, told as it happens."""
    refuse_ignored(args, RULES)
    from ree.settlement.demo import call_dispute

    told = stderr_line if args.json else stdout_line
    if args.training:
        from ree.settlement.demo_run import run_dispute

        result = run_dispute(told)
        if args.json:
            print_result(args, result, [])
        return OK
    program = given = None
    if args.artifact:
        from ree.artifact import load
        from ree.given import named_inputs

        program = load(args.artifact)
        given = named_inputs(program, args.inputs)
    result = call_dispute(program, given, told)
    if args.json:
        print_result(args, result, [])
    return OK
