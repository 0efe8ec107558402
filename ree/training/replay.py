"""Replaying a run: any of its steps, from the nearest checkpoint, compared with what it claims."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ree.compiler.ir import Kind
from ree.errors import InputError
from ree.kernels.opdef import Array
from ree.program import origin_of
from ree.traces.diff import ElementDifference, first_element
from ree.traces.history import state_root
from ree.traces.trace import Trace
from ree.training.directory import RunReader, digest_of
from ree.training.loop import batch_arrays, loss_bits
from ree.training.state_hash import StateHasher, unchanged_states
from ree.training.step import NonFiniteLoss, StepRunner

FRACTIONS = (0.5, 0.1, 0.01, 0.001)
BatchSource = Callable[[int], Sequence[Array]]


@dataclass(frozen=True)
class StepMismatch:
    """What a replayed step does not share with the run's claim.

    tensors: names of the state's tensors that differ, the one that the program writes first in front;
    None where the run did not keep their hashes.
    element: the first differing element of the first of them, when the run has a checkpoint there.
    """

    step: int
    state: bool = False
    loss: tuple[int, int] | None = None  # bits: claimed, replayed
    batch: bool = False
    stopped: str = ""  # why the replay could not make this step
    tensors: tuple[str, ...] | None = None
    element: ElementDifference | None = None
    operator: str = ""  # what writes the differing tensor that comes first in the program

    def lines(self) -> list[str]:
        """For a person to read."""
        out = []
        if self.stopped:
            out.append(f"  replay stops: {self.stopped}")
        if self.batch:
            out.append("  batch differs")
        if self.state and self.tensors is None:
            out.append("  state differs; its tensors' hashes are not kept")
        elif self.state and self.tensors is not None:
            shown = ", ".join(self.tensors[:8])
            more = f" and {len(self.tensors) - 8} more" if len(self.tensors) > 8 else ""
            out.append(f"  state differs in {len(self.tensors)} tensors: {shown}{more}")
        if self.operator:
            out.append(f"  first written: {self.operator}")
        if self.element is not None:
            out.append(f"  {(self.tensors or ('?',))[0]}: run and replay: {self.element}")
        if self.loss is not None:
            a, b = (np.uint32(x).view(np.float32) for x in self.loss)
            out.append(f"  loss differs: run {a!s} (0x{self.loss[0]:08x}), "
                       f"replay {b!s} (0x{self.loss[1]:08x})")  # fmt: skip
        return out


@dataclass(frozen=True)
class RunReport:
    """What a verification found: the first mismatch, or none.

    chosen: the steps that were asked for; replayed: all that were executed on the way.
    """

    mismatch: StepMismatch | None
    chosen: tuple[int, ...]
    replayed: int

    @property
    def same(self) -> bool:
        return self.mismatch is None

    def __bool__(self) -> bool:
        return self.same


class Replayer:
    """Executes the steps of a run in order, comparing each with the run's record."""

    def __init__(
        self,
        run: RunReader,
        batches: BatchSource | None = None,
        *,
        threads: int | None = None,
        isa: str | None = None,
        runner: StepRunner | None = None,
    ) -> None:
        self.run = run
        self.batches = batches or run.batch
        self.runner = runner or run.step.runner(threads=threads, isa=isa)
        self.at = -1  # the runner's state is that after this step
        self.executed = 0
        self.hashes: list[bytes] = []
        graph = run.step.graph
        self._hasher = StateHasher(
            graph.states, unchanged=unchanged_states(graph), threads=threads, isa=isa
        )

    def seek(self, step: int) -> StepMismatch | None:
        """Bring the state to that after `step`; the first mismatch on the way, if any."""
        nearest = self.run.nearest(step)
        if not nearest <= self.at <= step:
            self.runner.load(self.run.state(nearest))
            self._hasher.forget()
            self.at = nearest
        while self.at < step:
            found = self.advance()
            if found is not None:
                return found
        return None

    def batch(self, step: int) -> list[Array]:
        """The batch of a step, of the program's types."""
        return batch_arrays(self.run.step, tuple(self.batches(step)), step)

    def advance(self) -> StepMismatch | None:
        """Execute the next step; what it does not share with the run's record, if anything."""
        s = self.at + 1
        claim = self.run.records[s - 1]
        batch = self.batch(s)
        self.executed += 1
        if digest_of(batch) != claim.batch:
            return StepMismatch(s, batch=True)
        try:
            loss = loss_bits(self.runner.run(batch))
        except NonFiniteLoss as e:
            return StepMismatch(s, stopped=e.message)
        self.hashes = self._hasher(self.runner.state)
        self.at = s
        state = state_root(self.hashes) != claim.state_root
        if not state and loss == claim.loss:
            self.run.check_tensor_hashes(s, self.hashes)
            if s in self.run.checkpoints:
                self.run.state(s)  # RunError unless it is what its step claims
            return None
        found = StepMismatch(s, state, (claim.loss, loss) if loss != claim.loss else None)
        return self._located(found) if state else found

    def _located(self, found: StepMismatch) -> StepMismatch:
        """With the differing tensors of the state, as far as the run's files name them."""
        s, graph, names = found.step, self.run.step.graph, self.run.step.names.states
        claimed = self.run.tensor_hashes(s)
        if claimed is None:
            return found
        ix = [i for i, (a, b) in enumerate(zip(claimed, self.hashes, strict=True)) if a != b]
        ix.sort(key=lambda i: graph.outputs[i].index if graph.outputs[i].kind is Kind.VALUE else -1)
        element, operator, first = None, "", graph.outputs[ix[0]]
        if s in self.run.checkpoints:
            element = first_element(self.run.state(s)[ix[0]], self.runner.state[ix[0]])
        if first.kind is Kind.VALUE:
            node, o = origin_of(graph, first.index)
            facts = [
                x for x in (f"operator {node.op}", o.target or o.name, o.location, o.module) if x
            ]
            operator = f"{names[ix[0]]} by {', '.join(facts)}"
        return replace(
            found, tensors=tuple(names[i] for i in ix), element=element, operator=operator
        )


