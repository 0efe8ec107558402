"""What stands beside a program's graph, and what a run returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ree.compiler.frontend.structure import Structure
from ree.kernels.opdef import Array
from ree.traces.trace import Trace

SHOWN = 4  # inputs and outputs in a repr


def value_of(outputs: tuple[Any, ...], structure: Structure | None) -> Any:
    """Outputs as the module's forward returns them."""
    if structure is not None:
        return structure.build(outputs)
    return outputs[0] if len(outputs) == 1 else outputs


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
        return value_of(self.outputs, self.structure)

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
