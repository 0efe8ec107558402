"""Programs as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ree.printable import printable
from ree.result import SHOWN

if TYPE_CHECKING:
    from ree.program import Program


def program_line(p: Program) -> str:
    """A program in one line: its hash, inputs and outputs."""
    ends = []
    for types in (p.inputs, p.outputs):
        shown = [f"{k}: {t}" for k, t in list(types.items())[:SHOWN]]
        ends.append(", ".join([*shown, "..."] if len(types) > SHOWN else shown))
    return printable(f"<Program {p.program_hash.hex()[:16]} ({ends[0]}) -> ({ends[1]})>")


def program_text(p: Program) -> str:
    """A program in a few lines: its hash, size, inputs and outputs."""
    rows = [
        ("program", p.program_hash.hex()),
        ("weights", f"{len(p.weights)}, {sum(w.size for w in p.weights):,} numbers"),
        ("nodes", str(len(p.graph.nodes))),
        *(("input", f"{k}: {t}") for k, t in p.inputs.items()),
        *(("output", f"{k}: {t}") for k, t in p.outputs.items()),
    ]
    return "\n".join(printable(f"{k:8} {v}") for k, v in rows)
