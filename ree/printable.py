"""Text of others made fit to be shown."""

from __future__ import annotations

from reprlib import Repr

SHORT = 60
# of a list of millions no more is looked at than is shown
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 20, 20
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 3 * SHORT


def printable(text: str) -> str:
    """`text` on one line, what does not print (controls, line ends, marks of direction) as an escape.

    Names come from files of others: raw, one could clear the screen or forge a line of output.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(c: str) -> str:
    return c if c.isprintable() else ascii(c)[1:-1]


def short(value: object) -> str:
    """The beginning of a value's repr, at most SHORT characters: at once also of a large one."""
    return _SHORT.repr(value)[:SHORT]
