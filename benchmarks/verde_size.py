"""How long a dispute is against the size of a run: steps, values, elements and operations from 2^4 to 2^24.

python benchmarks/verde_size.py      writes benchmarks/results/verde_size.json and verde_size.png

Simulated: moves and revealed bytes follow from the depths of the trees (verde/game.py); one size grows, the
others stay at 2^6 steps, 2^8 values, 2^16 elements, 2^9 operations. Real disputes, from
benchmarks/results/disputes.json, are marked where that file exists.
"""

import json
from pathlib import Path

from ree.traces.merkle import depth
from ree.traces.tensor import LEAF_BYTES
from ree.verde.moves import FAN

RESULTS = Path(__file__).resolve().parent / "results"
DIGEST = 32
BASE = {"steps": 6, "values": 8, "elements": 16, "operations": 9}
F32_LEAF = LEAF_BYTES // 4


def tree(leaves):
    """(moves, bytes) from the root of a tree to a leaf: a reveal and a pick for every four levels."""
    moves = size = 0
    level = depth(leaves)
    while level:
        down = min(FAN, level)
        moves += 2
        size += DIGEST << down
        level -= down
    return moves, size


def leaves(n):
    return max(1, -(-n // F32_LEAF))


def dispute(steps, values, elements, operations):
    """(moves, bytes the defender reveals) of a dispute over one false multiply-add, worst case."""
    parts = []
    if steps > 1:  # history, then the step with its neighbours
        parts += [tree(steps), (1, 5 * DIGEST + 2 * depth(steps) * DIGEST)]
    parts += [(1, DIGEST), (1, 0)]  # values, and where to go
    parts += [tree(values), (1, 2 * DIGEST)]  # a tensor
    parts += [tree(leaves(elements)), (1, LEAF_BYTES), (1, 0)]  # an element
    entry = LEAF_BYTES + depth(leaves(operations)) * DIGEST
    parts += [(1, DIGEST + entry), tree(leaves(operations))]
    parts += [(1, LEAF_BYTES), (1, 0)] if leaves(operations) > 1 else [(1, 0)]
    opening = DIGEST + LEAF_BYTES + (depth(values) + depth(leaves(elements))) * DIGEST
    parts.append((1, entry + 2 * opening))  # the operands
    return tuple(map(sum, zip(*parts, strict=True)))


def main():
    table = {}
    for name in BASE:
        rows = []
        for n in range(4, 25):
            sizes = {k: 1 << (n if k == name else v) for k, v in BASE.items()}
            moves, size = dispute(**sizes)
            rows.append({"log2": n, "moves": moves, "bytes": size})
        table[name] = rows
    (RESULTS / "verde_size.json").write_text(
        json.dumps({"base": BASE, "simulated": table}, indent=1) + "\n"
    )
    plot(table)


def plot(table):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for name, rows in table.items():
        for axis, key in zip(axes, ("moves", "bytes"), strict=True):
            axis.plot(
                [r["log2"] for r in rows],
                [r[key] for r in rows],
                label=name,
                drawstyle="steps-post",
            )
    real = RESULTS / "disputes.json"
    if real.is_file():
        for op, found in json.loads(real.read_text())["operators"].items():
            d = found["refuted"]
            axes[0].plot(
                19, d["moves"], "k.", label="MiniLM, by operator" if op == "linear" else None
            )
            axes[1].plot(19, d["bytes"] / 2, "k.")  # hexadecimal on the wire
    for axis, key in zip(axes, ("moves", "bytes revealed"), strict=True):
        axis.set_xlabel("log2 of the size")
        axis.set_title(key)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "verde_size.png", dpi=100)


if __name__ == "__main__":
    main()
