"""`ree diff`: two traces, two training runs or two receipts, without a replay of what is the same."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ree.cli import receipt_checked
from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_batches, add_json, add_threads
from ree.cli.loading import open_run, script_batches
from ree.cli.output import print_result, progress, stderr_line
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import InputError
from ree.explanation import explain

if TYPE_CHECKING:
    from ree.training.diff import RunDifference

HELP = "compare two traces, receipts or training runs: 0 same, 1 differ, 2 error"
SHOWN = 4  # differing inputs and outputs of a step that are listed
RULES: tuple[Rule, ...] = (
    (
        "threads",
        lambda a: os.path.isdir(a.left) or a.model,
        "--threads is for training runs, and with --model",
    ),
)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("left", metavar="A.trace|RUN1|RECEIPT1")
    parser.add_argument("right", metavar="B.trace|RUN2|RECEIPT2")
    parser.add_argument(
        "--model",
        metavar="ART.ree",
        help="of receipts: verify both with it, to say which one is false",
    )
    add_threads(parser)
    add_batches(parser)


def run(args: argparse.Namespace) -> int:
    refuse_ignored(args, RULES)
    from dataclasses import asdict

    from ree.cli.summary import forged_line
    from ree.files.traces import read_trace_file
    from ree.traces.diff import compare
    from ree.verification import committed

    if os.path.isdir(args.left) or os.path.isdir(args.right):
        if args.model:
            raise InputError("--model is for receipts")
        return _diff_runs(args)
    if args.script:
        raise InputError("--script is for training runs")
    if receipt_checked.is_json(args.left) and receipt_checked.is_json(args.right):
        return receipt_checked.diff(args)
    if args.model:
        raise InputError("--model is for receipts")
    left, right = read_trace_file(args.left), read_trace_file(args.right)
    (a, forged_a), (b, forged_b) = (committed(x.trace, x.tensors) for x in (left, right))
    differences = compare(left.trace, right.trace, a, b)
    equal = left.trace.root == right.trace.root
    same = equal and not forged_a and not forged_b
    data = {"same": same, "left": left.trace.root.hex(), "right": right.trace.root.hex(),
            "differences": [asdict(d) for d in differences],
            "forged": {"left": list(forged_a), "right": list(forged_b)}}  # fmt: skip
    if same:
        print_result(args, data, [f"same: root {left.trace.root.hex()}"])
        return OK
    lines = [f"differ: {left.trace.root.hex()}, {right.trace.root.hex()}" if not equal
             else f"differ: in tensors carried; both have root {left.trace.root.hex()}"]  # fmt: skip
    lines += [forged_line(f"left {what}") for what in forged_a]
    lines += [forged_line(f"right {what}") for what in forged_b]
    if any(d.info or d.name for d in differences):
        stderr_line("note: names and source lines are the files' own words; nothing proves them")
    if left.trace.level != right.trace.level:
        lines.append(f"levels: {left.trace.level}, {right.trace.level}")
    print_result(args, data, lines + [x for d in differences for x in explain(d, "left", "right")])
    return DIFFERS


def _diff_runs(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from ree.training.diff import diff_runs

    left, right = open_run(args.left), open_run(args.right)
    batches = script_batches(args, left, right)
    with progress("compare"):
        d = diff_runs(left, right, batches=batches, threads=args.threads)
    data = json.loads(json.dumps(asdict(d), default=str)) | {"same": d.same}
    if d.same:
        print_result(
            args, data, [f"same: {left.steps} steps, commitment {left.history.commitment.hex()}"]
        )
        return OK
    print_result(args, data, difference_lines(d))
    return DIFFERS


def difference_lines(d: RunDifference) -> list[str]:
    """What two runs do not share, for a person to read."""
    lines = [f"differs: {', '.join(x.replace('_', ' ') for x in d.fixed)}"] if d.fixed else []
    lines += [f"  S0 {x}" for x in d.initial[:SHOWN]]
    if len(d.initial) > SHOWN:
        lines.append(f"  and {len(d.initial) - SHOWN} more tensors of S0")
    if d.step:
        lines.append(f"first differing step: {d.step} ({', '.join(d.parts)})")
    elif d.steps[0] != d.steps[1]:
        short = min(d.steps)
        lines.append(
            f"steps: left {d.steps[0]}, right {d.steps[1]}; the first {short} are the same"
        )
    for side in d.replayed:
        wrong = d.wrong.get(side)
        if wrong is None:
            lines.append(f"{side} replays as it claims")
        else:
            lines += [f"{side} is wrong: step {wrong.step} does not replay", *wrong.lines()]
    for kind in ("input", "value", "output"):
        of_kind = [x for x in d.operators if x.kind == kind]
        for x in of_kind[:SHOWN]:
            lines += explain(x, "left", "right")
            lines += [f"  {x.name}"] if kind == "value" and x.name else []
        if len(of_kind) > SHOWN:
            lines.append(f"  and {len(of_kind) - SHOWN} more {kind}s")
    return lines + [f"note: {x}" for x in d.notes]
