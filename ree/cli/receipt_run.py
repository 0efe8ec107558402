"""A receipt where a run is expected: what it claims, executed as a run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ree.cli.output import progress, progress_bar
from ree.cli.receipt_checked import is_json, read_receipt
from ree.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from ree.cli.grammar import Parser
    from ree.generation.claim import Text
    from ree.generation.model import LanguageModel
    from ree.generation.receipt import Receipt
    from ree.program import Program
    from ree.traces.history import History


def add_model(parser: Parser) -> None:
    parser.add_argument("--model", metavar="ART.ree", help="of a receipt: the model's artifact")


def run_path(args: argparse.Namespace) -> str:
    """The path of `args.artifact`; of a receipt that of its claim's run, gone when the process is."""
    if not _is_receipt(args):
        return str(args.artifact)
    import atexit
    import shutil
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp(prefix="ree-claim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _, model, text = opened(args.artifact, args.model)
    write_claim(model, text, folder / "run", getattr(args, "threads", None))
    return str(folder / "run")


def claim_program(args: argparse.Namespace) -> Program | None:
    """The program of the claim, where `args.artifact` is a receipt."""
    if not _is_receipt(args):
        return None
    from ree.generation.claim import claim_step

    _, model, text = opened(args.artifact, args.model)
    return claim_step(model.forward, text).program


def opened(receipt: str, artifact: str) -> tuple[Receipt, LanguageModel, Text]:
    """A receipt, its model, and what it claims, which the model can have said; ReeError."""
    from ree.generation.model import LanguageModel
    from ree.generation.verification import whole_claim

    found = read_receipt(receipt)
    with progress("load"):
        model = LanguageModel.load(artifact)
    if found.program != model.forward.program.program_hash.hex():
        raise InputError(f"the receipt is of program {found.program}, the artifact has "
                         f"{model.forward.program.program_hash.hex()}")  # fmt: skip
    found.claimed.check(model.forward.vocabulary, model.settings.context)
    return found, model, whole_claim(found, model)


def write_claim(
    model: LanguageModel, text: Text, output: str | Path, threads: int | None
) -> History:
    """Execute a claim as a run in a new directory."""
    from ree.generation.claim import write_run

    with progress_bar("claim", text.chunks) as done:
        return write_run(model.forward, text, output, threads=threads,
                         progress=lambda s, loss: done(s, f"chunk {s}"))  # fmt: skip


def _is_receipt(args: argparse.Namespace) -> bool:
    """Whether `args.artifact` is one; InputError if --model does not fit."""
    found = is_json(args.artifact)
    if found and not args.model:
        raise InputError("a receipt is executed with its model", "--model ART.ree")
    if args.model and not found:
        raise InputError("--model goes with a receipt")
    return found
