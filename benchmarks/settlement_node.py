"""A dispute over MiniLM on a real node (anvil): one bit of one operation is false.

python benchmarks/settlement_node.py
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import minilm

import ree
from ree.settlement.demo import PROVIDER_BOND, call_dispute
from ree.settlement.testing.anvil import Anvil, Missing


def main() -> int:
    try:
        node = Anvil()
    except Missing as e:
        print(f"the dispute on a real node did not run: {e}")
        return 0
    with node:
        program = ree.compile(minilm.model(), minilm.example_inputs(), minilm.dynamic_shapes())
        start = time.monotonic()
        result = call_dispute(program, chain=node)
        print(f"{time.monotonic() - start:.0f} s")
    last = [x["what"] for x in result["timeline"] if x["what"].startswith("respond")][-1]
    good = (
        result["root"] == result["true_root"] != result["false_root"]
        and result["paid"]["cheat"] == -PROVIDER_BOND
        and last == "respond: open the operands of an operation"
    )
    print("the cheat is caught" if good else f"wrong: {result}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
