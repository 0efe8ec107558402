"""`ree trace`: one step of a training run, or one run of a program with states, every operator of it."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import (
    Parser,
    add_batches,
    add_inputs,
    add_json,
    add_max_values,
    add_state,
    add_threads,
)
from ree.cli.loading import open_run, script_batches, value_limit, values_fit
from ree.cli.output import print_result, progress
from ree.errors import InputError

HELP = "trace one step of a training run, or one run of a program with states, every operator of it"
OF_RUNS, OF_PROGRAMS = ("step", "script"), ("inputs", "state", "max_values")


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("run", metavar="RUN|ART.ree")
    parser.add_argument("--step", type=int, metavar="S", help="of the training run")
    parser.add_argument("-o", "--output", required=True, metavar="FILE")
    add_threads(parser)
    add_batches(parser)
    add_inputs(parser)
    add_state(parser)
    add_max_values(parser)


def run(args: argparse.Namespace) -> int:
    from ree.files.atomic import check_file_place
    from ree.training.directory import is_run

    check_file_place(args.output)
    training = is_run(args.run)
    for option in OF_PROGRAMS if training else OF_RUNS:
        if getattr(args, option) is not None:
            what = "an artifact" if training else "a training run"
            raise InputError(
                f"--{option.replace('_', '-')} is for {what}, and '{args.run}' is none"
            )
    return _trace_step(args) if training else _trace_program(args)


def _trace_step(args: argparse.Namespace) -> int:
    from ree.training.replay import trace_step

    if args.step is None:
        raise InputError("expected --step S, a step of the training run")
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


def _trace_program(args: argparse.Namespace) -> int:
    from ree.artifact import load
    from ree.given import named_inputs
    from ree.verification import replayed_tensors, session_run

    limit = value_limit(args)
    program = load(args.run)
    if not program.graph.states:
        raise InputError(
            "the program has no states", "ree run ART.ree --trace FILE --trace-level ops"
        )
    inputs = named_inputs(program, args.inputs)
    keep = values_fit(program, inputs, limit)
    with progress("trace"):
        result = session_run(program, inputs, args.state, threads=args.threads, keep_values=keep)
    trace = result.trace
    assert trace is not None
    trace.save(args.output, replayed_tensors(result) if keep else None)
    data = {"root": trace.root.hex(), "io_root": trace.io_root.hex(), "values": len(trace.values),
            "program": trace.program.hex(), "instance": trace.instance.hex()}  # fmt: skip
    print_result(args, data, [f"wrote {args.output}", f"root {data['root']}"])
    return OK
