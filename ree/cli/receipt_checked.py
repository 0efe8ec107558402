"""What `ree verify` and `ree diff` say of receipts: of themselves, of the text, of every token."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser
from ree.cli.output import print_result, progress, progress_bar
from ree.errors import InputError, PlatformError, ReeError

if TYPE_CHECKING:
    from ree.generation.receipt import Receipt


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--artifact", dest="model", metavar="ART.ree", help="of a receipt: the model's"
    )
    parser.add_argument("--signature", action="store_true", help="of a receipt: only its digests and "
                        "signatures, without the model")  # fmt: skip
    parser.add_argument("--text", action="store_true", help="of a receipt: also its prompt and text, but no "
                        "token is computed")  # fmt: skip


def is_receipt(path: str) -> bool:
    """Whether a path is meant as a receipt: everything else that is verified is a directory."""
    return os.path.isfile(path)


def read_receipt(path: str) -> Receipt:
    """The receipt in a file; ReeError."""
    try:
        from ree.generation.receipt import MAX_RECEIPT, Receipt
    except ImportError as e:
        raise PlatformError(f"a receipt needs {e.name}", "pip install 'ree-ml[generate]'") from e
    with open(path, "rb") as f:
        raw = f.read(MAX_RECEIPT + 1)
    try:
        return Receipt.of(raw)
    except ReeError as e:
        raise ReeError(f"'{path}': {e.message}", e.hint) from e


def is_json(path: str) -> bool:
    """Whether a file begins as a receipt does; traces do not."""
    try:
        with open(path, "rb") as f:
            return f.read(1) == b"{"
    except OSError:
        return False


def diff(args: argparse.Namespace) -> int:
    """Of `ree diff`: what two receipts do not share."""
    from dataclasses import asdict

    left, right = read_receipt(args.left), read_receipt(args.right)
    from ree.generation.receipt_diff import receipt_differences

    found = receipt_differences(left, right)
    judged = {} if args.model is None else _judged(args, left, right)
    data = {"same": not found, "left": left.digest.hex(), "right": right.digest.hex(),
            "differences": [asdict(d) for d in found], **({"verified": judged} if judged else {})}  # fmt: skip
    said = [f"{path}: {what}" for path, what in judged.items()]
    if not found:
        print_result(args, data, [f"same: digest {left.digest.hex()}", *said])
        return OK
    hint = "'ree claim' makes a run of each; 'ree diff' of runs names the operator"
    print_result(args, data, ["differ", *(f"  {d.what}" for d in found), f"  {hint}", *said])
    return DIFFERS


def _judged(args: argparse.Namespace, *receipts: Receipt) -> dict[str, str]:
    """What verification says of each, by its path."""
    from ree.generation.model import LanguageModel
    from ree.generation.verification import check_receipt

    with progress("load"):
        model = LanguageModel.load(args.model)
    out = {}
    for path, receipt in zip((args.left, args.right), receipts, strict=True):
        flaw = check_receipt(receipt, model, threads=args.threads)
        out[path] = (
            "true: every token is what the model gives" if flaw is None else f"false: {flaw.what}"
        )
    return out


def run(args: argparse.Namespace) -> int:
    for option in ("trace", "steps", "sample", "seed", "script", "inputs", "state"):
        if getattr(args, option) is not None:
            raise InputError(
                f"--{option} has no meaning for a receipt, and '{args.artifact}' is a file"
            )
    if args.device != "cpu":
        raise InputError("a receipt is verified on the CPU")
    if args.signature and (args.text or args.model):
        raise InputError("--signature goes without --text and --artifact")
    from dataclasses import asdict

    receipt = read_receipt(args.artifact)
    from ree.generation.model import LanguageModel
    from ree.generation.verification import Level, check_receipt

    level = Level.SIGNATURE if args.signature else Level.TEXT if args.text else Level.TOKENS
    model = None
    if level > Level.SIGNATURE:
        if not args.model:
            raise InputError(
                "a receipt is verified with its model", "--artifact ART.ree, or --signature"
            )
        with progress("load"):
            model = LanguageModel.load(args.model)
    chunks = len(receipt.records)
    with progress_bar("verify", chunks) as done:
        found = check_receipt(receipt, model, level, threads=args.threads,
                              progress=lambda n: done(n, f"chunk {n}"))  # fmt: skip
    data = {
        "same": found is None, "level": level.name.lower(), "digest": receipt.digest.hex(),
        "signed_by": [s.key for s in receipt.signatures], "chunks": chunks,
        "tokens": len(receipt.prompt_tokens) + len(receipt.completion_tokens),
        "finding": None if found is None else asdict(found),
    }  # fmt: skip
    if found is not None:
        print_result(args, data, [f"differs: {found.what}"])
        return DIFFERS
    by = ", ".join(s.key for s in receipt.signatures)
    checked = {
        Level.SIGNATURE: "its digests and signatures (no token was checked)",
        Level.TEXT: "its signatures, prompt and text (no token was computed)",
        Level.TOKENS: f"every one of {data['tokens']} tokens, in {chunks} chunks",
    }[level]
    print_result(args, data, [f"same: {checked}", f"digest {receipt.digest.hex()}",
                              f"signed by {by}" if by else "unsigned: nobody stands for it"])  # fmt: skip
    return OK
