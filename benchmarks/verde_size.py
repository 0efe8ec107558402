"""How long a dispute is against the size of a run: steps, values, elements and operations from 2^4 to 2^24.

python benchmarks/verde_size.py      writes benchmarks/results/verde_size.json and verde_size.png

Simulated: moves and revealed bytes follow from the depths of the trees (verde/game.py); one size grows, the
others stay at 2^6 steps, 2^8 values, 2^16 elements, 2^9 operations. Real disputes, of
benchmarks/results/disputes.json, are marked: calls of MiniLM and training runs of 64 steps. For
a real dispute about a contraction the simulation must give the number of moves.
"""

import json
import math
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


def real():
    """Measured disputes: where, operator, sizes, moves, bytes revealed."""
    file = RESULTS / "disputes.json"
    work = json.loads(file.read_text())["work"]
    runs = {f"MiniLM {shape}": x["operators"] for shape, x in work["minilm"].items()} | work[
        "training"
    ]
    keys = (*BASE, "moves", "revealed")
    return [{"run": run, "operator": op} | {k: d[k] for k in keys}
            for run, found in runs.items() for op, d in found.items()]  # fmt: skip


def check(d):
    """ValueError if a real dispute about a contraction is not as long as a simulated one of its sizes."""
    moves, size = dispute(*(d[k] for k in BASE))
    if d["operator"] in ("linear", "matmul", "convolution") and moves != d["moves"]:
        raise ValueError(f"{d}: {moves} moves are simulated")
    return d | {"simulated moves": moves, "simulated bytes": size}


def main():
    table = {}
    for name in BASE:
        rows = []
        for n in range(4, 25):
            sizes = {k: 1 << (n if k == name else v) for k, v in BASE.items()}
            moves, size = dispute(**sizes)
            rows.append({"log2": n, "moves": moves, "bytes": size})
        table[name] = rows
    found = [check(d) for d in real()]
    data = {"base": BASE, "simulated": table, "real": found}
    (RESULTS / "verde_size.json").write_text(json.dumps(data, indent=1) + "\n")
    plot(table, found)


def plot(table, found):
    """A column for each size, moves above bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(table), figsize=(15, 6.5), sharex=True, sharey="row")
    runs = list(dict.fromkeys(d["run"] for d in found))
    for column, (name, rows) in enumerate(table.items()):
        others = ", ".join(f"2^{v} {k}" for k, v in BASE.items() if k != name)
        for row, (key, of_real) in enumerate((("moves", "moves"), ("bytes", "revealed"))):
            axis = axes[row][column]
            axis.plot([r["log2"] for r in rows], [r[key] for r in rows], "k-", lw=1,
                      drawstyle="steps-post", label="simulated")  # fmt: skip
            for i, run in enumerate(runs):
                marks = [d for d in found if d["run"] == run]
                axis.plot([math.log2(d[name]) for d in marks], [d[of_real] for d in marks],
                          "o^sDvP*"[i % 7], color=f"C{i}", ms=5, alpha=0.7, label=run)  # fmt: skip
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        axes[0][column].set_title(f"{name}\nsimulated: {others}", fontsize=8)
        axes[1][column].set_xlabel(f"log2 of {name}")
    axes[0][0].set_ylabel("moves")
    axes[1][0].set_ylabel("bytes revealed")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="lower center", fontsize=8)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(RESULTS / "verde_size.png", dpi=100)


if __name__ == "__main__":
    main()
