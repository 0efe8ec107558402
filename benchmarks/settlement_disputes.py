"""Every sample of every operator with leaves, disputed on chain: writes results/settlement_disputes.json.

python benchmarks/settlement_disputes.py [--samples N] [--shard I/N]    about N samples an operator; one part
python benchmarks/settlement_disputes.py --join FILE...                 parts into the result

Of every result of every sample, two lies: in the last operation of an element, and in one before it, at random,
whose flipped bit shows in the element. Each is played twice, with the liar as defender, who must lose by
execution, and as challenger, who must lose; every move by the rules and by the contracts, which must agree.
Gas is that of a transaction that asks the referee; one in the Court costs about 40,000 more.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from ree.kernels import registry
from ree.settlement.testing.referee import play_for
from ree.verde.moves import Phase
from ree.verde.testing import dispute_samples, operators

RESULT = Path(__file__).resolve().parent / "results" / "settlement_disputes.json"
ALL = 10**6


def disputes_of(op: str, many: int) -> dict[str, object]:
    """What came of the disputes about one operator."""
    dearest = {"of all": 0, "PROVE": 0}

    def note(phase: Phase, gas: int) -> None:
        for name in ("of all", *(["PROVE"] if phase is Phase.PROVE else [])):
            dearest[name] = max(dearest[name], gas)

    found = dispute_samples(op, many, lambda run, instance: play_for(run, instance, note))
    lies = [x for _, lies in found for x in lies]
    return {
        "samples": len({id(s) for s, _ in found}),
        "results": len(found),
        "lies in the last operation": sum(not x.inner for x in lies),
        "lies before it": sum(x.inner for x in lies),
        "most moves": max(x.moves for x in lies),
        "gas of the dearest move": dearest["of all"],
        "gas of the dearest proof": dearest["PROVE"],
    }


def run(many: int, ops: list[str]) -> dict[str, object]:
    table: dict[str, object] = {}
    wrong: dict[str, str] = {}
    for op in ops:
        start = time.monotonic()
        try:
            table[op] = disputes_of(op, many)
        except Exception as e:
            notes = " ".join(getattr(e, "__notes__", ()))
            wrong[op] = f"{type(e).__name__}: {e} ({notes})"[:500]
        print(
            op,
            wrong.get(op, table.get(op)),
            f"{time.monotonic() - start:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return {"operators": table, "wrong": wrong}


def joined(parts: list[dict]) -> dict[str, object]:
    """One result of all parts; ValueError unless each operator is in just one."""
    table, wrong = {}, {}
    for part in parts:
        if set(part["operators"]) & set(table):
            raise ValueError("an operator is in two parts")
        table |= part["operators"]
        wrong |= part["wrong"]
    missing = sorted(set(operators()) - set(table) - set(wrong))
    counts = ("samples", "results", "lies in the last operation", "lies before it")
    total = {k: sum(x[k] for x in table.values()) for k in counts}
    total["disputes"] = 2 * sum(total[k] for k in counts[2:])
    for most in ("most moves", "gas of the dearest move", "gas of the dearest proof"):
        total[most] = max(x[most] for x in table.values())
    moves = sorted(set(registry.names()) - set(operators()))
    return {"total": total, "wrong": wrong, "operators not played": missing,
            "operators without leaves of their own": moves,
            "operators": dict(sorted(table.items()))}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=ALL)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--join", nargs="+", type=Path)
    a = parser.parse_args()
    if a.join:
        out = joined([json.loads(p.read_text()) for p in a.join])
        RESULT.write_text(json.dumps(out, indent=1) + "\n")
        return int(bool(out["wrong"] or out["operators not played"]))
    i, n = map(int, a.shard.split("/"))
    part = run(a.samples, operators()[i::n])
    if n == 1 and a.samples == ALL:
        RESULT.write_text(json.dumps(joined([part]), indent=1) + "\n")
    else:
        print(json.dumps(part, indent=1))
    return int(bool(part["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
