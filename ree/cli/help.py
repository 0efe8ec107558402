"""`ree help`: what --help says, of a command or of all of them."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser

HELP = "describe a command, or all of them"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("topic", nargs="?", metavar="COMMAND", choices=parser.commands)


def run(args: argparse.Namespace) -> int:
    grammar: Parser = args.grammar
    (grammar.commands[args.topic] if args.topic else grammar).print_help()
    return OK
