"""Where two runs part: the step, then the operator inside it, or the run that does not replay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ree.errors import ReeError
from ree.kernels.opdef import Array
from ree.traces.diff import Difference, Tensors, compare, first_element
from ree.traces.trace import Trace, ValueInfo
from ree.training.directory import RunReader
from ree.training.replay import BatchSource, Replayer, StepMismatch

FIXED = ("contract", "numeric_id", "program", "instance", "weights_root", "initial_root", "seed",
         "data")  # fmt: skip
MAX_VALUES = 256 << 20


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
    wrong: dict[str, StepMismatch] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not self.fixed and not self.step and self.steps[0] == self.steps[1]

    def __bool__(self) -> bool:
        return self.same


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
    made: list[tuple[Trace, Tensors]] = []
    for side, run in zip(SIDES, runs, strict=True):
        try:
            replayer = Replayer(run, batches, threads=threads, isa=isa)
            wrong = replayer.seek(s - 1)
            if wrong is None:
                batch = replayer.batch(s)
                trace = replayer.runner.trace(batch)
                made.append((trace, _tensors(run, [*replayer.runner.state, *batch], threads, isa)))
                wrong = replayer.advance()
        except ReeError as e:
            found.notes.append(f"{side}: step {s} cannot be replayed: {e.message}")
            continue
        found.replayed += (side,)
        if wrong is not None:
            found.wrong[side] = wrong
    if len(made) == 2:
        (left, a), (right, b) = made
        found.operators = tuple(_named(d, runs[0]) for d in operator_differences(left, right, a, b))


def _named(d: Difference, run: RunReader) -> Difference:
    """With the name of a step's input (states, then batch) or output (states, then loss)."""
    names = run.step.names
    of_kind = {"input": (*names.states, *names.inputs), "output": names.outputs}.get(d.kind, ())
    return replace(d, name=of_kind[d.index]) if 0 <= d.index < len(of_kind) else d


def _tensors(
    run: RunReader, inputs: list[Array], threads: int | None, isa: str | None
) -> dict[tuple[str, int], Array]:
    """Inputs (state, then batch) and values of a step, keyed as a trace file keys them; inputs alone
    where the values would take more than MAX_VALUES bytes."""
    out = {("input", i): x.copy() for i, x in enumerate(inputs)}
    if sum(t.nbytes for t in run.step.graph.value_types()) <= MAX_VALUES:
        result = run.step.as_function().run(
            *inputs, trace="ops", threads=threads, isa=isa, keep_values=True
        )
        out.update({("value", v): x for v, x in result.values.items()})
    return out


def operator_differences(
    left: Trace, right: Trace, left_tensors: Tensors, right_tensors: Tensors
) -> tuple[Difference, ...]:
    """As `compare`; for traces of two programs also the first value whose bits differ.

    Two programs have no common numbering. Values are compared in program order, each with the next
    one on the other side: where the programs part, in what they compute or in what they say, is the
    first place where bits differ.
    """
    found = list(compare(left, right, left_tensors, right_tensors))
    if left.instance == right.instance or any(d.kind == "value" for d in found):
        return tuple(found)
    if left.level != "ops" or right.level != "ops":
        return tuple(found)
    value = _first_value(left, right, left_tensors, right_tensors)
    if value is not None:
        at = next((i for i, d in enumerate(found) if d.kind.startswith("output")), len(found))
        found.insert(at, value)
    return tuple(found)


def _first_value(
    left: Trace, right: Trace, left_tensors: Tensors, right_tensors: Tensors
) -> Difference | None:
    for i, (a, b) in enumerate(zip(left.values, right.values, strict=False)):
        if a != b:
            x, y = left.sidecar.value(i), right.sidecar.value(i)
            p, q = left_tensors.get(("value", i)), right_tensors.get(("value", i))
            element = None if p is None or q is None else first_element(p, q)
            return Difference(
                "value", a.hex(), b.hex(), i, other_name(x, y), info=x or y, element=element
            )
    return None


def other_name(left: ValueInfo | None, right: ValueInfo | None) -> str:
    """What the right side has in place of the left one's operator, where that is another."""
    if left is None or right is None or (left.op, left.type) == (right.op, right.type):
        return ""
    return f"right: {right.op} : {right.type}"
