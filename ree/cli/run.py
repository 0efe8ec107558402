"""`ree run`: an artifact on inputs, with a trace if one is asked for."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_device, add_inputs, add_json, add_threads
from ree.cli.output import print_result, progress, stderr_line
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import InputError

if TYPE_CHECKING:
    from ree.program import Program

HELP = "run an artifact"
MAX_VALUES = 256  # MiB of values that an ops trace carries
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
    parser.add_argument("--max-values", type=int, metavar="MIB",
                        help="an ops trace carries its values, for naming a differing element, when they "
                        f"fit in MIB mebibytes (default {MAX_VALUES})")  # fmt: skip
    add_threads(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    refuse_ignored(args, RULES)
    if args.output and args.output == args.trace:
        raise InputError("--output and --trace: expected two files, got one")
    limit = MAX_VALUES if args.max_values is None else args.max_values
    if limit < 0:
        raise InputError(f"--max-values: expected at least 0, got {limit}")
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
    keep = level == "ops" and _values_fit(program, inputs, limit)
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
        if keep or sum(v.nbytes for v in result.outputs) <= limit << 20:
            tensors = replayed_tensors(result)
        result.trace.save(args.trace, tensors)
        data["root"] = result.trace.root.hex()
        lines.append(f"root {data['root']}")
    print_result(args, data, lines)
    return OK


def _values_fit(program: Program, inputs: dict[str, Any], limit: int) -> bool:
    """Whether all values of a run fit in `limit` MiB; says so if not."""
    missing = [n for n in program.names.inputs if n not in inputs]
    if missing:
        return False  # the run itself will say it
    arrays = [inputs[n] for n in program.names.inputs]
    types = program.instance(program.bind_symbols(arrays)).graph.value_types()
    size = sum(t.nbytes for t in types)
    if size > limit << 20:
        stderr_line(f"values not stored: {size >> 20} MiB is over --max-values {limit}")
    return size <= limit << 20
