"""Writes interfaces.json: what the client must know of the contracts, without compiling them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ree.settlement.compile import CONTRACTS, compile_contract

FILE = Path(__file__).parent / "interfaces.json"
SOURCES = {
    "court": "court.vy",
    "referee": "referee.vy",
    "token": "testing/token.vy",
}


def interfaces() -> dict[str, Any]:
    """The ABI of each contract, and what the reasons begin with for which one reverts."""
    abis = {name: list(compile_contract(path).abi) for name, path in SOURCES.items()}
    text = "".join(p.read_text() for p in sorted(CONTRACTS.rglob("*.vy")))
    return {**abis, "reasons": sorted(set(re.findall(r', "([a-z]+): [a-z ,^0-9]+"$', text, re.M)))}


if __name__ == "__main__":
    FILE.write_text(json.dumps(interfaces(), separators=(",", ":")) + "\n")
