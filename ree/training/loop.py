"""Training: a step's program run over and over, with the history that commits to every step."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.errors import Foreign, InputError, ReeError, RunError, only_ree_errors
from ree.kernels.opdef import Array
from ree.traces.history import History, StepRecord, state_root
from ree.training.directory import DataFile, digest_of, manifest_of
from ree.training.interrupts import Interrupted, deferred
from ree.training.metrics import Metrics
from ree.training.options import check_functions, check_options, path_of, paths_of
from ree.training.state_hash import StateHasher, unchanged_states
from ree.training.watching import Callback, RunWatch
from ree.training.writer import RunWriter, create_run

if TYPE_CHECKING:
    from ree.training.step import Step, StepRunner

CHECKPOINT_EVERY = VALIDATE_EVERY = 100
Batch = Callable[[int], Any]  # step 1, 2, ... -> tuple of tensors; any step, in any order
Progress = Callable[[int, float], None]  # after a step: its number, its loss


@dataclass
class TrainResult:
    """A finished run: its step, the final state by name, losses (float32) of all its steps."""

    step: Step
    state: dict[str, Array]
    losses: Array
    history: History | None
    resumed_from: int = 0
    notes: list[str] = field(default_factory=list)
    metrics: dict[int, Metrics] = field(default_factory=dict)  # by step

    def __repr__(self) -> str:
        loss = f", loss {float(self.losses[-1]):.6g}" if len(self.losses) else ""
        return f"TrainResult({len(self.losses)} steps, {len(self.state)} tensors{loss})"

    @property
    def root(self) -> bytes:
        """State root after the last step."""
        return self.step.state_root(list(self.state.values()))

    def load_into(self, module: Any) -> None:
        """Copy trained parameters and buffers into a module of the same architecture, in place.

        InputError, before anything is changed, for a name, shape or dtype that does not fit.
        """
        from ree.training.trained import load_into

        load_into(self.state, module)


def train(
    model: Any,
    loss: Callable[..., Any],
    optimizer: Any,
    batch: Batch,
    steps: int,
    *,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int = CHECKPOINT_EVERY,
    keep_batches: bool = True,
    data: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    accumulate: int = 1,
    history: bool = True,
    threads: int | None = None,
    isa: str | None = None,
    progress: Progress | None = None,
    validate: Batch | None = None,
    validate_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    tensorboard: str | os.PathLike[str] | None = None,
) -> TrainResult:
    """Train a torch module for steps 1 to `steps`, loss(model, batch(s)) in step s.

    run: directory for history, checkpoints and batches; resume continues what is there.
    data: files that the batches are made from; their digests are written down. history: False
    leaves out all hashing when there is no run directory. The module itself is not changed.
    validate: validate(s) gives a batch, or a list of batches of one shape, whose mean loss in evaluation
    mode is written down every validate_every steps (default 100). callbacks: called after each step with
    a StepInfo; one that returns True ends the run there. tensorboard: a directory for its files.
    InputError, CaptureError, RunError, PlatformError; what the given functions raise passes through.
    """
    from ree.training.step import compile_step

    foreign = Foreign()
    with only_ree_errors(foreign):
        check_options(steps, checkpoint_every, run, resume, keep_batches, history)
        check_functions(loss, batch, progress, validate, validate_every, callbacks)
        files = data_files(paths_of(data))
        batch = foreign.wrap(batch)
        example = batch(1)
        compiled = compile_step(model, loss, optimizer, example, seed=seed, accumulate=accumulate)
        validation = None
        if validate is not None:
            from ree.training.validation import Validation

            validation = Validation(model, loss, foreign.wrap(validate))
        watch = RunWatch(
            compiled, validation, validate_every or VALIDATE_EVERY, [*map(foreign.wrap, callbacks)],
            path_of("tensorboard", tensorboard), threads=threads, isa=isa,
        )  # fmt: skip
        result = run_steps(
            compiled, batch, steps, example=example, run=run, resume=resume,
            checkpoint_every=checkpoint_every, keep_batches=keep_batches, data=files, history=history,
            threads=threads, isa=isa, progress=progress and foreign.wrap(progress), watch=watch,
        )  # fmt: skip
    for note in result.notes:
        warnings.warn(note, stacklevel=2)
    return result


def run_steps(
    step: Step,
    batch: Batch,
    steps: int,
    *,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int = CHECKPOINT_EVERY,
    keep_batches: bool = True,
    data: Sequence[DataFile] = (),
    history: bool = True,
    threads: int | None = None,
    isa: str | None = None,
    progress: Progress | None = None,
    runner: StepRunner | None = None,
    example: Any = None,
    watch: RunWatch | None = None,
) -> TrainResult:
    """As `train`, for a compiled step. runner: one to use instead of step.runner(). example: what batch(1)
    returned when the step was compiled; it is compared with the next call."""
    check_options(steps, checkpoint_every, run, resume, keep_batches, history)
    watch = watch or RunWatch(step)
    runner = runner or step.runner(threads=threads, isa=isa)  # refuses bad options: no run yet
    made_twice = _MadeTwice(step)
    if example is not None:
        made_twice.expect(1, digest_of(batch_arrays(step, example, 1)))
    writer = None if run is None else _writer(Path(run), step, resume, checkpoint_every,
                                              keep_batches, data, steps)  # fmt: skip
    held: AbstractContextManager[Any] = writer or nullcontext()
    with held, closing(watch), deferred() as stopped:
        runner.load(writer.take_state() if writer else step.initial)
        records = writer.records if writer else []
        made = writer.history if writer else None
        if writer is None and history:
            made = History(manifest_of(step, checkpoint_every, keep_batches, data).header())
        graph = step.graph
        hasher = StateHasher(
            graph.states, unchanged=unchanged_states(graph), threads=threads, isa=isa
        )
        losses = [r.loss_value for r in records]
        start = len(losses)
        watch.open(start, writer.metrics if writer else {})
        if start:  # a batch that goes on otherwise than the run did
            made_twice.expect(1, records[0].batch)
            made_twice.expect(start, records[-1].batch)
            with _state_kept(writer, runner, start):
                made_twice.see(start, batch_arrays(step, batch(start), start))
        for s in range(start + 1, steps + 1):
            if stopped:
                break
            with _state_kept(writer, runner, s):
                arrays = batch_arrays(step, batch(s), s)
                made_twice.see(s, arrays)
                if writer is not None:
                    writer.keep_batch(s, arrays)
                value = runner.run(arrays)
            losses.append(float(value))
            if made is not None:
                hashes = hasher(runner.state)
                record = StepRecord(state_root(hashes), loss_bits(value), digest_of(arrays))
                if writer is None:
                    made.append(record)
                else:
                    writer.append(record, hashes)
            with _state_kept(writer, runner, s, after=True):
                try:
                    watch.see(s, runner)
                finally:
                    if (
                        writer is not None and s in watch.metrics
                    ):  # before a checkpoint to resume at
                        writer.append_metrics(s, watch.metrics[s])
                if writer is not None and s % writer.manifest.checkpoint_every == 0:
                    writer.checkpoint(runner.state)
                if progress is not None:
                    progress(s, float(value))
                if watch.tell(s, float(value), runner):
                    break
        state = dict(zip(step.names.states, runner.state, strict=True))
        notes = made_twice.notes
        if writer is not None:
            writer.checkpoint(runner.state)
            writer.finish()
            notes = writer.notes + notes
        if stopped:
            raise Interrupted(stopped[0], len(losses))
    return TrainResult(step, state, np.array(losses, np.float32), made, start, notes, watch.metrics)


class _MadeTwice:
    """Notices a batch() that does not give the same tensors again, and targets that are ignored in parts."""

    def __init__(self, step: Step) -> None:
        self._step, self._expected, self.notes = step, dict[int, bytes](), list[str]()
        self._ragged = False

    def expect(self, s: int, digest: bytes) -> None:
        """The digest of a batch as it was made before."""
        if self._expected.setdefault(s, digest) != digest:
            self._note(s)

    def see(self, s: int, arrays: Sequence[Array]) -> None:
        """A batch as it is made now."""
        if s in self._expected and self._expected[s] != digest_of(arrays):
            self._note(s)
        if self._step.divisors and not self._ragged:
            self._ragged = self._step.divisors.differ(_parts(arrays, self._step.accumulate))
            if self._ragged:
                self.notes.append(
                    f"step {s}: parts of the batch have different numbers of targets that count; accumulate "
                    "averages the parts' mean losses, so targets of shorter parts weigh more"
                )

    def _note(self, s: int) -> None:
        text = (f"batch({s}) gave other tensors when it was called again: it is no function of the step, or "
                "draws from a random generator that differs between processors (see ree.random); a resumed "
                "run goes on with other batches than a straight one, and verify --script will not "
                "find them")  # fmt: skip
        if not any(n.startswith("batch(") for n in self.notes):
            self.notes.append(text)


def _parts(arrays: Sequence[Array], k: int) -> list[list[Any]]:
    """A batch cut into k parts, as torch tensors."""
    from ree.compiler.frontend.torch_types import to_torch

    cut = [np.split(x, k) for x in arrays]
    return [[to_torch(x[j]) for x in cut] for j in range(k)]


def check_more(path: Path, have: int, steps: int) -> None:
    """InputError if a run that is to be continued has more steps already."""
    if have > steps:
        raise InputError(f"steps: the run '{path}' has {have} already, got {steps}")


def _writer(
    path: Path, step: Step, resume: bool, checkpoint_every: int, keep_batches: bool,
    data: Sequence[DataFile], steps: int,
) -> RunWriter:  # fmt: skip
    """The writer of a new run, or of one that is there and fits."""
    if not resume:
        create_run(path, step, checkpoint_every, keep_batches, data)
        return RunWriter(path, step)
    if not path.exists():
        raise RunError(f"no run at '{path}'", "leave out --resume to begin one")
    writer = RunWriter(path, step)
    try:
        m = writer.manifest
        for name, got in (("program", step.program_hash), ("instance", step.instance.digest),
                          ("weights_root", step.weights_root),
                          ("numeric_id", step.instance.numeric_id)):  # fmt: skip
            if getattr(m, name) != got.hex():
                what = name.replace("_", " ")
                raise RunError(f"run '{path}' is of another {what}: it has "
                               f"{getattr(m, name)[:16]}..., now it is {got.hex()[:16]}...")  # fmt: skip
        check_data(m.data, data)
        check_more(path, writer.history.steps, steps)
    except BaseException:
        writer.close()
        raise
    return writer


@contextmanager
def _state_kept(
    writer: RunWriter | None, runner: StepRunner, s: int, after: bool = False
) -> Iterator[None]:
    """Name the step that fails, and keep the state before it, or after it where what follows it fails. A run
    can go on from there, or, where the step had begun to overwrite the state, from the checkpoint before."""
    try:
        yield
    except Exception as e:
        kept = writer if runner.intact else None
        if kept is not None:
            with suppress(ReeError):  # the error may be that the disk is full
                kept.checkpoint(runner.state)
                kept.finish()
        if not isinstance(e, ReeError) or isinstance(e, RunError):
            raise
        hint = (
            f"the state {'after' if after else 'before'} step {s} is kept in '{kept.path}'"
            if kept
            else e.hint
        )
        raise InputError(f"step {s}: {e.message}", hint) from e


def loss_bits(value: Any) -> int:
    """Bits of a float32 loss."""
    return int(np.asarray(value, np.float32).view(np.uint32))


def batch_arrays(step: Step, value: Any, s: int) -> list[Array]:
    """What batch(s) returned as arrays of the step's types; InputError where it does not fit."""
    try:
        return step.batch(list(value) if isinstance(value, tuple | list) else [value])
    except InputError as e:
        raise InputError(f"batch({s}): {e.message}", e.hint) from e


