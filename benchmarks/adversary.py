"""Whatever can be made at random, for as long as asked: python benchmarks/adversary.py [SECONDS] [FIRST SEED].

Programs, small and with an axis beyond 2^16, altered artifacts, terms of jobs, training runs. Compiled code,
interpreter and contracts must agree on bytes, the honest win and are whole, lies lose, and what is illegal is
refused in a line. What a seed found is printed, and belongs among the seeds of
tests/settlement/test_adversary.py.
"""

import collections
import sys
import time
import traceback

from ree.settlement.testing.adversary import kinds

# in a round; a training run takes seconds
SHARES = {"program": 12, "large": 1, "artifact": 24, "terms": 24, "run": 1}
ROUNDS = 10  # between two lines


def main() -> int:
    seconds, first = (int(x) for x in (*sys.argv[1:3], *("7200", "1000")[len(sys.argv) - 1 :]))
    end, found, rounds = time.monotonic() + seconds, 0, 0
    checks, came_to = kinds(), {k: collections.Counter[str]() for k in SHARES}
    seeds = dict.fromkeys(SHARES, first)
    order = [k for k, n in SHARES.items() for _ in range(n)]
    while time.monotonic() < end:
        for kind in order:
            if time.monotonic() > end:
                break
            seed, seeds[kind] = seeds[kind], seeds[kind] + 1
            try:
                came_to[kind][checks[kind](seed)] += 1
            except Exception as e:
                found += 1
                where = traceback.extract_tb(e.__traceback__)[-1]
                print(
                    f"{kind}, {type(e).__name__}: {str(e)[:300]} ({where.filename}:{where.lineno})"
                )
                print(*getattr(e, "__notes__", ()), sep="\n", flush=True)
        rounds += 1
        if rounds % ROUNDS == 0:
            print(f"{rounds} rounds, {found} findings: {_text(came_to)}", flush=True)
    print(f"{seconds} s from seed {first}, {rounds} rounds: {_text(came_to)}, {found} findings")
    return int(found > 0)


def _text(came_to: dict[str, collections.Counter[str]]) -> str:
    return "; ".join(
        f"{k} {c.total()} ({', '.join(f'{n} {what}' for what, n in c.most_common())})"
        for k, c in came_to.items()
    )


if __name__ == "__main__":
    sys.exit(main())
