"""Writes interfaces.json: what the client must know of the contracts, without compiling them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ree.settlement.compile import compile_contract

FILE = Path(__file__).parent / "interfaces.json"
SOURCES = {
    "court": "court.vy",
    "referee": "referee.vy",
    "token": "testing/token.vy",
}


def interfaces() -> dict[str, Any]:
    """The ABI of each contract."""
    return {name: list(compile_contract(path).abi) for name, path in SOURCES.items()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(interfaces(), separators=(",", ":")) + "\n")
