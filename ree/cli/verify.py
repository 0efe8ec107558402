"""`ree verify`: replay an artifact against a trace, or steps of a training run against its history."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ree.cli import receipt_checked
from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import (
    Parser,
    add_batches,
    add_device,
    add_inputs,
    add_json,
    add_state,
    add_threads,
)
from ree.cli.loading import open_run, script_batches, script_file
from ree.cli.output import print_result, progress, progress_bar
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import InputError

HELP = (
    "replay an artifact and compare with a trace, a training run and compare with its history, or what a "
    "receipt claims: 0 same, 1 differs, 2 error"
)
RULES: tuple[Rule, ...] = (("seed", lambda a: a.sample is not None, "--seed goes with --sample"),)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("artifact", metavar="ART.ree|RUN|RECEIPT")
    parser.add_argument("--trace", metavar="FILE", help="of the artifact")
    parser.add_argument(
        "--steps", metavar="A:B", help="steps of the run, both ends included (default: all)"
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="N randomly chosen steps of the run"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of --sample (default: a fresh one)")
    add_batches(parser)
    add_inputs(parser)
    add_state(parser)
    add_threads(parser)
    add_device(parser)
    receipt_checked.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    refuse_ignored(args, RULES)
    if receipt_checked.is_receipt(args.artifact):
        return receipt_checked.run(args)
    for option in ("model", "signature", "text"):
        if getattr(args, option):
            name = "artifact" if option == "model" else option
            if not os.path.exists(args.artifact):
                raise InputError(f"no receipt '{args.artifact}'")
            raise InputError(f"--{name} is for a receipt, and '{args.artifact}' is none")
    from ree.training.directory import is_run

    if is_run(args.artifact):
        if args.trace or args.inputs or args.state or args.device != "cpu":
            raise InputError("a run is verified on the CPU, without --trace, --inputs and --state")
        return _verify_run(args)
    for option in ("steps", "sample", "seed", "script"):
        if getattr(args, option) is not None:
            raise InputError(f"--{option} is for a training run, and '{args.artifact}' is none")
    if not args.trace:
        raise InputError("expected --trace FILE, or a training run to verify")
    from dataclasses import asdict

    from ree.artifact import load
    from ree.cli.summary import forged_line
    from ree.explanation import explain
    from ree.files.traces import read_trace_file
    from ree.verification import verify

    file = read_trace_file(args.trace)
    program = load(args.artifact)
    with progress("replay"):
        report = verify(
            program,
            file,
            args.inputs,
            threads=args.threads,
            device=args.device,
            state=args.state,
        )
    data = {
        "same": report.same,
        "level": file.trace.level,
        "root": file.trace.root.hex(),
        "replayed_root": report.replayed.root.hex(),
        "differences": [asdict(d) for d in report.differences],
        "forged": list(report.forged),
    }
    if report.same:
        print_result(args, data, [f"same: root {file.trace.root.hex()} ({file.trace.level})"])
        return OK
    lines = [f"differs: trace {file.trace.root.hex()}, replay {report.replayed.root.hex()}"]
    lines += [line for d in report.differences for line in explain(d, "trace", "replay")]
    lines += [forged_line(what) for what in report.forged]
    print_result(args, data, lines)
    return DIFFERS


def _verify_run(args: argparse.Namespace) -> int:
    import secrets
    from dataclasses import asdict

    from ree.training.replay import missing_probabilities, sample_steps, verify_run

    run = open_run(args.artifact)
    batches = script_batches(args, run)
    if args.steps and args.sample is not None:
        raise InputError("expected one of --steps and --sample, got both")
    seed = None
    if args.sample is not None:
        seed = secrets.randbits(63) if args.seed is None else args.seed
        chosen = sample_steps(run.steps, args.sample, seed)
    else:
        chosen = list(step_range(args.steps, run.steps))
    with progress_bar("verify", len(chosen)) as done:
        count = iter(range(1, len(chosen) + 1))
        report = verify_run(run, chosen, batches=batches, threads=args.threads,
                            progress=lambda s: done(next(count), f"step {s}"))  # fmt: skip
    found = report.mismatch
    if found is not None and found.batch and batches is not None:
        refuse_random_batch(args.script, found.step)
    data: dict[str, Any] = {
        "same": report.same, "steps": run.steps, "chosen": list(report.chosen),
        "replayed": report.replayed, "commitment": run.history.commitment.hex(),
        "mismatch": None if found is None else asdict(found),
    }  # fmt: skip
    lines = []
    if args.sample is not None:
        missing = missing_probabilities(run.steps, len(chosen))
        data["seed"] = seed
        data["missing"] = {str(f): p for f, p in missing.items()}
        if found is None:
            lines += [f"sample of {len(chosen)} with seed {seed}: a run with a fraction f of bad steps is "
                      "missed with probability at most (1-f)^N"]  # fmt: skip
            lines += [f"  f = {f:<6g} {p:.3g}" for f, p in missing.items()]
    head = f"{len(report.chosen)} of {run.steps} steps, {report.replayed} replayed"
    if found is None:
        print_result(args, data, [f"same: {head}; commitment {data['commitment']}", *lines])
        return OK
    print_result(args, data, [f"differs: step {found.step}", *found.lines(), *lines])
    return DIFFERS


def step_range(text: str | None, steps: int) -> range:
    """Steps A to B of "A:B", both included; either may be left out. "A" is one step."""
    if not text:
        return range(1, steps + 1)
    first, colon, last = text.partition(":")
    ends = (first or "1", (last or str(steps)) if colon else first)
    if not all(e.isdecimal() and len(e) < 16 for e in ends):
        raise InputError(f"steps: expected A:B, got '{text[:40]}'")
    a, b = map(int, ends)
    if not 1 <= a <= b <= steps:
        raise InputError(f"steps: expected 1 to {steps}, got {text[:40]}")
    return range(a, b + 1)


def refuse_random_batch(script: str, step: int) -> None:
    """InputError where a batch that differs was drawn from torch's generator: then it says nothing about
    the run."""
    drawn = script_file(script).draws(step)
    if drawn:
        raise InputError(
            f"step {step}: batch({step}) gives another batch here, which does not make the run false: it draws "
            f"from torch's random generator ({', '.join(drawn)}), whose numbers depend on the processor and "
            "its seed",
            "verify the kept batches (leave out --script); ree.random gives the same batches everywhere",
        )