def verify_run(
    run: RunReader,
    steps: Sequence[int] | None = None,
    *,
    batches: BatchSource | None = None,
    threads: int | None = None,
    isa: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> RunReport:
    """Replay steps (default: all) and compare; stops at the first mismatch.

    batches: where batches come from, by default those that the run keeps. All files of the run are
    checked first; RunError where one is malformed, InputError for a step that the run lacks.
    """
    chosen = tuple(sorted(set(range(1, run.steps + 1) if steps is None else steps)))
    for s in chosen[:1] + chosen[-1:]:
        if not 1 <= s <= run.steps:
            raise InputError(f"steps: expected 1 to {run.steps}, got {s}")
    run.check_losses()
    replayer = Replayer(run, batches, threads=threads, isa=isa)
    if 0 in run.checkpoints:
        run.state(0)  # S0 is what the commitment says it is
    for s in chosen:
        found = replayer.seek(s - 1) or (replayer.advance() if replayer.at < s else None)
        if progress is not None:
            progress(s)
        if found is not None:
            return RunReport(found, chosen, replayer.executed)
    return RunReport(None, chosen, replayer.executed)


def sample_steps(steps: int, count: int, seed: int) -> list[int]:
    """`count` different steps of 1 to `steps`, chosen by a seed; all if there are no more."""
    if count < 1:
        raise InputError(f"sample: expected at least 1, got {count}")
    return sorted(random.Random(seed).sample(range(1, steps + 1), min(count, steps)))


def missing_probabilities(steps: int, count: int) -> dict[float, float]:
    """By fraction f of bad steps, an upper bound on the probability that a sample has none."""
    return {f: 0.0 if count >= steps else (1 - f) ** count for f in FRACTIONS}


@dataclass(frozen=True)
class StepTrace:
    """An operator-level trace of one step, and whether it leads to the state that the run claims."""

    trace: Trace
    same: bool


def trace_step(
    run: RunReader,
    step: int,
    *,
    batches: BatchSource | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> StepTrace:
    """Trace of a step by execution from the nearest checkpoint; every earlier step on the way must
    be as the run claims, InputError otherwise."""
    if not 1 <= step <= run.steps:
        raise InputError(f"step: expected 1 to {run.steps}, got {step}")
    replayer = Replayer(run, batches, threads=threads, isa=isa)
    found = replayer.seek(step - 1)
    if found is not None:
        raise InputError(f"step {found.step} does not replay: no true state before step {step}")
    trace = replayer.runner.trace(replayer.batch(step))
    return StepTrace(trace, state_after(trace, run) == run.root_after(step))


def state_after(trace: Trace, run: RunReader) -> bytes:
    """State root that a step's trace leads to: its outputs are the states, then the loss."""
    return state_root(trace.outputs[: len(run.step.names.states)])
