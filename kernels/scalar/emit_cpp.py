"""C++ for the scalar functions, over the vector layer that every csrc/isa header provides."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from ree.kernels.scalar.functions import FUNCTIONS
from ree.kernels.scalar.language import BOOL, F32, I32, U32, Expr, Function, T, walk

_CTYPE = {F32: "F", I32: "I", U32: "I", BOOL: "M"}
_Tables = dict[tuple[int, ...], str]


def emit_all() -> str:
    """Text of csrc's scalar_generated.inl: every function as `name_`; for each function of one f32
    also `name_4(v)`, in place on four vectors, and a kernel `unary_name` (kernels/abi.py)."""
    tables: _Tables = {}
    code = [emit_function(f, tables) for f in FUNCTIONS.values()]
    unary = [f.name for f in FUNCTIONS.values() if f.params == (F32,) and f.result is F32]
    parts = ["// Generated from kernels/scalar/functions.py.", "#pragma once"]
    parts += ['#include "ops/common.inl"', "", "namespace ree::REE_ISA {", ""]
    parts += [_table(name, entries) for entries, name in tables.items()]
    parts += code + [_four(FUNCTIONS[name], tables) for name in unary]
    parts += [_kernel(name) for name in unary]
    names = " ".join(f"REE_KERNEL(unary_{name}, UnaryArgs)" for name in unary)
    parts += ["}  // namespace ree::REE_ISA", ""]
    parts += [f"#define REE_SCALAR_KERNELS {names}", ""]
    return "\n".join(parts)


def emit_function(function: Function, tables: _Tables) -> str:
    """One inline C++ function, `name_`; the tables it reads are added to `tables`. TypeError if it
    needs i64, which vectors here lack."""
    params = ", ".join(f"{_ctype(t)} x{i}" for i, t in enumerate(function.params))
    return (
        f"inline {_ctype(function.result)} {function.name}_({params}) {{\n"
        + "".join(f"  {line}\n" for line in _lines(function.body, tables))
        + "}\n"
    )


def _four(function: Function, tables: _Tables) -> str:
    """The function on four vectors, line by line: one vector alone is a single chain of dependent
    operations, which leaves most of a core idle."""
    lines = list(_lines(function.body, tables))
    text = f"inline __attribute__((always_inline)) void {function.name}_4(F* v) {{\n"
    for line in lines:
        for i in range(4):
            one = re.sub(r"\b(v\d+)\b", rf"\1_{i}", re.sub(r"\bx0\b", f"v[{i}]", line))
            text += f"  {one.replace('return', f'v[{i}] =')}\n"
    return text + "}\n"


def _lines(body: Expr, tables: _Tables) -> Iterator[str]:
    names: dict[Expr, str] = {}
    text_of: dict[str, str] = {}
    for node in walk(body):
        args = [names[a] for a in node.args]
        if node.op == "param":
            names[node] = f"x{node.value}"
        elif node.op == "const":
            names[node] = _const(node)
        else:
            text = _lookup(node, args, tables) if node.op == "table" else _EMIT[node.op](node, args)
            names[node] = f"v{len(names)}"
            text_of[names[node]] = f"const {_ctype(node.type)} {names[node]} = {text};"
    used = {names[body]}  # a condition may have been folded into lesser or greater
    for name, text in reversed(text_of.items()):
        if name in used:
            used.update(re.findall(r"\bv\d+\b", text))
    yield from (text for name, text in text_of.items() if name in used)
    yield f"return {names[body]};"


def _ctype(t: T) -> str:
    if t not in _CTYPE:
        raise TypeError(f"the C++ vector layer has no {t.text}")
    return _CTYPE[t]


def _table(name: str, entries: tuple[int, ...]) -> str:
    values = (*entries, *(0,) * (16 - len(entries)))
    return f"alignas(64) static const uint32_t {name}[16] = {{" + (
        ", ".join(f"0x{v:08x}u" for v in values) + "};"
    )


def _lookup(node: Expr, args: list[str], tables: _Tables) -> str:
    assert isinstance(node.value, tuple)
    if len(node.value) > 16:
        raise TypeError("tables have at most 16 entries")
    name = tables.setdefault(node.value, f"table{len(tables)}_")
    return f"lookup16({name}, {args[0]})"


def _kernel(name: str) -> str:
    return f"""static void unary_{name}(Pool& pool, const abi::UnaryArgs& p) {{
  const float* const x = p.x;
  float* const y = p.y;
  const int64_t n = p.n, block = 16384;
  pool.parallel_for(ceil_div(n, block), [=](int64_t b, int) {{
    const int64_t start = b * block, count = n - start < block ? n - start : block;
    const float* const in = x + start;
    float* const out = y + start;
    int64_t i = 0;
    for (; i + 4 * W <= count; i += 4 * W) {{
      F v[4] = {{load(in + i), load(in + i + W), load(in + i + 2 * W), load(in + i + 3 * W)}};
      {name}_4(v);
      for (int j = 0; j < 4; ++j) store(out + i + j * W, canonical(v[j]));
    }}
    for (; i + W <= count; i += W) store(out + i, canonical({name}_(load(in + i))));
    if (i < count) {{
      const int rest = static_cast<int>(count - i);
      store_partial(out + i, canonical({name}_(load_partial(in + i, rest))), rest);
    }}
  }});
}}
"""


def _const(node: Expr) -> str:
    assert isinstance(node.value, int)
    if node.type is BOOL:
        return f"set1m({'true' if node.value else 'false'})"
    if node.type is not F32:
        return f"set1i(0x{node.value & 0xFFFFFFFF:08x}u)"
    value = float(struct.unpack("<f", struct.pack("<I", node.value))[0])
    if value - value != 0:
        return f"from_bits(set1i(0x{node.value:08x}u))"
    return f"set1({value.hex()}f)"


def _select(node: Expr, args: list[str]) -> str:
    condition, a, b = node.args
    if condition.op == "lt" and a.type is F32:
        # one instruction where the machine's own minimum or maximum is exactly this choice
        if condition.args == (a, b):
            return f"lesser({args[1]}, {args[2]})"
        if condition.args == (b, a):
            return f"greater({args[1]}, {args[2]})"
    return f"select({', '.join(args)})"


def _convert(node: Expr, args: list[str]) -> str:
    source, target, x = node.args[0].type, node.type, args[0]
    _ctype(source), _ctype(target)
    if source is F32:
        return f"ne({x}, zero())" if target is BOOL else f"f2i({x})"
    if source is BOOL:
        ones = "set1(1.0f), zero()" if target is F32 else "set1i(1u), set1i(0u)"
        return f"select({x}, {ones})"
    if target is F32:
        return f"i2f({x})" if source is I32 else f"u2f({x})"
    return f"nei({x}, set1i(0u))" if target is BOOL else x


def _bitcast(node: Expr, args: list[str]) -> str:
    if node.type is F32:
        return f"from_bits({args[0]})"
    return f"bits({args[0]})" if node.args[0].type is F32 else args[0]


def _shift(node: Expr, args: list[str]) -> str:
    name = "shl" if node.op == "shl" else "shr" if node.type is U32 else "sar"
    if node.args[1].op == "const":
        return f"{name}({args[0]}, {node.args[1].value})"
    return f"{name}v({args[0]}, {args[1]})"


_Rule = Callable[[Expr, list[str]], str]


def _call(f32: str = "", signed: str = "", unsigned: str = "", mask: str = "") -> _Rule:
    """A call of the vector layer's function for the type of the first operand."""
    names = {F32: f32, I32: signed, U32: unsigned, BOOL: mask}

    def rule(node: Expr, args: list[str]) -> str:
        name = names.get(node.args[0].type)
        if not name:
            raise TypeError(f"{node.op} on {node.args[0].type.text} has no C++ form")
        return f"{name}({', '.join(args)})"

    return rule


