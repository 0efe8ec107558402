"""What the commands on training runs do: train and trace; verify, inspect and diff of a RUN/."""

from __future__ import annotations

import argparse
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ree.cli import DIFFERS, OK
from ree.cli.commands import progress
from ree.cli.metrics_shown import last_metrics, plot_losses
from ree.cli.output import emit, say
from ree.errors import EnvironmentError_, InputError, RunError
from ree.explanation import explain
from ree.printable import printable
from ree.runtime import settings

if TYPE_CHECKING:
    from ree.traces.history import StepRecord
    from ree.training.diff import RunDifference
    from ree.training.directory import RunReader
    from ree.training.replay import BatchSource
    from ree.training.train_file import TrainFile

SHOWN = 4  # differing inputs and outputs of a step that are listed
QUIET = 10.0  # seconds between lines of progress where there is no terminal


@contextmanager
def bar(text: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on a terminal, a line now and then elsewhere; call with (done, what)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    last = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as p:
        task = p.add_task("", total=total)

        def done(n: int, what: str) -> None:
            nonlocal last
            p.update(task, completed=n, description=printable(what))
            if not console.is_terminal and time.perf_counter() - last >= QUIET:
                last = time.perf_counter()
                say(f"{text} {n}/{total} {what}".rstrip())

        yield done


def train_command(args: argparse.Namespace) -> int:
    from ree.training.event_files import EventFiles
    from ree.training.loop import CHECKPOINT_EVERY, VALIDATE_EVERY, run_steps
    from ree.training.options import check_count, check_options, path_of
    from ree.training.step import compile_step
    from ree.training.train_file import TrainFile
    from ree.training.watching import Watch

    path, every = Path(args.output), args.checkpoint_every
    check_isa(args.isa)
    if args.threads is not None:
        settings.pool(args.threads)
    check_options(args.steps, 1 if every is None else every, path, args.resume)
    if args.validate_every is not None:
        check_count("validate_every", args.validate_every)
    if args.tensorboard is not None:
        EventFiles(path_of("tensorboard", args.tensorboard))
    if not args.resume and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"'{path}' exists", "continue it with --resume, or choose another name")
    if args.resume and not path.exists():
        raise RunError(f"no run at '{path}'", "leave out --resume to begin one")
    with progress("load"):
        file = TrainFile(Path(args.script))
        validates = callable(file.names.get("validation"))
        if args.validate_every is not None and not validates:
            raise InputError(f"--validate-every: '{args.script}' does not define validation()")
        model, optimizer, data = file.call("model"), file.call("optimizer"), file.data()
        example = file.batch(1)
    with progress("compile"):
        step = compile_step(model, file.names["loss"], optimizer, example, seed=file.seed,
                            accumulate=file.accumulate)  # fmt: skip
        validation = None
        if validates:
            from ree.training.validation import Validation

            validation = Validation(model, file.names["loss"], file.validation)
        model = None  # its tensors are in the step
    watch = Watch(
        step, validation, VALIDATE_EVERY if args.validate_every is None else args.validate_every,
        tensorboard=args.tensorboard, threads=args.threads, isa=args.isa,
    )  # fmt: skip
    times = []
    with bar("train", args.steps) as done:

        def stepped(s: int, loss: float) -> None:
            times.append(time.perf_counter())
            done(s, f"loss {loss:.5g}")

        result = run_steps(
            step, file.batch, args.steps, run=path, resume=args.resume,
            checkpoint_every=CHECKPOINT_EVERY if every is None else every,
            keep_batches=not args.no_keep_batches, data=data, threads=args.threads, isa=args.isa,
            progress=stepped, example=example, watch=watch,
        )  # fmt: skip
    assert result.history is not None  # a run has one
    for note in result.notes:
        say(f"note: {note}")
    # the first step waits for its kernels
    per_step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
    validated = {
        s: m.validation_loss for s, m in result.metrics.items() if m.validation_loss is not None
    }
    plotted = plot_losses(path / "loss.png", result.losses, validated)
    h = result.history
    data_out = {
        "run": str(path), "steps": h.steps, "resumed_from": result.resumed_from,
        "loss": float(result.losses[-1]), "root": result.root.hex(),
        "history_root": h.history_root.hex(), "batches_root": h.batches_root.hex(),
        "commitment": h.commitment.hex(), "seconds_per_step": per_step, "plot": plotted,
        "metrics": last_metrics(result.metrics),
    }  # fmt: skip
    each = "" if per_step is None else f", {1000 * per_step:.1f} ms each"
    resumed = f" from step {result.resumed_from}" if args.resume else ""
    emit(args, data_out, [
        f"wrote {path}: {h.steps} steps{resumed}{each}",
        f"loss        {float(result.losses[0]):.6g} to {float(result.losses[-1]):.6g}",
        f"root        {data_out['root']}",
        f"commitment  {data_out['commitment']}",
    ])  # fmt: skip
    return OK


