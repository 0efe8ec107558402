"""Gas of the contracts against settlement/gas.json, which `python tests/settlement/test_gas.py` writes.

The gas of a function is that of calling it with its operands at hand, without the transaction around it, by
Vyper's legacy code generator. Of a move there is also the receipt of its transaction in the Court."""

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.bonds import SNAPSHOT
from ree.settlement.testing import gas, referee_gas

SLACK = 0.02
BOUNDS = {"fma": 2300, "reveal of 16 children": 8000, "element of 2^24 float32, rank 8": 20_000}
STEP_BOUND = 2300
# of transactions in the Court
PROOF_BOUND, BIT_BOUND, DISPUTE_BOUND = 330_000, 30_000, 2_500_000


def figures(n: int) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(11)
    out: dict[str, dict[str, Any]] = {}
    for kind, worst in (("functions", gas.worst_functions), ("steps", gas.worst_steps)):
        out[kind] = {
            name: {"gas": used, "operands": [f"{x:08x}" for x in operands]}
            for name, (used, operands) in worst(rng, n).items()
        }
    out["trees"] = {name: {"gas": used} for name, used in gas.trees().items()}
    out["referee"] = dict(referee_gas.moves())
    return out


def check(kind: str, name: str, used: int, recorded: int) -> None:
    assert used <= (1 + SLACK) * recorded, (
        f"{kind}, {name}: expected {recorded} gas, got {used}; "
        "if it is meant, run python tests/settlement/test_gas.py"
    )


def test_gas_on_recorded_operands() -> None:
    snapshot = json.loads(SNAPSHOT.read_text())
    for kind in ("functions", "steps"):
        for name, entry in snapshot[kind].items():
            arguments = [int(x, 16) for x in entry["operands"]]
            used = gas.gas_of(kind, name, arguments)
            check(kind, name, used, entry["gas"])
            # a recorded figure that is too high would hide a growth
            assert used >= (1 - SLACK) * entry["gas"], f"{kind}, {name}: {used} gas, write it again"


def test_gas_on_other_operands() -> None:
    snapshot, now = json.loads(SNAPSHOT.read_text()), figures(1000)
    for kind, entries in now.items():
        assert entries.keys() == snapshot[kind].keys()
        for name, entry in entries.items():
            check(kind, name, entry["gas"], snapshot[kind][name]["gas"])


def test_gas_is_within_its_bounds() -> None:
    snapshot = json.loads(SNAPSHOT.read_text())
    known = {**snapshot["functions"], **snapshot["trees"]}
    for name, bound in BOUNDS.items():
        assert known[name]["gas"] <= bound
    assert max(e["gas"] for e in snapshot["steps"].values()) <= STEP_BOUND
    moves = {name: e["transaction"] for name, e in snapshot["referee"].items()}
    for name, used in moves.items():
        assert used <= (DISPUTE_BOUND if name.startswith("dispute") else PROOF_BOUND), name
    assert moves["REVEAL"] + moves["PICK"] <= 4 * BIT_BOUND  # four levels


def test_gas_of_a_training_run_of_64_steps() -> None:
    pytest.importorskip("torch", reason="a training run needs PyTorch")
    recorded = json.loads(SNAPSHOT.read_text())["training"]
    now = training()
    assert now["steps"] == recorded["steps"] == 64
    for name in ("moves", "dispute", "worst move"):
        check("training", name, now[name], recorded[name])


def training() -> dict[str, int]:
    """Receipts of the dispute over a training run."""
    from ree.settlement.demo_run import run_dispute

    told = run_dispute(lambda text: None)
    return {"steps": told["steps"], "moves": told["moves"], "dispute": told["gas_of_moves"],
            "worst move": told["worst_move"]}  # fmt: skip


if __name__ == "__main__":
    written = {**figures(20_000), "training": training()}
    SNAPSHOT.write_text(json.dumps(written, indent=1) + "\n")
