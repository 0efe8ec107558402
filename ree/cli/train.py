"""`ree train`: a script of model, loss, optimizer and batches into a training run."""

from __future__ import annotations

import argparse
import time

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json, add_threads
from ree.cli.output import print_result, progress, progress_bar, stderr_line
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import InputError, PlatformError, RunError

HELP = "train TRAIN.py (it defines model(), loss(), optimizer() and batch()) into a run"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("script", metavar="TRAIN.py")
    parser.add_argument("-o", "--output", required=True, metavar="RUN")
    parser.add_argument(
        "--steps", type=int, required=True, metavar="N", help="in all, with those resumed"
    )
    parser.add_argument("--checkpoint-every", type=int, metavar="K",
                        help="steps (default 100); fixed when the run begins")  # fmt: skip
    parser.add_argument("--validate-every", type=int, metavar="K", help="steps between losses of "
                        "TRAIN.py's validation() batches (default 100)")  # fmt: skip
    parser.add_argument("--tensorboard", metavar="DIR", help="write TensorBoard files there")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the run's last checkpoint"
    )
    parser.add_argument("--no-keep-batches", action="store_true",
                        help="store digests of the batches only: verifying then needs --script")  # fmt: skip
    add_threads(parser)
    parser.add_argument("--isa", metavar="ISA", help="instruction set (default: the best there is)")


def _is_as_begun(args: argparse.Namespace, name: str) -> bool:
    """Whether what the command line says of a run is what the run, if it is there, began with."""
    from pathlib import Path

    from ree.training.directory import is_run, read_manifest

    if not args.resume or not is_run(args.output):
        return True
    given = not args.no_keep_batches if name == "keep_batches" else args.checkpoint_every
    return bool(getattr(read_manifest(Path(args.output)), name) == given)


RULES: tuple[Rule, ...] = (
    ("checkpoint_every", lambda a: _is_as_begun(a, "checkpoint_every"),
     "--checkpoint-every is fixed when a run begins: leave it out with --resume"),
    ("no_keep_batches", lambda a: _is_as_begun(a, "keep_batches"),
     "--no-keep-batches is fixed when a run begins: leave it out with --resume"),
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    refuse_ignored(args, RULES)
    from pathlib import Path

    from ree.cli.metrics_shown import last_metrics, plot_losses
    from ree.runtime import settings
    from ree.training.directory import RunReader
    from ree.training.event_files import EventFiles
    from ree.training.loop import CHECKPOINT_EVERY, VALIDATE_EVERY, check_more, run_steps
    from ree.training.options import check_count, check_options, path_of
    from ree.training.step import compile_step
    from ree.training.train_file import TrainFile
    from ree.training.watching import RunWatch

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
    if args.resume:
        check_more(path, RunReader(path).steps, args.steps)
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
    watch = RunWatch(
        step, validation, VALIDATE_EVERY if args.validate_every is None else args.validate_every,
        tensorboard=args.tensorboard, threads=args.threads, isa=args.isa,
    )  # fmt: skip
    times = []
    with progress_bar("train", args.steps) as done:

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
        stderr_line(f"note: {note}")
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
    print_result(args, data_out, [
        f"wrote {path}: {h.steps} steps{resumed}{each}",
        f"loss        {float(result.losses[0]):.6g} to {float(result.losses[-1]):.6g}",
        f"root        {data_out['root']}",
        f"commitment  {data_out['commitment']}",
    ])  # fmt: skip
    return OK


def check_isa(name: str | None) -> None:
    """PlatformError unless this machine has the instruction set."""
    from ree import _core

    if name is not None and name not in _core.isa_names():
        raise PlatformError(
            f"isa: expected one of {', '.join(_core.isa_names())}, got '{name[:20]}'"
        )