def check_isa(name: str | None) -> None:
    """EnvironmentError_ unless this machine has the instruction set."""
    from ree import _core

    if name is not None and name not in _core.isa_names():
        raise EnvironmentError_(
            f"isa: expected one of {', '.join(_core.isa_names())}, got '{name[:20]}'"
        )


def open_run(path: str) -> RunReader:
    """A run, its notes told on stderr."""
    from ree.training.directory import RunReader

    run = RunReader(Path(path))
    for note in run.notes:
        say(f"note: {note}")
    return run


def script_batches(args: argparse.Namespace, *runs: RunReader) -> BatchSource | None:
    """Batches from --script, whose data files must be those of the runs; None without one."""
    from ree.training.loop import check_data

    if not args.script:
        return None
    file = script_file(args.script)
    data = file.data()
    for run in runs:
        check_data(run.manifest.data, data)

    def batch(step: int) -> Any:
        made = file.batch(step)
        return made if isinstance(made, tuple | list) else (made,)

    return batch


def refuse_random_batch(script: str, step: int) -> None:
    """InputError where a batch that differs was drawn from torch's generator: then it says nothing about
    the run."""
    drawn = script_file(script).draws(step)
    if drawn:
        raise InputError(
            f"step {step}: batch({step}) gives another batch here, which does not make the run false: it draws "
            f"from torch's random generator ({', '.join(drawn)}), whose numbers depend on the processor and "
            "its seed",
            "verify the kept batches (leave out --script); ree.random gives the same batches everywhere",
        )


def script_file(path: str) -> TrainFile:
    """A TRAIN.py of which only batch() and data() are called."""
    from ree.training.train_file import TrainFile

    return TrainFile(Path(path), needs=("batch",))


def verify_run_command(args: argparse.Namespace) -> int:
    from ree.training.replay import missing_probabilities, sample_steps, verify_run

    run = open_run(args.artifact)
    batches = script_batches(args, run)
    if args.steps and args.sample is not None:
        raise InputError("expected one of --steps and --sample, got both")
    seed = None
    if args.sample is not None:
        seed = secrets.randbits(63) if args.seed is None else args.seed
        chosen = sample_steps(run.steps, args.sample, seed)
    else:
        chosen = list(step_range(args.steps, run.steps))
    with bar("verify", len(chosen)) as done:
        count = iter(range(1, len(chosen) + 1))
        report = verify_run(run, chosen, batches=batches, threads=args.threads,
                            progress=lambda s: done(next(count), f"step {s}"))  # fmt: skip
    found = report.mismatch
    if found is not None and found.batch and batches is not None:
        refuse_random_batch(args.script, found.step)
    data: dict[str, Any] = {
        "same": report.same, "steps": run.steps, "chosen": list(report.chosen),
        "replayed": report.replayed, "commitment": run.history.commitment.hex(),
        "mismatch": None if found is None else asdict(found),
    }  # fmt: skip
    lines = []
    if args.sample is not None:
        missing = missing_probabilities(run.steps, len(chosen))
        data["seed"] = seed
        data["missing"] = {str(f): p for f, p in missing.items()}
        if found is None:
            lines += [f"sample of {len(chosen)} with seed {seed}: a run with a fraction f of bad steps is "
                      "missed with probability at most (1-f)^N"]  # fmt: skip
            lines += [f"  f = {f:<6g} {p:.3g}" for f, p in missing.items()]
    head = f"{len(report.chosen)} of {run.steps} steps, {report.replayed} replayed"
    if found is None:
        emit(args, data, [f"same: {head}; commitment {data['commitment']}", *lines])
        return OK
    emit(args, data, [f"differs: step {found.step}", *found.lines(), *lines])
    return DIFFERS


def step_range(text: str | None, steps: int) -> range:
    """Steps A to B of "A:B", both included; either may be left out. "A" is one step."""
    if not text:
        return range(1, steps + 1)
    first, colon, last = text.partition(":")
    ends = (first or "1", (last or str(steps)) if colon else first)
    if not all(e.isdecimal() and len(e) < 16 for e in ends):
        raise InputError(f"steps: expected A:B, got '{text[:40]}'")
    a, b = map(int, ends)
    if not 1 <= a <= b <= steps:
        raise InputError(f"steps: expected 1 to {steps}, got {text[:40]}")
    return range(a, b + 1)


