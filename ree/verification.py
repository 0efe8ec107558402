"""Verification: replay a program and compare with a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ree.compiler.frontend.torch_types import is_tensor, to_numpy
from ree.errors import public
from ree.given import Path, inputs_of, program_of, trace_of
from ree.program import Program, Result
from ree.runtime.hashing import fast_body_root
from ree.traces.diff import Difference, Tensors, compare
from ree.traces.files import TraceFile
from ree.traces.format import StoredTensors
from ree.traces.tensor import tensor_hash
from ree.traces.trace import Sidecar, Trace


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
    sound, forged = committed(trace, carried)
    claim = replace(trace, sidecar=Sidecar())  # names and source lines are those of the replay
    differences = compare(claim, result.trace, sound, replayed_tensors(result))
    same = trace.root == result.trace.root and not differences and not forged
    return Report(same, result.trace, differences, forged)


def replayed_tensors(result: Result) -> dict[tuple[str, int], Any]:
    """Tensors of a run, keyed as a trace file keys them."""
    out: dict[tuple[str, int], Any] = {("value", v): x for v, x in result.values.items()}
    out.update({("output", i): as_array(x) for i, x in enumerate(result.outputs)})
    return out


def as_array(x: Any) -> Any:
    """An output as an array; NumPy has no bfloat16, whose bits are uint16."""
    return to_numpy(x) if is_tensor(x) else np.asarray(x)


def committed(trace: Trace, tensors: Tensors) -> tuple[dict[tuple[str, int], Any], tuple[str, ...]]:
    """The carried tensors that are what a trace commits to, and the names of those that are not."""
    sound: dict[tuple[str, int], Any] = {}
    forged = []
    for key in tensors:
        try:
            x = tensors[key]
            checked = isinstance(tensors, StoredTensors) and tensors.trace == trace
            ok = checked or _matches(trace, key, x)
        except ValueError:
            ok = False
        if ok:
            sound[key] = x
        else:
            forged.append(f"{key[0]} {key[1]}")
    return sound, tuple(forged)


def _matches(trace: Trace, key: tuple[str, int], x: Any) -> bool:
    """Whether a tensor has its hash; ValueError if it can have none."""
    kind, index = key
    hashes = {"input": trace.inputs, "output": trace.outputs, "value": trace.values}.get(kind, ())
    return 0 <= index < len(hashes) and (tensor_hash(x, body_root=fast_body_root) == hashes[index])
