"""`ree completion`: completion scripts for shells, made from the command-line grammar."""

from __future__ import annotations

import argparse
import re
import sys

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser

HELP = "print a completion script for a shell"
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    sys.stdout.write(script(args.grammar, args.shell))
    return OK


def script(parser: Parser, shell: str) -> str:
    """The completion script of one of SHELLS."""
    for p in parser.commands.values():
        p.filled()
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser)


def _options(parser: Parser) -> list[argparse.Action]:
    """The options of a command and of its actions, each once."""
    found = {a.option_strings[-1]: a for p in (parser, *parser.actions.values()) for a in p._actions
             if a.option_strings and a.help != argparse.SUPPRESS}  # fmt: skip
    return list(found.values())


def _words(parser: Parser) -> str:
    """What may follow a command: its options, and the choices of its arguments."""
    found = [x for a in _options(parser) for x in a.option_strings]
    for a in parser._actions:
        if not a.option_strings and a.choices:
            found += a.choices
    return " ".join(found)


def _bash(parser: Parser) -> str:
    cases = "\n".join(f'    {name}) words="{_words(p)}" ;;'
                      for name, p in parser.commands.items())  # fmt: skip
    first = " ".join([*parser.commands, *(x for a in _options(parser) for x in a.option_strings)])
    return f"""_ree() {{
  local here="${{COMP_WORDS[COMP_CWORD]}}" words
  case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="" ;;
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="{first}"
  COMPREPLY=($(compgen -W "$words" -- "$here"))
}}
complete -o default -F _ree ree
"""


def _zsh(parser: Parser) -> str:
    names = " ".join(f"'{n}:{_text(p.description)}'" for n, p in parser.commands.items())
    cases = []
    for name, p in parser.commands.items():
        specs = [f"'{x}[{_text(a.help)}]{':value:_files' if a.nargs != 0 else ''}'"
                 for a in _options(p) for x in a.option_strings]  # fmt: skip
        choices = [" ".join(a.choices) for a in p._actions if not a.option_strings and a.choices]
        specs += [f"'1:what:({c})'" for c in choices]
        cases.append(f"    {name}) _arguments {' '.join(specs)} '*:file:_files' ;;")
    body = "\n".join(cases)
    return f"""#compdef ree
_ree() {{
  local -a names=({names})
  if (( CURRENT == 2 )); then _describe command names; return; fi
  local name=$words[2]
  shift words; (( CURRENT-- ))
  case $name in
{body}
  esac
}}
compdef _ree ree
"""


def _fish(parser: Parser) -> str:
    lines = []
    for name, p in parser.commands.items():
        lines.append(
            f"complete -c ree -f -n __fish_use_subcommand -a {name} -d '{_text(p.description)}'"
        )
        here = f"complete -c ree -n '__fish_seen_subcommand_from {name}'"
        for a in _options(p):
            flags = "".join(f" -l {x[2:]}" if x.startswith("--") else f" -s {x[1:]}"
                            for x in a.option_strings)  # fmt: skip
            value = "" if a.nargs == 0 else " -r"
            lines.append(f"{here}{flags}{value} -d '{_text(a.help)}'")
        for a in p._actions:
            if not a.option_strings and a.choices:
                lines.append(f"{here} -f -a '{' '.join(a.choices)}'")
    return "\n".join(lines) + "\n"


def _text(text: str | None) -> str:
    """A description without what a shell or a completion reads as its own."""
    return re.sub(r"[^\w ,.()/|-]", " ", text or "")
