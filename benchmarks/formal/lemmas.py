"""What follows from the formulas of check_shares.vy and check_microcode.vy, in whole and real numbers, by z3.

Run by benchmarks/formal.py with halmos' Python; prints name and result of each as JSON. With `planted`, each is
changed so that it is false.
"""

import json
import sys
import time

from z3 import And, Int, Ints, Not, Reals, Solver


def lemmas(planted):
    """Name, conditions, conclusion. planted: 1 where a fault is planted, otherwise 0."""
    off = planted
    h, w, c0, c1, q0, q1, r0, r1 = Ints("h w c0 c1 q0 q1 r0 r1")
    # floors of h c0 / w and h c1 / w
    floors = [h >= 0, w > 0, c0 >= 0, c0 <= c1, c1 <= w, h * c0 == q0 * w + r0, r0 >= 0, r0 < w,
              h * c1 == q1 * w + r1, r1 >= 0, r1 < w]  # fmt: skip
    yield "a share is not negative", floors, q1 - q0 >= off
    yield (
        "a share is less than one unit below its part",
        floors,
        (q1 - q0 + 1 - off) * w > h * (c1 - c0),
    )
    yield "all shares together are the half", [*floors, c0 == 0, c1 == w], q1 - q0 == h + off
    big = 2**127, 2**32
    yield "half times a weight does not overflow", [h >= 0, h <= big[0], c1 >= 0, c1 < big[1]], \
        And(h * c1 <= big[0] * (big[1] - 1), big[0] * (big[1] - 1) < 2**(256 - 100 * off))  # fmt: skip
    H, W, u, D, X = Reals("H W u D X")
    game = [H > 0, W > 0, u > 0, D > 0, X >= 0]
    # up to the weight that is best for the cheat, where (X + W)^2 u = H W
    played = [*game, (X + W) * (X + W) * u <= H * W, H * W * u >= D * D * (1 - off / 2)]
    yield "the honest share covers its costs", played, H * W >= D * (X + W)
    n, m, q, r = Ints("n m q r")
    up = Int("up")
    yield "division toward minus infinity, of two signs", \
        [n >= 0, m > 0, n + m - 1 == q * m + r, r >= 0, r < m, up == -q], \
        And(up * m <= -n, -n < (up + 1 - off) * m)  # fmt: skip
    a, b, s, t, k = Ints("a b s t k")
    signs = [bit(s), bit(t)]
    yield "a signed product and an unsigned one have the same low half", \
        [*signs, k == a * t + b * s - 2**32 * s * t + off], \
        a * b - (a - 2**32 * s) * (b - 2**32 * t) == 2**32 * k  # fmt: skip


def bit(x):
    return And(x >= 0, x <= 1)


def main():
    planted = int(sys.argv[1:] == ["planted"])
    out = {}
    for name, given, conclusion in lemmas(planted):
        solver, begin = Solver(), time.monotonic()
        solver.set("timeout", 20_000)
        solver.add(*given, Not(conclusion))
        found = solver.check()
        result = {"unsat": "proved", "sat": "refuted"}.get(str(found), "unknown")
        out[name] = {"result": result, "seconds": round(time.monotonic() - begin, 2)}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
