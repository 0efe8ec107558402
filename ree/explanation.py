"""Differences between two runs as lines that a person can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ree.traces.diff import Difference


def explain(d: Difference, left: str, right: str) -> list[str]:
    """A difference as lines a person can read."""
    if d.index < 0:
        return [f"{d.kind}: {left} {d.left[:16]}, {right} {d.right[:16]}"]
    name = f" '{d.name}'" if d.name else ""
    lines = [f"first differing {d.kind}: %{d.index}" if d.kind == "value"
             else f"{d.kind} {d.index}{name} differs"]  # fmt: skip
    if d.info is not None:
        lines.append(f"  operator {d.info.op} : {d.info.type}")
        if d.info.location:
            lines.append(f"  source   {d.info.location}  {d.info.code}")
        if d.info.module:
            lines.append(f"  module   {d.info.module}")
    if d.element is not None:
        e = d.element
        for side, bits, value in ((left, e.left_bits, e.left), (right, e.right_bits, e.right)):
            lines.append(f"  element  {list(e.index)} {side:>6} 0x{bits} {value:.9g}")
        distance = "not comparable" if e.ulps is None else f"{e.ulps} ulp"
        lines.append(f"  distance {distance}; {e.differing} of {e.count} elements differ")
    if d.also:
        lines.append(f"  {d.also} later values differ too")
    return lines
