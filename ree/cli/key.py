"""`ree key`: the key that signs receipts."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json
from ree.cli.output import print_result
from ree.errors import InputError

HELP = "make the key that signs receipts, or show its public part"
NAME = "receipt"  # of the file that holds it


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("action", choices=("new", "show"))
    parser.add_argument("--key", metavar="FILE", help="default: receipt.key in ~/.config/ree")


def run(args: argparse.Namespace) -> int:
    from ree.signing import SigningKey, default_path, load_seed, make_seed

    path = args.key or default_path(NAME)
    if args.action == "new":
        try:
            make_seed(path)
        except FileExistsError as e:
            raise InputError(f"there is a key at '{path}'", "name another file with --key") from e
    key = SigningKey(load_seed(path)).key.hex()
    print_result(args, {"key": key, "file": str(path)}, [key])
    return OK
