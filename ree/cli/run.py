"""`ree run`: an artifact on inputs, with a trace if one is asked for."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ree.cli.exit_codes import OK
from ree.cli.grammar import (
    Parser,
    add_device,
    add_inputs,
    add_json,
    add_max_values,
    add_threads,
)
from ree.cli.loading import value_limit, values_fit
from ree.cli.output import print_result, progress
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import InputError

HELP = "run an artifact"
RULES: tuple[Rule, ...] = (
    ("trace_level", lambda a: a.trace, "--trace-level goes with --trace"),
    ("max_values", lambda a: a.trace, "--max-values goes with --trace"),
)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("artifact", metavar="ART.ree")
    add_inputs(parser)
    parser.add_argument("-o", "--output", metavar="OUT.safetensors", help="write the outputs here")
    parser.add_argument("--trace", metavar="FILE", help="write a trace here")
    parser.add_argument("--trace-level", choices=("io", "ops"),
                        help="io: inputs and outputs (default); ops: every value")  # fmt: skip
    add_max_values(parser)
    add_threads(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    refuse_ignored(args, RULES)
    if args.output and args.output == args.trace:
        raise InputError("--output and --trace: expected two files, got one")
    limit = value_limit(args)
    from ree.artifact import load
    from ree.cli.summary import describe_tensor, tensor_line
    from ree.files.atomic import atomic_file, check_file_place
    from ree.given import named_inputs
    from ree.verification import replayed_tensors

    for place in (args.output, args.trace):
        if place is not None:
            check_file_place(place)
    program = load(args.artifact)
    inputs = named_inputs(program, args.inputs)
    level = (args.trace_level or "io") if args.trace else None
    keep = level == "ops" and values_fit(program, inputs, limit)
    start = time.perf_counter()
    with progress("run"):
        result = program.run_named(
            inputs, trace=level, threads=args.threads, device=args.device, keep_values=keep
        )
    seconds = time.perf_counter() - start
    outputs = dict(zip(program.names.outputs, result.outputs, strict=True))
    if args.output:
        from ree.files.safetensors import write_tensors_to

        with atomic_file(args.output) as f:
            write_tensors_to(f, outputs)
    facts = {k: describe_tensor(v) for k, v in outputs.items()}
    data: dict[str, Any] = {"outputs": {k: f["type"] for k, f in facts.items()}, "values": facts,
                            "seconds": round(seconds, 4)}  # fmt: skip
    lines = [tensor_line(k, f) for k, f in facts.items()]
    if args.trace and result.trace is not None:
        tensors: dict[tuple[str, int], Any] = {}
        if keep or sum(v.nbytes for v in result.outputs) <= limit:
            tensors = replayed_tensors(result)
        result.trace.save(args.trace, tensors)
        data["root"] = result.trace.root.hex()
        lines.append(f"root {data['root']}")
    print_result(args, data, lines)
    return OK
