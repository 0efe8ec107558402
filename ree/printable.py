"""Text of others made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, what does not print (controls, line ends, marks of direction) as an escape.

    Names come from files of others: raw, one could clear the screen or forge a line of output.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(c: str) -> str:
    return c if c.isprintable() else ascii(c)[1:-1]
