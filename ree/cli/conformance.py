"""`ree conformance`: this machine's bits against the contract's."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_device, add_json
from ree.cli.output import print_result

HELP = "compare this machine's bits with the contract's: 0 same, 1 differ"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    add_device(parser)
    parser.add_argument("-o", "--output", metavar="REPORT.json", help="write the report here")


def run(args: argparse.Namespace) -> int:
    import json

    from rich.console import Console
    from rich.progress import Progress

    from ree.conformance import run_suite
    from ree.files.atomic import atomic_file
    from ree.kernels import opdef, registry  # noqa: F401

    total = len(opdef.names()) + 1
    with atomic_file(args.output) if args.output else nullcontext() as f:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("conformance", total=total)

            def step(name: str) -> None:
                bar.update(task, advance=1, description=name)

            report = run_suite(args.device, step)
        if f is not None:
            f.write((json.dumps(report, indent=1) + "\n").encode())
    lines = [f"{k:10} {v}" for k, v in report["device"].items() if k != "versions"]
    parts = {**report["operators"], **report["models"]}
    for name, part in parts.items():
        if not part["same"]:
            first = f", first in sample {part['first']}" if part.get("first") else ""
            lines.append(f"DIFFERS {name}{first}")
    good = sum(p["same"] for p in parts.values())
    lines.append(f"{good} of {len(parts)} conform to {report['contract']}")
    print_result(args, report, lines)
    return OK if report["same"] else DIFFERS
