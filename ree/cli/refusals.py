"""Options that would have no effect: refused, so that nobody believes they had."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence

from ree.errors import InputError

# option, when it has an effect, and what to say when it has not
Rule = tuple[str, Callable[[Namespace], object], str]


def refuse_ignored(args: Namespace, rules: Sequence[Rule]) -> None:
    """InputError for an option that was given and would be ignored."""
    for option, has_effect, text in rules:
        given = getattr(args, option)  # 0 is given
        if given is not None and given is not False and not has_effect(args):
            raise InputError(text)
