"""Metrics of a run as the command line shows them: last values, a picture of the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ree.cli.output import stderr_line
from ree.errors import RunError
from ree.training.metrics import Metrics


def last_metrics(metrics: Mapping[int, Metrics]) -> dict[str, Any]:
    """The last value of each metric in a float32's digits and its step, what is not finite as text."""
    found: dict[str, Any] = {}
    for s, m in sorted(metrics.items()):
        for name, x in asdict(m).items():
            if x is not None:
                found[name] = {
                    "step": s,
                    "value": float(str(np.float32(x))) if math.isfinite(x) else str(x),
                }
    return found


def plot_losses(path: Path, losses: Any, validated: Mapping[int, float]) -> bool:
    """A PNG of the losses, on validation batches too; says so where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        stderr_line(
            "note: no loss.png without matplotlib (pip install 'ree-ml[plot]'); losses.csv has the losses"
        )
        return False
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1)
    if validated:
        axes.plot(list(validated), list(validated.values()), "o-", markersize=3, linewidth=1)
        axes.legend(["training", "validation"])
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path, format="png")
    except OSError as e:
        raise RunError(f"cannot write '{path}': {e.strerror or e}") from e
    return True
