"""Where two runs part: the step, then the operator inside it, or the run that does not replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ree.errors import ReeError
from ree.replay import BatchSource, Mismatch, Replayer
from ree.run_directory import RunReader
from ree.traces.diff import Difference, compare, first_element
from ree.traces.trace import Trace

FIXED = ("contract", "numeric_id", "program", "instance", "weights_root", "initial_root", "seed",
         "data")  # fmt: skip


@dataclass
class RunDifference:
    """What two runs do not share.

    fixed: members of the manifests. step: the first whose record differs, 0 if none does; parts: of
    "batch", "state", "loss". operators: differences of the two traces of that step, from the last
    common state. wrong: by side, what the side's own replay of that step contradicts.
    """

    steps: tuple[int, int]
    fixed: tuple[str, ...] = ()
    initial: tuple[str, ...] = ()  # lines on tensors of S0
    step: int = 0
    parts: tuple[str, ...] = ()
    operators: tuple[Difference, ...] = ()
    replayed: tuple[str, ...] = ()  # sides whose replay was made
    wrong: dict[str, Mismatch] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not self.fixed and not self.step and self.steps[0] == self.steps[1]


SIDES = ("left", "right")


def diff_runs(
    left: RunReader,
    right: RunReader,
    *,
    batches: BatchSource | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> RunDifference:
    """Compare two runs: what is fixed, then records, then a replay of the first differing step.

    batches: where batches come from, by default those that each run keeps.
    """
    runs = (left, right)
    found = RunDifference((left.steps, right.steps))
    found.fixed = tuple(k for k in FIXED if getattr(left.manifest, k) != getattr(right.manifest, k))
    for s, (a, b) in enumerate(zip(left.records, right.records, strict=False), 1):
        if a != b:
            found.step = s
            found.parts = tuple(
                what for what, differs in (("batch", a.batch != b.batch),
                                           ("state", a.state_root != b.state_root),
                                           ("loss", a.loss != b.loss)) if differs
            )  # fmt: skip
            break
    if "initial_root" in found.fixed:
        found.initial = tuple(_initial(left, right))
        return found  # no common state to go on from
    if found.step:
        _inside(runs, found, batches, threads, isa)
    return found


def _initial(left: RunReader, right: RunReader) -> list[str]:
    """Tensors of S0 that differ."""
    a, b = (dict(zip(r.step.names.states, r.state(0), strict=True)) for r in (left, right))
    out = [f"{n}: only on the {'left' if n in a else 'right'}" for n in sorted(set(a) ^ set(b))]
    for n in sorted(set(a) & set(b)):
        if a[n].dtype != b[n].dtype or a[n].shape != b[n].shape:
            out.append(f"{n}: {a[n].dtype}{list(a[n].shape)} and {b[n].dtype}{list(b[n].shape)}")
        else:
            e = first_element(a[n], b[n])
            out += [f"{n}: {e}"] if e is not None else []
    return out


def _inside(
    runs: tuple[RunReader, RunReader],
    found: RunDifference,
    batches: BatchSource | None,
    threads: int | None,
    isa: str | None,
) -> None:
    """Replay the first differing step on both sides from the last common state."""
    s = found.step
    traces: list[Trace] = []
    for side, run in zip(SIDES, runs, strict=True):
        try:
            replayer = Replayer(run, batches, threads=threads, isa=isa)
            wrong = replayer.seek(s - 1)
            if wrong is None:
                traces.append(replayer.runner.trace(replayer.batch(s)))
                wrong = replayer.advance()
        except ReeError as e:
            found.notes.append(f"{side}: step {s} cannot be replayed: {e}")
            continue
        found.replayed += (side,)
        if wrong is not None:
            found.wrong[side] = wrong
    if len(traces) == 2:
        found.operators = operator_differences(traces[0], traces[1])


def operator_differences(left: Trace, right: Trace) -> tuple[Difference, ...]:
    """As `compare`; for traces of two programs also the first value whose bits differ.

    Two programs have no common numbering. Values are compared in program order, each with the next
    one on the other side: where the programs part, in what they compute or in what they say, is the
    first place where bits differ.
    """
    found = list(compare(left, right))
    if left.instance == right.instance or any(d.kind == "value" for d in found):
        return tuple(found)
    if left.level != "ops" or right.level != "ops":
        return tuple(found)
    value = _first_value(left, right)
    if value is not None:
        at = next((i for i, d in enumerate(found) if d.kind.startswith("output")), len(found))
        found.insert(at, value)
    return tuple(found)


def _first_value(left: Trace, right: Trace) -> Difference | None:
    for i, (a, b) in enumerate(zip(left.values, right.values, strict=False)):
        if a != b:
            x, y = left.sidecar.value(i), right.sidecar.value(i)
            return Difference("value", a.hex(), b.hex(), i, other_name(x, y), info=x or y)
    return None


def other_name(left: Any, right: Any) -> str:
    """What the right side has in place of the left one's operator, where that is another."""
    if left is None or right is None or (left.op, left.type) == (right.op, right.type):
        return ""
    return f"right: {right.op} : {right.type}"
