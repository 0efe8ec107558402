"""`ree compile`: a model's file to an artifact."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json
from ree.cli.output import print_result, progress

HELP = "compile MODEL.py (it defines model() and example_inputs()) to an artifact"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("model", metavar="MODEL.py")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.ree")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ree.artifact.writing import check_place
    from ree.cli.summary import describe_program
    from ree.files.user_file import load_model_file

    check_place(args.output)
    with progress("load model"):
        module, inputs, dynamic_shapes = load_model_file(Path(args.model))
    from ree.compilation import compile

    with progress("compile"):
        program = compile(module, inputs, dynamic_shapes)
    with progress("write"):
        program.save(args.output)
    data = describe_program(program)
    print_result(args, data, [
        f"wrote {args.output}",
        f"program  {data['program']}",
        f"weights  {data['weights_root']} ({data['parameters']:,} parameters)",
        f"nodes    {data['nodes']} in {data['groups']} groups; "
        f"{data['flops'] / 1e9:.3f} Gflop, {data['bytes'] / 1e6:.1f} MB moved on the examples",
        "operators " + ", ".join(f"{k} {v}" for k, v in data["operators"].items()),
    ])  # fmt: skip
    return OK
