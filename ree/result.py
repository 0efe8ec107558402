"""What stands beside a program's graph, what a run returns, and how both are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ree.compiler.structure import Structure
from ree.kernels.opdef import Array
from ree.printable import printable
from ree.traces.trace import Trace

if TYPE_CHECKING:
    from ree.program import Program

SHOWN = 4  # inputs and outputs in a repr


@dataclass(repr=False)
class Result:
    """Outputs of a run, in the program's order, and its trace if one was asked for."""

    outputs: tuple[Any, ...]
    trace: Trace | None = None
    values: dict[int, Array] = field(default_factory=dict)  # keep_values only
    structure: Structure | None = None

    @property
    def value(self) -> Any:
        """The outputs as the module's forward returns them."""
        if self.structure is not None:
            return self.structure.build(self.outputs)
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs

    def __repr__(self) -> str:
        shown = ", ".join(f"{x.dtype}{list(x.shape)}" for x in self.outputs[:SHOWN])
        more = f" and {len(self.outputs) - SHOWN} more" * (len(self.outputs) > SHOWN)
        return f"Result({shown}{more}, trace={self.trace!r})"


@dataclass(repr=False)
class Names:
    """What the graph itself does not say: names of inputs, outputs and weights, how they nest."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]
    states: tuple[str, ...] = ()
    structure: Structure | None = None

    def __repr__(self) -> str:
        counts = (
            f"{len(getattr(self, k))} {k}" for k in ("inputs", "outputs", "weights", "states")
        )
        return f"Names({', '.join(counts)})"


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
