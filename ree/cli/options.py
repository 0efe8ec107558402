"""Options that would have no effect: refused, so that nobody believes they had."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from ree.errors import InputError

# command, option, when it has an effect, and what to say when it has not
RULES: tuple[tuple[str, str, Callable[[Namespace], object], str], ...] = (
    ("run", "trace_level", lambda a: a.trace, "--trace-level goes with --trace"),
    ("run", "max_values", lambda a: a.trace, "--max-values goes with --trace"),
    ("verify", "seed", lambda a: a.sample is not None, "--seed goes with --sample"),
    ("diff", "threads", lambda a: Path(a.left).is_dir(), "--threads is for training runs"),
    ("train", "checkpoint_every", lambda a: _fixed(a, "checkpoint_every"),
     "--checkpoint-every is fixed when a run begins: leave it out with --resume"),
    ("train", "no_keep_batches", lambda a: _fixed(a, "keep_batches"),
     "--no-keep-batches is fixed when a run begins: leave it out with --resume"),
    ("demo", "artifact", lambda a: not a.training, "--training has a run of its own: give no artifact"),
    ("demo", "inputs", lambda a: a.artifact, "--inputs goes with an artifact"),
    ("job", "job", lambda a: a.action != "post", "job post names the job itself: give none"),
    ("job", "terms", lambda a: a.action == "post", "--terms is for job post"),
    ("job", "provider", lambda a: a.action in ("challenge", "respond"),
     "--provider is for job challenge and job respond"),
    ("job", "allow_short_windows", lambda a: a.action in ("post", "accept", "challenge", "respond"),
     "--allow-short-windows is for what puts money on terms"),
    ("job", "prices", lambda a: a.action in ("post", "accept", "challenge", "respond"),
     "--prices is for what puts money on terms"),
    ("job", "dry_run", lambda a: a.action == "accept", "--dry-run is for job accept"),
    ("job", "watch", lambda a: a.action == "respond", "--watch is for job respond"),
    ("job", "artifact", lambda a: a.action not in ("claim", "status"),
     "--artifact has no effect on job claim and job status"),
    ("job", "inputs", lambda a: a.artifact, "--inputs goes with --artifact"),
)  # fmt: skip


def _fixed(args: Namespace, name: str) -> bool:
    """Whether what the command line says of a run is what the run, if it is there, began with."""
    from ree.training.directory import is_run, read_manifest

    if not args.resume or not is_run(args.output):
        return True
    given = not args.no_keep_batches if name == "keep_batches" else args.checkpoint_every
    return bool(getattr(read_manifest(Path(args.output)), name) == given)


def refuse_ignored(args: Namespace) -> None:
    """InputError for an option that was given and would be ignored."""
    for command, option, has_effect, text in RULES:
        if args.command == command and getattr(args, option) not in (None, False):
            if not has_effect(args):
                raise InputError(text)
    if args.command == "run" and args.output and args.output == args.trace:
        raise InputError("--output and --trace: expected two files, got one")