def data_files(paths: Sequence[str | os.PathLike[str]], base: Path | None = None) -> list[DataFile]:
    """Size and SHA-256 of files, named relative to `base` where they lie below it."""
    out = []
    for p in paths:
        path = Path(p)
        if base is not None and not path.is_absolute():
            path = base / path
        try:
            with open(path, "rb") as f:
                digest = hashlib.file_digest(f, "sha256").hexdigest()
                size = os.fstat(f.fileno()).st_size
        except OSError as e:
            raise InputError(f"data file '{p}': {e.strerror}") from e
        inside = base is not None and path.resolve().is_relative_to(base.resolve())
        name = str(path.resolve().relative_to(base.resolve())) if inside and base else path.name
        out.append(DataFile(name, size, digest))
    return out


def check_data(want: Sequence[DataFile], got: Sequence[DataFile]) -> None:
    """InputError, naming the file, unless the data files are those that a run began with."""
    now = {f.name: f for f in got}
    for f in want:
        if f.name not in now:
            raise InputError(f"data file '{f.name}' is part of the run but not given")
        if now[f.name] != f:
            raise InputError(
                f"data file '{f.name}' changed: expected sha256 {f.sha256[:16]}... of {f.bytes} bytes, "
                f"got {now[f.name].sha256[:16]}... of {now[f.name].bytes}"
            )
    extra = set(now) - {f.name for f in want}
    if extra:
        raise InputError(f"data file '{min(extra)}' is not part of the run")