def _unary(f32: str, integer: str, mask: str) -> _Rule:
    """Like `_call` for operations that integers spell as a binary one with a constant."""

    def rule(node: Expr, args: list[str]) -> str:
        text = {F32: f32, BOOL: mask}.get(node.type, integer)
        if not text:
            raise TypeError(f"{node.op} on {node.type.text} has no C++ form")
        return text.format(args[0])

    return rule


_EMIT: dict[str, _Rule] = {
    "select": _select,
    "convert": _convert,
    "bitcast": _bitcast,
    "add": _call("add", "addi", "addi"),
    "sub": _call("sub", "subi", "subi"),
    "mul": _call("mul", "mullo", "mullo"),
    "fma": _call("fma"),
    "div": _call("div"),
    "sqrt": _call("sqrt"),
    "neg": _unary("neg({})", "subi(set1i(0u), {})", ""),
    "abs": _unary("abs({0})", "select(lti({0}, set1i(0u)), subi(set1i(0u), {0}), {0})", ""),
    "rint": _call("rint"),
    "lt": _call("lt", "lti", "ltu"),
    "le": _call("le", "lei", "leu"),
    "eq": _call("eq", "eqi", "eqi"),
    "ne": _call("ne", "nei", "nei"),
    "and": _call("", "andi", "andi", "and_m"),
    "or": _call("", "ori", "ori", "or_m"),
    "xor": _call("", "xori", "xori", "xor_m"),
    "not": _unary("", "xori({}, set1i(0xffffffffu))", "not_m({})"),
    "shl": _shift,
    "shr": _shift,
    "mul_hi": _call("", "", "mulhi"),
}
