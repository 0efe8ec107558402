"""Signatures of kernels as C++: a struct of named fields for each, its reader, and the list of kernels."""

from __future__ import annotations

from ree.kernels.abi import SIGNATURES, BufferArg, Param, Signature, version

ELEMENTS = {"f32": "float", "i64": "int64_t", "u32": "uint32_t", "u64": "uint64_t",
            "i32": "int32_t", "i8": "int8_t", "bytes": "void"}  # fmt: skip


def struct_name(kernel: str) -> str:
    return "".join(part.capitalize() for part in kernel.split("_")) + "Args"


def header() -> str:
    """Text of csrc's `abi.hpp`."""
    # kernels of one signature share a struct
    first: dict[tuple[object, ...], str] = {}
    parts, entries = [], []
    for name, s in SIGNATURES.items():
        key = (s.buffers, s.params, s.takes_tile)
        if key in first:
            parts.append(f"using {struct_name(name)} = {struct_name(first[key])};\n")
        else:
            first[key] = name
            parts.append(_struct(s))
        if name != "unary":
            entries.append(f"  REE_KERNEL({name}, {struct_name(name)})")
    return "\n".join([
        "// The arguments of kernels by name, written by csrc/generate.py from kernels/abi.py.",
        "#pragma once", "#include <cstddef>", "#include <cstdint>", "", '#include "core/math.hpp"',
        '#include "kernel.hpp"', "",
        "namespace ree::abi {", "", f'inline constexpr char kVersion[] = "{version()}";', "", *parts,
        "}  // namespace ree::abi", "",
        "#define REE_KERNELS \\", " \\\n".join(entries), "",
    ])  # fmt: skip


def _struct(s: Signature) -> str:
    name = struct_name(s.name)
    fields, reads = [], []
    for p in s.params:
        field, read = _param(p)
        fields.append(field)
        reads.append(read)
    for b in s.buffers:  # behind the parameters, which say how many there are
        field, read = _buffer(b)
        fields.append(field)
        reads.append(read)
    if s.takes_tile:
        fields += ["TileFn tile;  // nullptr: none", "void* const* tile_buffers;",
                   "const int64_t* tile_params;"]  # fmt: skip
        reads += ["tile = reinterpret_cast<TileFn>(*param_++);", "tile_params = param_;",
                  "tile_buffers = buffer_;"]  # fmt: skip
    buffers = "" if s.buffers or s.takes_tile else "[[maybe_unused]] "
    return "\n".join([
        f"struct {name} {{", *(f"  {x}" for x in fields), "",
        f"  {name}({buffers}void* const* buffer_, const int64_t* param_) {{",
        *(f"    {x}" for x in reads), "  }",
        "  // Whether a call has the buffers and parameters that it must have.",
        f"  static bool fits({_fits_arguments(s)}) {{", *(f"    {x}" for x in _fits(s)), "  }", "};", "",
    ])  # fmt: skip


def _param(p: Param) -> tuple[str, str]:
    if p.element == "f32":
        return f"float {p.name};", f"{p.name} = float_of(static_cast<uint32_t>(*param_++));"
    if not p.shape:
        return f"int64_t {p.name};", f"{p.name} = *param_++;"
    if all(isinstance(n, int) for n in p.shape):
        (n,) = p.shape
        return f"int64_t {p.name}[{n}];", f"for (int64_t& x_ : {p.name}) x_ = *param_++;"
    size = " * ".join(map(str, p.shape))
    return f"const int64_t* {p.name};  // {size}", f"{p.name} = param_, param_ += {size};"


def _buffer(b: BufferArg) -> tuple[str, str]:
    if b.count:
        return f"void* const* {b.name};  // {b.count}", f"{b.name} = buffer_, buffer_ += {b.count};"
    element = ELEMENTS[b.element] if b.written else f"const {ELEMENTS[b.element]}"
    note = "  // may be null" if b.nullable else ""
    return f"{element}* {b.name};{note}", f"{b.name} = static_cast<{element}*>(*buffer_++);"


def _counts(s: Signature) -> list[str]:
    """Parameters that say how many of something there are."""
    used = [n for p in s.params for n in p.shape if isinstance(n, str)]
    return list(dict.fromkeys([*used, *(b.count for b in s.buffers if b.count)]))


def _fits_arguments(s: Signature) -> str:
    buffers = "" if s.buffers else "[[maybe_unused]] "
    params = "" if _counts(s) else "[[maybe_unused]] "
    return f"{buffers}size_t buffers_, {params}const int64_t* param_, size_t params_"


def _fits(s: Signature) -> list[str]:
    counts = _counts(s)
    if not counts:
        same = ">=" if s.takes_tile else "=="
        checks = [f"params_ {same} {s.fixed + s.takes_tile}"]
        if s.buffers:
            checks.insert(0, f"buffers_ {same} {len(s.buffers)}")
        return [f"return {' && '.join(checks)};"]
    index = {p.name: i for i, p in enumerate(s.params)}  # those before a count are single numbers
    lines = [f"if (params_ < {s.fixed}) return false;"]
    lines += [f"const int64_t {n} = param_[{index[n]}];" for n in counts]
    lines += [f"if ({n} < 0 || {n} > INT32_MAX) return false;" for n in counts]
    params = [str(s.fixed), *(" * ".join(map(str, p.shape)) for p in s.params
                              if any(isinstance(n, str) for n in p.shape))]  # fmt: skip
    buffers = [str(sum(not b.count for b in s.buffers)), *(b.count for b in s.buffers if b.count)]
    return [
        *lines,
        f"return static_cast<int64_t>(buffers_) == {' + '.join(buffers)} &&",
        f"       static_cast<int64_t>(params_) == {' + '.join(params)};",
    ]