def inspect_run(path: str) -> dict[str, Any]:
    """Facts about a run; reads the history, not the tensors."""
    from ree.training.metrics import read_metrics

    run = open_run(path)
    m = run.manifest
    last: StepRecord | None = run.records[-1] if run.records else None
    try:
        metrics = read_metrics(run.path, run.steps)
    except RunError as e:
        metrics = {}
        say(f"note: no metrics: {e.message}")
    return {
        "kind": "run",
        "steps": run.steps,
        "root": run.root_after(run.steps).hex(),
        "history_root": run.history.history_root.hex(),
        "batches_root": run.history.batches_root.hex(),
        "commitment": run.history.commitment.hex(),
        "loss": None if last is None else last.loss_value,
        "metrics": last_metrics(metrics),
        "program": m.program,
        "instance": m.instance,
        "numeric_id": m.numeric_id,
        "weights_root": m.weights_root,
        "initial_root": m.initial_root,
        "seed": m.seed,
        "contract": m.contract,
        "checkpoints": run.checkpoints,
        "checkpoint_every": m.checkpoint_every,
        "keep_batches": m.keep_batches,
        "data": [asdict(f) for f in m.data],
    }


def export_command(args: argparse.Namespace) -> int:
    """The last checkpoint's parameters and buffers by torch's names, or the model compiled with them."""
    from ree.training.trained import load_into, run_model, run_state

    out = Path(args.output)
    artifact = out.suffix == ".ree"
    if not artifact and out.suffix != ".safetensors":
        raise InputError(
            f"output: expected a name that ends in .safetensors or .ree, got '{out.name[:80]}'"
        )
    if artifact and not args.script:
        raise InputError("an artifact needs the model's code", "give it: --script TRAIN.py")
    if not artifact and args.script:
        raise InputError("--script is for an artifact", "weights need no code")
    state, weights, step, program = run_state(Path(args.run))
    if artifact:
        module, inputs = run_model(Path(args.script), state)
        load_into(state, module)
        from ree.compilation import compile

        with progress("compile"):
            compile(module.eval(), inputs).save(str(out))
    else:
        from ree.files.atomic import atomic_file
        from ree.files.safetensors import write_tensors_to
        from ree.training.trained import torch_tensors

        tensors = torch_tensors(state) | weights
        with atomic_file(out) as f:
            write_tensors_to(f, tensors, {"program": program, "step": str(step)})
    emit(
        args,
        {"output": str(out), "step": step, "program": program},
        [f"wrote {out}: the model after step {step}"],
    )
    return OK


def trace_command(args: argparse.Namespace) -> int:
    from ree.training.replay import trace_step

    run = open_run(args.run)
    batches = script_batches(args, run)
    with progress(f"trace step {args.step}"):
        made = trace_step(run, args.step, batches=batches, threads=args.threads)
    made.trace.save(args.output)
    data = {"step": args.step, "same": made.same, "root": made.trace.root.hex(),
            "io_root": made.trace.io_root.hex(), "values": len(made.trace.values),
            "program": made.trace.program.hex(), "instance": made.trace.instance.hex()}  # fmt: skip
    lines = [f"wrote {args.output}", f"root {data['root']}"]
    if not made.same:
        lines.append(
            f"differs: the step does not lead to the state that the run claims after {args.step}"
        )
    emit(args, data, lines)
    return OK if made.same else DIFFERS


def diff_runs_command(args: argparse.Namespace) -> int:
    from ree.training.diff import diff_runs

    left, right = open_run(args.left), open_run(args.right)
    batches = script_batches(args, left, right)
    with progress("compare"):
        d = diff_runs(left, right, batches=batches, threads=args.threads)
    data = json.loads(json.dumps(asdict(d), default=str)) | {"same": d.same}
    if d.same:
        emit(args, data, [f"same: {left.steps} steps, commitment {left.history.commitment.hex()}"])
        return OK
    emit(args, data, difference_lines(d))
    return DIFFERS


def difference_lines(d: RunDifference) -> list[str]:
    """What two runs do not share, for a person to read."""
    lines = [f"differs: {', '.join(x.replace('_', ' ') for x in d.fixed)}"] if d.fixed else []
    lines += [f"  S0 {x}" for x in d.initial[:SHOWN]]
    if len(d.initial) > SHOWN:
        lines.append(f"  and {len(d.initial) - SHOWN} more tensors of S0")
    if d.step:
        lines.append(f"first differing step: {d.step} ({', '.join(d.parts)})")
    elif d.steps[0] != d.steps[1]:
        short = min(d.steps)
        lines.append(
            f"steps: left {d.steps[0]}, right {d.steps[1]}; the first {short} are the same"
        )
    for side in d.replayed:
        wrong = d.wrong.get(side)
        if wrong is None:
            lines.append(f"{side} replays as it claims")
        else:
            lines += [f"{side} is wrong: step {wrong.step} does not replay", *wrong.lines()]
    for kind in ("input", "value", "output"):
        of_kind = [x for x in d.operators if x.kind == kind]
        for x in of_kind[:SHOWN]:
            lines += explain(x, "left", "right")
            lines += [f"  {x.name}"] if kind == "value" and x.name else []
        if len(of_kind) > SHOWN:
            lines.append(f"  and {len(of_kind) - SHOWN} more {kind}s")
    return lines + [f"note: {x}" for x in d.notes]
