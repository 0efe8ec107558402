"""Verification: replay a program and compare with a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ree.compiler.frontend.torch_types import is_tensor, to_numpy
from ree.errors import InputError, public
from ree.given import Path, inputs_of, program_of, trace_of
from ree.program import Program, Result, device_name
from ree.runtime.hashing import fast_body_root
from ree.runtime.session import Session, State
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
    state: State | None = None,
) -> Report:
    """Replay `program` on `inputs` (default: its examples) at the trace's level and compare.

    program: one, or the path of an artifact. trace: one, the result of a run, a trace file or its path.
    inputs: a tuple, a dict by name, one tensor, or the path of a file. tensors: those the trace's file
    carries, if any; with them a report names the first differing element. state: of a program with
    states, those that the run began with, as `Session` takes them (default: those of the program).
    InputError when the inputs do not fit the program, or when the run began with another state.
    """
    program = program_of(program)
    trace, carried = trace_of(trace)
    carried = tensors or carried
    given = inputs_of(program, inputs)
    keep = bool(carried) and trace.level == "ops"
    if program.graph.states:
        result = session_run(
            program, given, state, threads=threads, isa=isa, device=device, keep_values=keep
        )
        assert result.trace is not None
        _check_beginning(program, trace, result.trace)
        if trace.level == "io":
            result.trace = result.trace.at_io_level()
    elif state is not None:
        raise InputError("state: the program has none")
    else:
        options: dict[str, Any] = {
            "trace": trace.level, "threads": threads, "isa": isa, "device": device,
            "keep_values": keep,
        }  # fmt: skip
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


def session_run(
    program: Program,
    inputs: Mapping[str, Any] | Sequence[Any],
    state: State | None,
    *,
    threads: int | None = None,
    isa: str | None = None,
    device: str | None = None,
    keep_values: bool = False,
) -> Result:
    """One run of a program with states from `state` (default: those of the program), traced; its outputs are
    the new states and what forward returns. InputError where there is no state or it does not fit."""
    if device_name(device) not in (None, "cpu"):
        raise InputError(f"a program with states runs on the CPU, not on {device}")
    if state is None and not program.initial:
        raise InputError("the program does not say what its states are at first",
                         "give the state that the run begins with: --state FILE, state=...")  # fmt: skip
    session = Session(program, state, threads=threads, isa=isa)
    named = isinstance(inputs, Mapping)
    values = program.flat((), inputs, by_name=True) if named else program.flat(inputs, {})  # type: ignore[arg-type]
    return session.traced(program.arrays(values), keep_values)


def _check_beginning(program: Program, claim: Trace, replay: Trace) -> None:
    """InputError where a replay began with other states than a trace of this program: it says nothing of it."""
    if claim.program != replay.program or len(claim.inputs) != len(replay.inputs):
        return  # that is what differs
    for name, theirs, ours in zip(program.names.states, claim.inputs, replay.inputs, strict=False):
        if theirs != ours:
            raise InputError(
                f"state '{name}': expected the one of hash {theirs.hex()[:16]}, with which the run began, "
                f"got {ours.hex()[:16]}",
                "give the state before that run, as session.save writes it: --state FILE, state=...",
            )


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
