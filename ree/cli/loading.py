"""What the command line names and several commands read: programs, runs, their batches, tokens, limits."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ree.cli.grammar import MAX_VALUES
from ree.cli.output import stderr_line
from ree.errors import InputError

if TYPE_CHECKING:
    from ree.program import Program
    from ree.training.directory import RunReader
    from ree.training.replay import BatchSource
    from ree.training.train_file import TrainFile

LEAST_TOKEN, MAX_TOKEN = 16, 256  # characters


def load_program(path: str) -> Program:
    """The program of an artifact or of a training run."""
    from pathlib import Path

    from ree.artifact import load
    from ree.training.directory import RunReader, is_run

    return RunReader(Path(path)).step.program if is_run(path) else load(path)


def open_run(path: str) -> RunReader:
    """A run, its notes told on stderr."""
    from pathlib import Path

    from ree.training.directory import RunReader

    run = RunReader(Path(path))
    for note in run.notes:
        stderr_line(f"note: {note}")
    return run


def script_batches(args: argparse.Namespace, *runs: RunReader) -> BatchSource | None:
    """Batches from --script, whose data files must be those of the runs; None without one."""
    from ree.training.loop import check_data

    if not args.script:
        return None
    file = script_file(args.script)
    data = file.data()
    for run in runs:
        check_data(run.manifest.data, data)

    def batch(step: int) -> Any:
        made = file.batch(step)
        return made if isinstance(made, tuple | list) else (made,)

    return batch


def script_file(path: str) -> TrainFile:
    """A TRAIN.py of which only batch() and data() are called."""
    from pathlib import Path

    from ree.training.train_file import TrainFile

    return TrainFile(Path(path), needs=("batch",))


def value_limit(args: argparse.Namespace) -> int:
    """Bytes of values that an ops trace carries: --max-values; InputError."""
    limit = MAX_VALUES if args.max_values is None else args.max_values
    if limit < 0:
        raise InputError(f"--max-values: expected at least 0, got {limit}")
    return int(limit) << 20


def values_fit(program: Program, inputs: Mapping[str, Any], limit: int) -> bool:
    """Whether all values of a run take `limit` bytes at most; says so if not."""
    missing = [n for n in program.names.inputs if n not in inputs]
    if missing:
        return False  # the run itself will say it
    arrays = [inputs[n] for n in program.names.inputs]
    types = program.instance(program.bind_symbols(arrays)).graph.value_types()
    size = sum(t.nbytes for t in types)
    if size > limit:
        stderr_line(f"values not stored: {size >> 20} MiB is over --max-values {limit >> 20}")
    return size <= limit


def load_token(option: str, text: str | None) -> str | None:
    """A token from the command line, or from a file that @ names; InputError."""
    if text is None:
        return None
    if text.startswith("@"):
        try:
            with open(text[1:], encoding="ascii") as f:
                text = f.read(MAX_TOKEN + 2).strip()
        except (OSError, ValueError) as e:
            raise InputError(f"{option}: cannot read '{text[1:]}'") from e
    if not LEAST_TOKEN <= len(text) <= MAX_TOKEN or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", text):
        raise InputError(f"{option}: expected {LEAST_TOKEN} to {MAX_TOKEN} letters, digits or ._~+/=-",
                         "openssl rand -hex 16")  # fmt: skip
    return text
