"""One kernel on arrays, its arguments by name."""

from __future__ import annotations

from typing import Any

from ree import _core
from ree.kernels.abi import Tile, signature


def run_kernel(
    isa: str, pool: _core.Pool, kernel: str, /, *, tile: Any = None, **arguments: Any
) -> None:
    """Buffers are arrays, lists of them where there are several, or None. tile: an object with the address
    of a tile function, its buffers and its parameters."""
    s, table = signature(kernel), list[int]()

    def slot(x: Any) -> int | None:
        if x is None:
            return None
        table.append(x.ctypes.data)
        return len(table) - 1

    for b in s.buffers:
        given = arguments[b.name]
        arguments[b.name] = [slot(x) for x in given] if b.count else slot(given)
    if s.takes_tile:
        buffers = [slot(x) or 0 for x in tile.buffers] if tile else []
        arguments["tile"] = Tile(0, tuple(buffers), tuple(tile.params) if tile else ())
    slots, params = s.pack(arguments)
    plan = _core.Plan(isa)
    plan.add(kernel, slots, s.with_tile(params, tile.address) if tile else params)
    plan.run(pool, table)
