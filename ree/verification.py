"""Verification: replay a program and compare with a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ree.compiler.torch_types import to_numpy
from ree.errors import public
from ree.given import Path, inputs_of, program_of, trace_of
from ree.program import Program, Result, fast_body_root
from ree.traces.diff import Difference, Tensors, compare
from ree.traces.files import TraceFile
from ree.traces.tensor import tensor_hash
from ree.traces.trace import Trace


@dataclass(frozen=True)
class Report:
    """What a replay found: `same`, or the differences, first differing value first named.

    `forged` names tensors that the trace's file carries but that do not have the hash the trace
    commits to.
    """

    same: bool
    replayed: Trace
    differences: tuple[Difference, ...] = ()
    forged: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.same


@public
def verify(
    program: Program | Path,
    trace: Trace | Result | TraceFile | Path,
    inputs: Sequence[Any] | Mapping[str, Any] | Path | Any = None,
    *,
    tensors: Tensors | None = None,
    threads: int | None = None,
    isa: str | None = None,
    device: str | None = None,
) -> Report:
    """Replay `program` on `inputs` (default: its examples) at the trace's level and compare.

    program: one, or the path of an artifact. trace: one, the result of a run, a trace file or its path.
    inputs: a tuple, a dict by name, one tensor, or the path of a file. tensors: those the trace's file
    carries, if any; with them a report names the first differing element. InputError when the inputs
    do not fit the program.
    """
    program = program_of(program)
    trace, carried = trace_of(trace)
    carried = tensors or carried
    options: dict[str, Any] = {
        "trace": trace.level, "threads": threads, "isa": isa, "device": device,
        "keep_values": bool(carried) and trace.level == "ops",
    }  # fmt: skip
    given = inputs_of(program, inputs)
    if isinstance(given, Mapping):
        result = program.run_named(given, **options)
    else:
        result = program.run(*given, **options)
    assert result.trace is not None  # a level was given
    forged = tuple(_forged(trace, carried))
    differences = compare(trace, result.trace, _sound(trace, carried), replayed_tensors(result))
    return Report(not differences and not forged, result.trace, differences, forged)


def replayed_tensors(result: Result) -> dict[tuple[str, int], Any]:
    """Tensors of a run, keyed as a trace file keys them."""
    out: dict[tuple[str, int], Any] = {("value", v): x for v, x in result.values.items()}
    out.update({("output", i): as_array(x) for i, x in enumerate(result.outputs)})
    return out


def as_array(x: Any) -> Any:
    """An output as an array; NumPy has no bfloat16, whose bits are uint16."""
    return to_numpy(x) if type(x).__module__.startswith("torch") else np.asarray(x)


def _matches(trace: Trace, key: tuple[str, int], x: Any) -> bool:
    hashes = {"input": trace.inputs, "output": trace.outputs, "value": trace.values}[key[0]]
    try:
        return tensor_hash(x, body_root=fast_body_root) == hashes[key[1]]
    except ValueError:
        return False


def committed(trace: Trace, tensors: Tensors) -> tuple[dict[tuple[str, int], Any], tuple[str, ...]]:
    """The carried tensors that are what a trace commits to, and the names of those that are not."""
    return _sound(trace, tensors), tuple(_forged(trace, tensors))


def _forged(trace: Trace, tensors: Tensors) -> list[str]:
    return [f"{kind} {i}" for (kind, i), x in tensors.items() if not _matches(trace, (kind, i), x)]


def _sound(trace: Trace, tensors: Tensors) -> dict[tuple[str, int], Any]:
    """The carried tensors that are what the trace commits to."""
    return {k: x for k, x in tensors.items() if _matches(trace, k, x)}
