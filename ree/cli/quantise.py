"""`ree quantise`: an artifact with its linear layers in 8-bit integers."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_inputs, add_json
from ree.cli.output import print_result, progress

HELP = (
    "write an artifact whose linear layers compute in 8-bit integers, and say how far its results are from "
    "the given one's"
)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("artifact", metavar="ART.ree")
    add_inputs(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT.ree")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ree.artifact import load
    from ree.artifact.writing import check_place
    from ree.errors import InputError

    check_place(args.output)
    if Path(args.output).resolve() == Path(args.artifact).resolve():
        raise InputError("--output: expected another artifact than the one to quantise")
    from ree.given import named_inputs
    from ree.quantisation import quantise

    program = load(args.artifact)
    inputs = named_inputs(program, args.inputs)
    with progress("quantise"):
        done = quantise(program, inputs)
    with progress("write"):
        done.program.save(args.output)
    before, after = (sum(w.nbytes for w in p.weights) for p in (program, done.program))
    data = {"program": done.program.program_hash.hex(), "weights_root": done.program.weights_root.hex(),
            "bytes_before": before, "bytes_after": after, **done.data()}  # fmt: skip
    lines = [
        f"wrote {args.output}",
        f"program  {data['program']}",
        f"weights  {data['weights_root']} ({before / 1e6:.1f} MB, now {after / 1e6:.1f} MB)",
        f"layers   {done.layers} in 8-bit integers, {len(done.kept)} as they were",
        *(f"kept     {k}" for k in done.kept),
    ]
    for name, e in done.errors.items():
        found = {"greatest": e.greatest, "relative": e.relative, "cosine": e.cosine}
        parts = [f"{k} {v:.6g}" for k, v in found.items() if v is not None]
        parts += [f"{e.not_finite} finite in one alone"] * (e.not_finite > 0)
        lines.append(f"error    {name}: {', '.join(parts) or 'nothing to compare'}")
    if not done.errors:
        lines.append("error    not measured: no inputs, or states")
    print_result(args, data, lines)
    return OK
