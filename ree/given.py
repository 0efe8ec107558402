"""What a caller may give for a program, a trace or inputs: the thing itself, or where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from ree.errors import InputError
from ree.files.inputs import read_inputs
from ree.files.traces import read_trace_file
from ree.program import Program, Result
from ree.traces.diff import Tensors
from ree.traces.files import TraceFile
from ree.traces.trace import Trace

Path = str | PathLike[str]


def program_of(given: Program | Path) -> Program:
    """A program, or that of an artifact; InputError for anything else."""
    if isinstance(given, Program):
        return given
    if not isinstance(given, str | PathLike):
        raise InputError(
            f"program: expected one, or the path of an artifact, got {type(given).__name__}"
        )
    from ree.artifact import load

    return load(given)


def trace_of(given: Trace | Result | TraceFile | Path) -> tuple[Trace, Tensors]:
    """A trace and the tensors that came with it; InputError where there is none."""
    if isinstance(given, str | PathLike):
        given = read_trace_file(given)
    if isinstance(given, TraceFile):
        return given.trace, given.tensors
    trace = given.trace if isinstance(given, Result) else given
    if not isinstance(trace, Trace):
        what = "a result of a run without a trace" if trace is None else type(trace).__name__
        raise InputError(f"trace: expected a trace, the result of a run or a path, got {what}",
                         'run it with trace="io" or trace="ops"' if trace is None else "")  # fmt: skip
    return trace, {}


def named_inputs(program: Program, path: Path | None) -> dict[str, Any]:
    """Inputs by name: a file's, or the program's examples."""
    return dict(program.examples) if path is None else read_inputs(path, program.names.inputs)


def inputs_of(program: Program, given: Any) -> Mapping[str, Any] | tuple[Any, ...]:
    """Inputs by name or by position: the program's examples, a file's, or those given."""
    if given is None or isinstance(given, str | PathLike):
        return named_inputs(program, given)
    if isinstance(given, Mapping):
        return given
    return tuple(given) if isinstance(given, tuple | list) else (given,)
