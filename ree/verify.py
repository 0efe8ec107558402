"""Verification: replay a program and compare with a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ree.program import Program
from ree.traces.diff import Difference, compare
from ree.traces.trace import Trace


@dataclass
class Report:
    """What a replay found: `same`, or the first difference."""

    same: bool
    level: str
    replayed: Trace
    differences: tuple[Difference, ...] = field(default_factory=tuple)


def verify(
    program: Program,
    trace: Trace,
    inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    values: Any = None,
    threads: int | None = None,
    isa: str | None = None,
) -> Report:
    """Replay `program` on `inputs` (default: its examples) at the trace's level and compare.

    values: the tensors the trace's file carries, if any; with them the report names the first
    differing element.
    """
    args, kwargs = _inputs(program, inputs)
    result = program.run(
        *args, **kwargs, trace=trace.level, threads=threads, isa=isa,
        keep_values=values is not None and trace.level == "ops",
    )  # fmt: skip
    assert result.trace is not None  # a level was given
    differences = tuple(compare(trace, result.trace, values, _replayed_values(result)))
    return Report(not differences, trace.level, result.trace, differences)


def _inputs(program: Program, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if inputs is None:
        return (), dict(program.examples)
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs), {}


def _replayed_values(result: Any) -> Any:
    return result
