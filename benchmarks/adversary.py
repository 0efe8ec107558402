"""Legal programs at random for as long as asked: python benchmarks/adversary.py [SECONDS] [FIRST SEED].

Compiled code, interpreter and contracts must agree on bytes, the honest win, and lies lose. What a seed found
is printed, and belongs among the seeds of tests/settlement/test_adversary.py.
"""

import collections
import sys
import time
import traceback

from ree.settlement.testing.adversary import check


def main() -> int:
    seconds, seed = (int(x) for x in (*sys.argv[1:3], *("7200", "1000")[len(sys.argv) - 1 :]))
    end, came_to, found = time.monotonic() + seconds, collections.Counter[str](), 0
    while time.monotonic() < end:
        try:
            came_to[check(seed)] += 1
        except Exception as e:
            found += 1
            where = traceback.extract_tb(e.__traceback__)[-1]
            print(f"{type(e).__name__}: {str(e)[:300]} ({where.filename}:{where.lineno})")
            print(*e.__notes__, sep="\n", flush=True)
        seed += 1
        if seed % 100 == 0:
            print(f"up to seed {seed - 1}: {dict(came_to)}", flush=True)
    print(f"{seconds} s, up to seed {seed - 1}: {dict(came_to)}, {found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
