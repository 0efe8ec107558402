"""C++ for the scalar functions, over the vector layer that every csrc/isa header provides."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ree.kernels.scalar import (
    NAN_UNUSED,
    Expr,
    Function,
    Table,
    f32_value,
    tables_of,
    topological,
)
from ree.kernels.scalar_functions import FUNCTIONS

_PRELUDE = """// NaN if either is NaN; -0 < +0. The bits of equal operands differ only in the sign of zero.
inline F nan_if_unordered(F a, F b, F r) {
  return select(or_m(le(a, b), lt(b, a)), r, from_bits(set1i(0x7fc00000u)));
}
inline F minimum(F a, F b) {
  const F same = from_bits(ori(bits(a), bits(b)));
  return nan_if_unordered(a, b, select(eq(a, b), same, lesser(a, b)));
}
inline F maximum(F a, F b) {
  const F same = from_bits(andi(bits(a), bits(b)));
  return nan_if_unordered(a, b, select(eq(a, b), same, greater(a, b)));
}
"""
_CTYPE = {"f32": "F", "i32": "I", "u32": "I", "bool": "M"}
_SUFFIX = {"f32": "", "i32": "i", "u32": "u", "bool": "_m"}


def emit_all() -> str:
    """Text of csrc's scalar_generated.inl: every function as `name_`, and a kernel
    `unary_name(bufs: x, y; params: n)` for each function of one f32."""
    functions = FUNCTIONS.values()
    unary = [f for f in functions if [t for _, t in f.params] == ["f32"] and f.type == "f32"]
    parts = ["// Generated from kernels/scalar_functions.py.", "namespace ree::REE_ISA {", "", _PRELUDE]
    parts += [_table(t) for t in tables_of(functions).values()]
    parts += [emit_function(f) for f in functions]
    parts += [_kernel(f.name) for f in unary]
    names = " ".join(f"REE_KERNEL(unary_{f.name})" for f in unary)
    parts += ["}  // namespace ree::REE_ISA", "", "#undef REE_SCALAR_KERNELS"]
    parts += [f"#define REE_SCALAR_KERNELS {names}", ""]
    return "\n".join(parts)


def emit_function(function: Function) -> str:
    """One inline C++ function, `name_`. TypeError if it needs i64, which vectors here lack."""
    params = ", ".join(f"{_ctype(t)} {n}" for n, t in function.params)
    return (
        f"inline {_ctype(function.type)} {function.name}_({params}) {{\n"
        + "".join(f"  {line}\n" for line in _lines(function.body))
        + "}\n"
    )


def _lines(body: Expr) -> Iterable[str]:
    names: dict[Expr, str] = {}
    for node in topological(body):
        text = _EMIT[node.op](node, [names[a] for a in node.args])
        if node.op in ("const", "param"):
            names[node] = text
        else:
            names[node] = f"v{len(names)}"
            yield f"const {_ctype(node.type)} {names[node]} = {text};"
    yield f"return {names[body]};"


def _ctype(kind: str) -> str:
    if kind not in _CTYPE:
        raise TypeError(f"the C++ vector layer has no {kind}")
    return _CTYPE[kind]


def _table(t: Table) -> str:
    values = t.values * (16 // len(t.values))
    return f"alignas(64) static const uint32_t {t.name}_[16] = {{" + (
        ", ".join(f"0x{v:08x}u" for v in values) + "};"
    )


def _kernel(name: str) -> str:
    return f"""static void unary_{name}(Pool& pool, void* const* bufs, const int64_t* params) {{
  const float* x = static_cast<const float*>(bufs[0]);
  float* y = static_cast<float*>(bufs[1]);
  const int64_t n = params[0], block = 16384;
  pool.parallel_for((n + block - 1) / block, [&](int64_t b, int) {{
    const int64_t end = n < (b + 1) * block ? n : (b + 1) * block;
    const auto canonical = [](F v) {{ return select(eq(v, v), v, from_bits(set1i(0x7fc00000u))); }};
    int64_t i = b * block;
    for (; i + W <= end; i += W) store(y + i, canonical({name}_(load(x + i))));
    if (i < end) {{
      const int rest = static_cast<int>(end - i);
      store_partial(y + i, canonical({name}_(load_partial(x + i, rest))), rest);
    }}
  }});
}}
"""


def _const(node: Expr, args: list[str]) -> str:
    assert isinstance(node.attr, int)
    if node.type == "bool":
        return f"set1m({'true' if node.attr else 'false'})"
    if node.type != "f32":
        return f"set1i(0x{node.attr & 0xFFFFFFFF:08x}u)"
    value = f32_value(node.attr)
    if value - value != 0:
        return f"from_bits(set1i(0x{node.attr:08x}u))"
    return f"set1({value.hex()}f)"


def _param(node: Expr, args: list[str]) -> str:
    return str(node.attr)


def _select(node: Expr, args: list[str]) -> str:
    condition, a, b = node.args
    if condition.op == "lt" and a.type == "f32":
        # one instruction where the machine's own minimum or maximum is exactly this choice
        if condition.args == (a, b):
            return f"lesser({args[1]}, {args[2]})"
        if condition.args == (b, a):
            return f"greater({args[1]}, {args[2]})"
    return f"select({', '.join(args)})"


def _convert(node: Expr, args: list[str]) -> str:
    source, target, x = node.args[0].type, node.type, args[0]
    if "i64" in (source, target):
        raise TypeError("the C++ vector layer has no i64")
    if source == "f32":
        return f"ne({x}, zero())" if target == "bool" else f"f2i({x})"
    if source == "bool":
        one = "set1(1.0f)" if target == "f32" else "set1i(1u)"
        return f"select({x}, {one}, {'zero()' if target == 'f32' else 'set1i(0u)'})"
    if target == "f32":
        return f"{'i2f' if source == 'i32' else 'u2f'}({x})"
    return f"nei({x}, set1i(0u))" if target == "bool" else x


def _bitcast(node: Expr, args: list[str]) -> str:
    if node.type == "f32":
        return f"from_bits({args[0]})"
    if node.args[0].type != "f32":
        return args[0]
    if node.attr == NAN_UNUSED:
        return f"bits({args[0]})"
    return f"select(eq({args[0]}, {args[0]}), bits({args[0]}), set1i(0x7fc00000u))"


def _lookup(node: Expr, args: list[str]) -> str:
    assert isinstance(node.attr, Table)
    return f"lookup16({node.attr.name}_, {args[0]})"


def _shift(node: Expr, args: list[str]) -> str:
    amount = node.args[1]
    if amount.op == "const":
        assert isinstance(amount.attr, int)
        return f"{node.op}({args[0]}, {amount.attr % 32})"
    masked = amount.op == "and" and any(
        a.op == "const" and isinstance(a.attr, int) and 0 <= a.attr < 32 for a in amount.args
    )
    n = args[1] if masked else f"andi({args[1]}, set1i(31u))"
    return f"{node.op}v({args[0]}, {n})"


def _by_type(**names: str) -> Callable[[Expr, list[str]], str]:
    """Emit the call `names[type of the first operand](args)`."""

    def emit(node: Expr, args: list[str]) -> str:
        kind = node.args[0].type
        if kind not in names:
            raise TypeError(f"{node.op} on {kind} has no C++ form")
        return f"{names[kind]}({', '.join(args)})"

    return emit


def _arithmetic(name: str, integer: str) -> Callable[[Expr, list[str]], str]:
    return _by_type(f32=name, i32=integer, u32=integer)


def _compare(f: str, i: str, u: str) -> Callable[[Expr, list[str]], str]:
    return _by_type(f32=f, i32=i, u32=u)


def _logic(integer: str, mask: str) -> Callable[[Expr, list[str]], str]:
    return _by_type(i32=integer, u32=integer, bool=mask)


def _not(node: Expr, args: list[str]) -> str:
    return f"not_m({args[0]})" if node.type == "bool" else f"xori({args[0]}, set1i(0xffffffffu))"


_EMIT: dict[str, Callable[[Expr, list[str]], str]] = {
    "const": _const,
    "param": _param,
    "lookup": _lookup,
    "select": _select,
    "convert": _convert,
    "bitcast": _bitcast,
    "add": _arithmetic("add", "addi"),
    "sub": _arithmetic("sub", "subi"),
    "mul": _arithmetic("mul", "mullo"),
    "fma": _by_type(f32="fma"),
    "div": _by_type(f32="div"),
    "sqrt": _by_type(f32="sqrt"),
    "neg": _by_type(f32="neg"),
    "abs": _by_type(f32="abs"),
    "min": _by_type(f32="minimum"),
    "max": _by_type(f32="maximum"),
    "rint": _by_type(f32="rint"),
    "lt": _compare("lt", "lti", "ltu"),
    "le": _compare("le", "lei", "leu"),
    "eq": _compare("eq", "eqi", "eqi"),
    "ne": _compare("ne", "nei", "nei"),
    "and": _logic("andi", "and_m"),
    "or": _logic("ori", "or_m"),
    "xor": _logic("xori", "xor_m"),
    "not": _not,
    "shl": _shift,
    "shr": _shift,
    "sar": _shift,
    "mulhi": _by_type(u32="mulhi"),
}
