"""What a run writes down beside its history: learning rate, gradient norm, validation loss of its steps.

RUN/metrics.csv has a line per step. No commitment covers it and verification does not read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ree.errors import RunError
from ree.training.directory import MAX_HISTORY, read_bounded

METRICS = "metrics.csv"
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?(e[+-]?\d{1,3})?|-?inf|nan", re.ASCII)


@dataclass(frozen=True)
class Metrics:
    """Numbers of one step as float32; None where they were not computed."""

    learning_rate: float | None = None
    gradient_norm: float | None = None
    validation_loss: float | None = None

    def row(self, step: int) -> str:
        """Its line in the file, with as many digits as a float32 needs to be read back exactly."""
        numbers = ("" if x is None else str(np.float32(x)) for x in astuple(self))
        return ",".join((str(step), *numbers)) + "\n"


NAMES = tuple(f.name for f in fields(Metrics))
HEADER = ",".join(("step", *NAMES)) + "\n"


def encode_metrics(metrics: Mapping[int, Metrics]) -> str:
    """Lines of steps in order, under a header."""
    return HEADER + "".join(m.row(s) for s, m in sorted(metrics.items()))


def read_metrics(run: Path, steps: int) -> dict[int, Metrics]:
    """Metrics of the first `steps` steps, by step; RunError for a file that is not as it must be. A last
    line that was written in part is left out."""
    path = run / METRICS
    text = read_bounded(path, MAX_HISTORY).decode("utf-8", "replace")
    lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
    if lines[:1] != [HEADER]:
        raise RunError(f"'{path}': expected lines of {HEADER.strip()}")
    found: dict[int, Metrics] = {}
    for i, line in enumerate(lines[1:], 2):
        step, *values = line.rstrip("\n").split(",")
        good = (
            re.fullmatch(r"[1-9]\d{0,14}", step, re.ASCII) and int(step) not in found
            and len(values) == len(NAMES) and all(not v or _NUMBER.fullmatch(v) for v in values)
        )  # fmt: skip
        if not good:
            raise RunError(f"'{path}': line {i}: expected {HEADER.strip()}")
        found[int(step)] = Metrics(*(float(np.float32(v)) if v else None for v in values))
    return {s: m for s, m in found.items() if s <= steps}
