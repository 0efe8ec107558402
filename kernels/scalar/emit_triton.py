"""Triton source for the scalar language: text only, nothing of Triton is imported.

The text uses the helpers of triton_lib.py. Constants are given by their bits: Triton reads a subnormal
literal as float64 and computes -0.0 as 0 - 0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ree.kernels.scalar.language import BOOL, F32, I32, I64, U32, Expr, Function, T, walk

TYPE = {F32: "tl.float32", I32: "tl.int32", U32: "tl.uint32", I64: "tl.int64", BOOL: "tl.int1"}


def lines(
    roots: Sequence[Expr], params: Mapping[int, str], prefix: str
) -> tuple[list[str], list[str]]:
    """(assignments, names of the roots): every expression under the roots, once.

    params: names of the parameters by index. prefix: of the names that are assigned.
    """
    names: dict[Expr, str] = {}
    out: list[str] = []
    for root in roots:
        for e in walk(root):
            if e in names:
                continue
            if e.op == "param":
                assert isinstance(e.value, int)
                names[e] = params[e.value]
                continue
            names[e] = f"{prefix}{len(names)}"
            out.append(f"{names[e]} = {_text(e, [names[a] for a in e.args])}")
    return out, [names[r] for r in roots]


def function_source(function: Function) -> str:
    """A `@triton.jit` function `<name>_`."""
    params = {i: f"x{i}" for i in range(len(function.params))}
    body, (result,) = lines([function.body], params, "v")
    text = "".join(f"    {line}\n" for line in [*body, f"return {result}"])
    return f"@triton.jit\ndef {function.name}_({', '.join(params.values())}):\n{text}"


def _text(e: Expr, args: list[str]) -> str:
    if e.op == "const":
        assert isinstance(e.value, int)
        return _const(e.value, e.type)
    if e.op == "table":
        assert isinstance(e.value, tuple)
        text = _const(e.value[-1], U32)
        for i, entry in reversed(list(enumerate(e.value[:-1]))):
            text = f"tl.where({args[0]} == {i}, {_const(entry, U32)}, {text})"
        return text
    if e.op == "convert":
        return _convert(e, args[0])
    if e.op == "bitcast":
        return f"{args[0]}.to({TYPE[e.type]}, bitcast=True)"
    rule = _RULES[e.op]
    return (rule if isinstance(rule, str) else rule(e.type)).format(*args)


def _const(value: int, t: T) -> str:
    if t is F32:
        return f"f32_bits(0x{value:08x})"
    if t is BOOL:
        return f"tl.full((), {bool(value)}, tl.int1)"
    width = 64 if t is I64 else 32
    signed = value - (1 << width) if t is not U32 and value >> (width - 1) else value
    return f"tl.full((), {signed}, {TYPE[t]})"


def _convert(e: Expr, x: str) -> str:
    source, target = e.args[0].type, e.type
    if target is BOOL:
        return f"({x} != 0)"
    if source is BOOL:
        # the cast of a bool is 0 or 1 for unsigned targets; for others say so
        return f"tl.where({x}, {_const(f32_one(target), target)}, {_const(0, target)})"
    if source is F32:
        return f"f32_to_{'i64' if target is I64 else 'i32'}({x})"
    return f"{x}.to({TYPE[target]})"


def f32_one(t: T) -> int:
    """The bits of 1 as a type."""
    return 0x3F800000 if t is F32 else 1


def _by_type(f32: str, other: str) -> Callable[[T], str]:
    return lambda t: f32 if t is F32 else other


_RULES: dict[str, str | Callable[[T], str]] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "fma": "tl.fma({0}, {1}, {2})",
    "div": "tl.div_rn({0}, {1})",
    "sqrt": "tl.sqrt_rn({0})",
    "neg": _by_type("f32_neg({0})", "0 - {0}"),
    "abs": _by_type("f32_abs({0})", "tl.where({0} < 0, 0 - {0}, {0})"),
    "rint": "f32_rint({0})",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "select": "tl.where({0}, {1}, {2})",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "xor": "{0} ^ {1}",
    "not": lambda t: "{0} == 0" if t is BOOL else "~{0}",
    "shl": "{0} << {1}",
    "shr": "{0} >> {1}",
    "mul_hi": "tl.umulhi({0}, {1})",
    "floordiv": "int_floordiv({0}, {1})",
    "mod": "int_mod({0}, {1})",
}
