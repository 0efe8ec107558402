"""Fit the polynomials of kernels/scalar/functions.py: weighted minimax by Lawson iteration.

Coefficients are rounded to float32 one at a time, lowest first, refitting the rest. Prints hex bits
and the remaining weighted error. Run by hand; the results stand in scalar_functions.py.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.prec = 120


def fit(
    f: Callable[[mp.mpf], mp.mpf], powers: list[int], lo: float, hi: float,
    weight: Callable[[float], float],
) -> tuple[list[float], float]:  # fmt: skip
    """float32 coefficients c with sum c_i x^powers_i ~ f on [lo, hi], and max weighted error."""
    n = 2000
    x = 0.5 * (lo + hi) + 0.5 * (hi - lo) * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    y = np.array([float(f(mp.mpf(float(v)))) for v in x])
    w = np.array([weight(float(v)) for v in x])
    fixed: list[float] = []
    for _ in powers:
        rest = powers[len(fixed) :]
        target = y - sum((c * x**p for c, p in zip(fixed, powers, strict=False)), np.zeros(n))
        basis = np.stack([x**p for p in rest], axis=1)
        lawson = np.ones(n) / n
        for _ in range(200):
            s = np.sqrt(lawson) * w
            c, *_ = np.linalg.lstsq(basis * s[:, None], target * s, rcond=None)
            e = np.abs(basis @ c - target) * w
            lawson = lawson * e
            lawson /= lawson.sum()
        fixed.append(float(np.float32(c[0])))
    total = sum((c * x**p for c, p in zip(fixed, powers, strict=True)), np.zeros(n))
    return fixed, float(np.max(np.abs(total - y) * w))


def show(name: str, coefficients: list[float], error: float) -> None:
    bits = ", ".join(f"0x{np.float32(c).view(np.uint32):08X}" for c in coefficients)
    print(f"{name} = ({bits})  # weighted error {error:.2e}")


def main() -> None:
    half = float(mp.log(2) / 2) * 1.001
    show("EXP", *fit(lambda r: (mp.exp(r) - 1 - r) / r**2 if r else mp.mpf(0.5), list(range(5)),
                     -half, half, lambda r: r * r))  # fmt: skip
    show("EXPM1", *fit(lambda r: (mp.expm1(r) - r) / r**2 if r else mp.mpf(0.5), list(range(6)),
                       -half, half, lambda r: r * r / abs(np.expm1(r)) if r else 0.0))  # fmt: skip
    ln2 = mp.log(2)
    show("EXP2_TAIL", *fit(lambda f: (mp.mpf(2) ** f - 1 - f * ln2) / f**2 if f else ln2**2 / 2,
                           list(range(5)), -0.5, 0.5, lambda f: f * f / 2**f))  # fmt: skip
    lo, hi = float(mp.sqrt(0.5)) - 1, float(mp.sqrt(2)) - 1

    def log_tail(f: mp.mpf) -> mp.mpf:
        return (mp.log1p(f) - f + f * f / 2) / f**3 if abs(f) > 1e-9 else mp.mpf(1) / 3

    show("LOG", *fit(log_tail, list(range(9)), lo, hi, lambda f: abs(f**3) / max(abs(f), 1e-3)))
    show("TANH", *fit(lambda u: (mp.tanh(mp.sqrt(u)) / mp.sqrt(u) - 1) / u if u > 1e-9
                      else -mp.mpf(1) / 3, list(range(8)), 1e-12, 1.0, lambda u: u))  # fmt: skip
    cut = 1.0
    show("ERF_SMALL", *fit(lambda u: mp.erf(mp.sqrt(u)) / mp.sqrt(u) - 1 if u > 1e-12
                           else 2 / mp.sqrt(mp.pi) - 1, list(range(7)), 1e-14, cut * cut,
                           lambda u: 1.0))  # fmt: skip
    # erfc(t) = 2^(t * (c0 + c1 t + ...))
    show("ERF_LARGE", *fit(lambda t: mp.log(mp.erfc(t), 2) / t, list(range(8)), cut, 4.0,
                           lambda t: float(t * mp.erfc(t) * mp.log(2))))  # fmt: skip
    show("EXP2", *fit(lambda f: (mp.mpf(2) ** f - 1) / f if abs(f) > 1e-12 else mp.log(2),
                      list(range(6)), -0.5, 0.5, abs))  # fmt: skip
    q = float(mp.pi / 4) * 1.001
    show("SIN", *fit(lambda u: (mp.sin(mp.sqrt(u)) / mp.sqrt(u) - 1) / u if u > 1e-9
                     else -mp.mpf(1) / 6, list(range(4)), 1e-12, q * q, lambda u: u))  # fmt: skip
    show("COS", *fit(lambda u: (mp.cos(mp.sqrt(u)) - 1 + u / 2) / u**2 if u > 1e-7
                    else mp.mpf(1) / 24, list(range(4)), 1e-8, q * q, lambda u: u * u))  # fmt: skip
    third, sixth, quarter = mp.mpf(1) / 3, mp.mpf(1) / 6, 0.25
    for name, f, first, count, end in (
        ("ATAN", mp.atan, -third, 6, quarter), ("ASIN", mp.asin, sixth, 6, quarter),
        ("SINH", mp.sinh, sixth, 4, 1.0),
        ("ASINH", mp.asinh, -sixth, 6, quarter), ("ATANH", mp.atanh, third, 7, quarter),
    ):  # fmt: skip
        show(name, *fit(lambda u, f=f, first=first: (f(mp.sqrt(u)) / mp.sqrt(u) - 1) / u if u > 1e-9 else first,
                        list(range(count)), 1e-12, end, lambda u: u))  # fmt: skip

    def erfcx(q: mp.mpf) -> mp.mpf:
        a = 2 * (1 + q) / (1 - q)
        return (1 + 2 * a) * mp.exp(a * a) * mp.erfc(a)

    show("ERFCX", *fit(erfcx, list(range(10)), -0.62, 0.70, lambda q: 1.0))
    show("ERF_HALF", *fit(lambda u: mp.erf(mp.sqrt(u)) / mp.sqrt(u) - 1 if u > 1e-12
                          else 2 / mp.sqrt(mp.pi) - 1, list(range(5)), 1e-14, quarter,
                          lambda u: u**0.5))  # fmt: skip
    special()


def special() -> None:
    """kernels/scalar/special.py."""

    def middle(s: mp.mpf) -> mp.mpf:
        tail = mp.exp(-s * s)
        c = mp.log(tail / (1 + mp.sqrt(1 - tail)))
        return 1 - mp.findroot(lambda y: mp.log(mp.erfc(y)) - c, s * mp.mpf("0.93")) / s

    show("ERFINV_SMALL", *fit(lambda u: mp.erfinv(mp.sqrt(u)) / mp.sqrt(u) - 1 if u > 1e-12
                              else mp.sqrt(mp.pi) / 2 - 1, list(range(7)), 1e-14, 0.25,
                              lambda u: 1.0))  # fmt: skip
    for name, lo, hi, centre in (
        ("ERFINV_MIDDLE", 0.535, 2.001, 1.25),
        ("ERFINV_LARGE", 1.999, 3.995, 3.0),
    ):
        show(name, *fit(lambda t, c=centre: middle(t + c), list(range(9)), lo - centre, hi - centre,
                        lambda t: 1.0))  # fmt: skip
    root = mp.findroot(mp.digamma, 1.46)
    show("DIGAMMA", *fit(lambda t: mp.digamma(t + root) / t, list(range(14)), 1 - float(root) - 1e-7,
                         3 - float(root), lambda t: 1.0))  # fmt: skip

    def far(u: mp.mpf) -> mp.mpf:
        z = 1 / mp.sqrt(u)
        return (mp.log(z) - 1 / (2 * z) - mp.digamma(z)) / u if u > 1e-7 else mp.mpf(1) / 12

    show("DIGAMMA_FAR", *fit(far, list(range(4)), 1e-10, 1 / 9, lambda u: u))
    for name, at, lo, hi, count in (
        ("LGAMMA_ONE", 1, -0.5, 0.5, 12),
        ("LGAMMA_TWO", 2, -0.5, 1.0, 9),
    ):
        slope = mp.digamma(at)
        near = mp.mpf(float(np.float32(float(slope))))

        def f(t: mp.mpf, at: int = at, slope: mp.mpf = slope, near: mp.mpf = near) -> mp.mpf:
            if abs(t) < 1e-6:
                return mp.psi(1, at) / 2 + (slope - near) / t
            return (mp.loggamma(at + t) / t - near) / t

        show(name, *fit(f, list(range(count)), lo, hi, abs))

    def stirling(u: mp.mpf) -> mp.mpf:
        z = 1 / mp.sqrt(u)
        rest = mp.loggamma(z) - (z - 0.5) * (mp.log(z) - 1) - (mp.log(2 * mp.pi) - 1) / 2
        return rest * z if u > 1e-7 else mp.mpf(1) / 12

    show("STIRLING", *fit(stirling, list(range(3)), 1e-10, 1 / 9, lambda u: u**0.5))


if __name__ == "__main__":
    main()
