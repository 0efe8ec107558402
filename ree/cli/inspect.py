"""`ree inspect`: what an artifact, a trace or a training run says of itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json
from ree.cli.loading import open_run
from ree.cli.output import print_result, stderr_line
from ree.errors import ReeError, RunError

if TYPE_CHECKING:
    from ree.traces.history import StepRecord

HELP = "describe an artifact, a trace or a training run"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("file", metavar="FILE")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ree.training.directory import is_run

    path = Path(args.file)
    if is_run(path):
        data = _describe_run(args.file)
    elif path.is_dir():
        from ree.artifact import load
        from ree.cli.summary import describe_program

        data = {"kind": "artifact", **describe_program(load(args.file))}
    elif not path.exists():
        raise ReeError(f"no file '{path}'")
    else:
        from ree.files.traces import read_trace_file
        from ree.verification import committed

        file = read_trace_file(args.file)
        t = file.trace
        data = {
            "kind": "trace",
            "level": t.level,
            "root": t.root.hex(),
            "io_root": t.io_root.hex(),
            "program": t.program.hex(),
            "instance": t.instance.hex(),
            "weights_root": t.weights_root.hex(),
            "numeric_id": t.numeric_id.hex(),
            "inputs": [h.hex() for h in t.inputs],
            "outputs": [h.hex() for h in t.outputs],
            "values": len(t.values),
            "tensors": len(file.tensors),
            "forged": list(committed(t, file.tensors)[1]),
        }
    lines = [f"{k:13} {v}" for k, v in data.items() if k != "metrics"]
    lines += [f"{k:13} {m['value']} at step {m['step']}, not verified"
              for k, m in data.get("metrics", {}).items()]  # fmt: skip
    print_result(args, data, lines)
    return OK


def _describe_run(path: str) -> dict[str, Any]:
    """Facts about a run; reads the history, not the tensors."""
    from dataclasses import asdict

    from ree.cli.metrics_shown import last_metrics
    from ree.training.metrics import read_metrics

    run = open_run(path)
    m = run.manifest
    last: StepRecord | None = run.records[-1] if run.records else None
    try:
        metrics = read_metrics(run.path, run.steps)
    except RunError as e:
        metrics = {}
        stderr_line(f"note: no metrics: {e.message}")
    return {
        "kind": "run",
        "steps": run.steps,
        "root": run.root_after(run.steps).hex(),
        "history_root": run.history.history_root.hex(),
        "batches_root": run.history.batches_root.hex(),
        "commitment": run.history.commitment.hex(),
        "loss": None if last is None else last.loss_value,
        "metrics": last_metrics(metrics),
        "program": m.program,
        "instance": m.instance,
        "numeric_id": m.numeric_id,
        "weights_root": m.weights_root,
        "initial_root": m.initial_root,
        "seed": m.seed,
        "contract": m.contract,
        "checkpoints": run.checkpoints,
        "checkpoint_every": m.checkpoint_every,
        "keep_batches": m.keep_batches,
        "data": [asdict(f) for f in m.data],
    }
