"""How commands say their arguments: the parser, and the arguments that several of them share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from ree import __version__
from ree.errors import InputError, ReeError

MAX_VALUES = 256  # MiB of values that an ops trace carries


class Described(Protocol):
    """What has a line of help and arguments: a command's module, or an action's."""

    HELP: str

    def add_arguments(self, parser: Parser, /) -> None: ...


class Command(Described, Protocol):
    """A command's module."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Do the work, print the result and return the exit code."""
        ...


class Parser(argparse.ArgumentParser):
    """A parser that takes no empty argument and prints what is wrong with one escaped."""

    commands: Mapping[str, Parser] = {}  # all of them by name, as `ree` has them
    actions: Mapping[str, Parser] = {}  # of a command that has some

    def __init__(self, add: Callable[[Parser], None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._add = add

    def filled(self) -> Parser:
        """This parser with its arguments, which are added on first use: `ree --help` needs none."""
        add, self._add = self._add, None
        if add is not None:
            add(self)
        return self

    def format_help(self) -> str:
        return super(Parser, self.filled()).format_help()

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        if options.get("action", "store") == "store" and "choices" not in options:
            options.setdefault("type", _given)
        return super().add_argument(*names, **options)

    def add_actions(self, actions: Mapping[str, Described]) -> None:
        """A parser of its own for each action; what it is stands in `args.action`."""
        sub = self.add_subparsers(dest="action", required=True)
        self.actions = sub.choices
        for name, action in actions.items():
            action.add_arguments(sub.add_parser(name, help=action.HELP, description=action.HELP))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but options may stand before the action that they are of."""
        args = sys.argv[1:] if args is None else args
        if self.filled().actions:
            args = self._action_first(args)
        return super().parse_known_args(args, namespace)

    def _action_first(self, args: Sequence[str]) -> Sequence[str]:
        options = [(o, a) for p in self.actions.values() for o, a in p._option_string_actions.items()
                   if not isinstance(a, Misplaced)]  # fmt: skip
        at = 0
        while at < len(args) and args[at].startswith("-") and args[at] not in ("-h", "--help"):
            name, valued, _ = args[at].partition("=")
            takes = any(a.nargs != 0 for o, a in options if o.startswith(name))
            at += 2 if takes and not valued else 1
        found = at < len(args) and args[at] in self.actions
        return [args[at], *args[:at], *args[at + 1 :]] if found else args[at:]

    def error(self, message: str) -> NoReturn:
        raise ReeError(message, f"{self.prog} --help")


def make_parser(commands: Mapping[str, Command]) -> Parser:
    """The grammar of `ree`; what it parses has the grammar in `grammar` and a command in `command`."""
    parser = Parser(
        prog="ree",
        description="Compile a PyTorch program once; get the same bits on every machine.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"ree {__version__}")
    parser.set_defaults(grammar=parser)
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parser.commands = sub.choices
    for name, command in commands.items():
        c = sub.add_parser(
            name, add=command.add_arguments, help=command.HELP, description=command.HELP
        )
        c.commands = sub.choices
    return parser


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def add_inputs(parser: Parser) -> None:
    parser.add_argument("--inputs", metavar="IN.safetensors", help="default: the stored examples")


def add_state(parser: Parser) -> None:
    parser.add_argument("--state", metavar="FILE", help="what the states of a program that has some are before "
                        "the run, as Session.save writes it (default: those of the program)")  # fmt: skip


def add_max_values(parser: Parser) -> None:
    parser.add_argument("--max-values", type=int, metavar="MIB",
                        help="an ops trace carries its values, for naming a differing element, when they "
                        f"fit in MIB mebibytes (default {MAX_VALUES})")  # fmt: skip


def add_threads(parser: Parser) -> None:
    parser.add_argument("--threads", type=int, metavar="N")


def add_device(parser: Parser) -> None:
    parser.add_argument("--device", default="cpu", metavar="DEVICE",
                        help="cpu (default), cuda, cuda:N; without a GPU interpret: its kernels, slowly, "
                        "and ptx:sm_80, ptx:sm_90, ptx:sm_120: the PTX of its kernels")  # fmt: skip


def add_batches(parser: Parser) -> None:
    parser.add_argument("--script", metavar="TRAIN.py", help="make the batches with this file's batch() "
                        "(default: those that the run keeps)")  # fmt: skip


class Misplaced(argparse.Action):
    """An argument of other actions, which help does not show: InputError that says where it belongs."""

    def __init__(self, *args: Any, text: str, **options: Any) -> None:
        super().__init__(*args, **{**options, "help": argparse.SUPPRESS})
        self.text = text

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if values is not None or option:
            raise InputError(self.text)


def _given(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a value, got an empty one")
    return text
