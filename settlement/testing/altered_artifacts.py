"""Artifacts that somebody has altered and sealed anew, for tests: what is illegal is refused in one line, and
what is not gives the same bits everywhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from ree.artifact import from_files, to_files
from ree.artifact.format import CONSTANTS, GRAPH, MANIFEST, WEIGHTS
from ree.compiler.text import print_attr
from ree.errors import ArtifactError, ReeError
from ree.files.safetensors import parse_tensors
from ree.kernels import opdef, registry
from ree.kernels.canonical import FLOATS, canonical
from ree.kernels.opdef import Array
from ree.kernels.schema import Attr, AttrKind
from ree.kernels.types import LARGEST, MAX_RANK, DType
from ree.program import Program
from ree.runtime.hashing import hash_array
from ree.settlement.testing.adversary import examined, one_line
from ree.settlement.testing.random_programs import MOST, WORK, Case, Maker, Nothing
from ree.traces.trace import tensors_root

# integers, as they can stand in a text
NUMBERS = (0, 1, -1, 2, 8, 9, 64, 2**15, 2**16, LARGEST - 1, LARGEST, LARGEST + 1, 2**32 - 1, 2**32, 2**53 + 1,
           2**63 - 1, 2**63, -(2**31), -LARGEST, -(2**63), -(2**63) - 1, 2**64, 10**40)  # fmt: skip
OTHERS = ("true", "false", "f32", "bf16", "i64", "f0x3f800000", "f0x7fc00000", "f0x7fc00001", "f0xffc00000",
          "f0x00000001", "f0x80000000", "()", "(1,)", "((1))", "(" * 9 + ")" * 9, '"text"', "s0", "", "00",
          "-0", "+1", "1_0", " 1", "1e3", "0x10", "nan", "None", "mod(1,0)", "floordiv(1,0)", "1/0",
          "9" * 5000)  # fmt: skip
_NODE = re.compile(
    r"^(?P<left>%.*) = (?P<op>\w+)\((?P<sources>.*?)\)(?: \{(?P<attrs>.*)\})? : (?P<types>.*)$"
)


def check_artifact(seed: int) -> str:
    """What an alteration of a seed's program came to: nothing (there is none), refused, or what `examined` says
    of the program that it made. AssertionError if what is illegal is loaded, if a refusal is more than a line,
    or if the program differs anywhere."""
    rng = np.random.default_rng(seed)
    try:
        case = Maker(seed).make()
    except Nothing:
        return "nothing"
    try:
        program, note = loaded(case.program, rng, f"seed {seed}")
    except Nothing:
        return "nothing"
    return "refused" if program is None else _another(program, case, rng, note)


def loaded(program: Program, rng: np.random.Generator, note: str) -> tuple[Program | None, str]:
    """The program of an altered artifact of one, None if it is refused, and what was done. AssertionError if
    what is illegal is loaded or a refusal is more than a line. Nothing if there is nothing to alter."""
    ways = [_attribute, _attribute, _attribute, _text, _text, _bits]
    files, what, illegal = ways[int(rng.integers(len(ways)))](to_files(program), rng)
    note = f"{note}: {what[:300]}"
    try:
        found = from_files(files)
    except ArtifactError as e:
        e.add_note(note)
        one_line(e)
        return None, note
    except Exception as e:
        e.add_note(note)
        raise
    assert not illegal, f"loaded in spite of {note}"
    return found, note


def _another(program: Program, case: Case, rng: np.random.Generator, note: str) -> str:
    """What a program that a text made came to, if it is small enough to try."""
    given = dict(zip(case.program.graph.inputs, case.given, strict=True))
    g = program.graph
    if any(t not in given for t in g.inputs) or g.symbols:
        return "of other inputs"
    values = [t.numel for t in g.value_types()]
    costs = [opdef.get(n.op).cost(opdef.bind(n.op, [g.type_of(s) for s in n.sources], n.attr_map, {})).flops
             for n in g.nodes]  # fmt: skip
    if max(values, default=0) > 4 * MOST or max(costs, default=0) > 4 * WORK:
        return "large"
    try:
        return examined(Case(program, [given[t] for t in g.inputs], note), rng, note)
    except ReeError as e:
        e.add_note(note)
        raise


def sealed(files: Mapping[str, bytes], changed: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with some in the place of others, and every digest that is of them made anew."""
    out = {**files, **changed}
    manifest = json.loads(out[MANIFEST])
    for name, entry in manifest["files"].items():
        entry["bytes"], entry["sha256"] = len(out[name]), hashlib.sha256(out[name]).hexdigest()
    manifest["program"] = hashlib.sha256(out[GRAPH]).hexdigest()
    weights = parse_tensors(out[WEIGHTS])
    with suppress(ValueError):  # bools of other bytes have no hash
        hashes = [hash_array(canonical(weights[n])) for n in manifest["weights"]]
        manifest["weights_root"] = tensors_root(hashes).hex()
    out[MANIFEST] = json.dumps(manifest).encode()
    return out


Altered = tuple[
    dict[str, bytes], str, bool
]  # files, what was done, whether it is illegal for certain


def _attribute(files: Mapping[str, bytes], rng: np.random.Generator) -> Altered:
    """An attribute of a node that is missing, unknown, twice there, or of another type or range."""
    lines = files[GRAPH].decode().split("\n")
    nodes = [i for i, x in enumerate(lines) if x.startswith("%")]
    at = nodes[int(rng.integers(len(nodes)))]
    m = _NODE.match(lines[at])
    assert m is not None  # the line of a node
    attrs = dict(a.split("=", 1) for a in _apart(m["attrs"] or ""))
    op = opdef.typed(m["op"])
    assert op is not None  # of a program that was legal
    schema = op.closed_schema
    kind = int(rng.integers(6)) if attrs else 0
    name = sorted(attrs)[int(rng.integers(len(attrs)))] if attrs else ""
    items, illegal = list(attrs.items()), True
    if kind == 0:
        items.append((["a", "zz", "dim", "value", "_", "Dim"][int(rng.integers(6))], "0"))
        illegal = items[-1][0] not in attrs or len(dict(items)) < len(items)
    elif kind == 1:
        items = [x for x in items if x[0] != name]
    elif kind == 2:
        items.append((name, attrs[name]))
    else:
        value = _other(attrs[name], rng)
        items = [(k, value if k == name else v) for k, v in items]
        illegal = not may_be(schema[name], value) and value != attrs[name]
    items.sort(key=lambda x: x[0])
    text = ", ".join(f"{k}={v}" for k, v in items)
    head, tail = lines[at][: m.start("sources") - 1], f" : {m['types']}"
    lines[at] = f"{head}({m['sources']})" + (f" {{{text}}}" if text else "") + tail
    return sealed(files, {GRAPH: "\n".join(lines).encode()}), lines[at], illegal


def _other(value: str, rng: np.random.Generator) -> str:
    """Another value: a number, another type, or a tuple with another item or another length."""

    def number() -> str:
        near = int(value) if re.fullmatch(r"-?\d+", value) else 0
        found = [*NUMBERS, near + 1, near - 1, 2 * near]
        return str(found[int(rng.integers(len(found)))])

    if value.startswith("(") and rng.integers(3):
        items = _apart(value[1:-1], ",")
        match int(rng.integers(4)):
            case 0 if items:
                items[int(rng.integers(len(items)))] = number()
            case 1 if items:
                items.pop(int(rng.integers(len(items))))
            case 2:
                items += [number()] * int(rng.integers(1, 9))
            case _:
                items = [_apart(value[1:-1], ",")[0] if items else "0"] * 9
        return f"({','.join(items)})"
    if rng.integers(3) == 0:
        return OTHERS[int(rng.integers(len(OTHERS)))]
    return number()


def may_be(a: Attr, text: str) -> bool:
    """Whether a text can be a value of an attribute: what a schema says, from the text alone."""
    if a.kind in (AttrKind.INTS, AttrKind.DIMS):
        items = _apart(text[1:-1], ",")
        return (text.startswith("(") and text.endswith(")") and len(items) <= MAX_RANK
                and all(may_be(Attr(AttrKind.INT, a.low, a.high), x) for x in items))  # fmt: skip
    if re.fullmatch(r"0|-?[1-9]\d{0,99}", text):
        low, high = (-(2**63), 2**63 - 1) if a.kind is AttrKind.NUMBER else (a.low, a.high)
        return a.kind in (AttrKind.INT, AttrKind.DIM, AttrKind.NUMBER) and low <= int(text) <= high
    if re.fullmatch(r"f0x[0-9a-f]{8}", text):
        bits = int(text[3:], 16)
        odd = bits & 0x7FFFFFFF > 0x7F800000 and bits != 0x7FC00000
        return a.kind in (AttrKind.F32, AttrKind.NUMBER) and not odd
    if text in ("true", "false"):
        return a.kind in (AttrKind.BOOL, AttrKind.NUMBER)
    return a.kind is AttrKind.DTYPE and text in {print_attr(d) for d in DType}


def _text(files: Mapping[str, bytes], rng: np.random.Generator) -> Altered:
    """One or two places of the text changed, whatever comes of it."""
    lines = files[GRAPH].decode().split("\n")
    done = []
    for _ in range(int(rng.integers(1, 3))):
        i = int(rng.integers(len(lines)))
        lines[i : i + 1] = _line(lines, i, rng)
        done.append("; ".join(lines[i : i + 2]))
    return sealed(files, {GRAPH: "\n".join(lines).encode()}), " | ".join(done), False


def _line(lines: Sequence[str], i: int, rng: np.random.Generator) -> list[str]:
    """What stands in the place of a line."""
    line, other = lines[i], lines[int(rng.integers(len(lines)))]

    def instead(pattern: str, found: Iterator[str] | Sequence[str]) -> list[str]:
        places = [m.span() for m in re.finditer(pattern, line)]
        if not places:
            return [line]
        (a, b), new = places[int(rng.integers(len(places)))], list(found)
        return [line[:a] + new[int(rng.integers(len(new)))] + line[b:]]

    match int(rng.integers(9)):
        case 0:
            return instead(r"-?\d+", map(str, NUMBERS))
        case 1:
            return instead(r"[%@][iwcs]?\d+", re.findall(r"[%@][iwcs]?\d+", "\n".join(lines)))
        case 2:
            return instead(r"(?<= = )\w+(?=\()", registry.names())
        case 3:
            return instead(r"\b(f32|f16|bf16|i64|i32|i16|i8|u8|bool)\b", [d.text for d in DType])
        case 4:
            return [line, other]
        case 5:
            return []
        case 6:
            return instead(
                r"[ ,:={}()\[\]]", ["", " ", "  ", ",", "\t", "\r", "\x00", "é", "((", "]"]
            )
        case 7:
            return [other]
    return [line[: int(rng.integers(len(line) + 1))]]


def _bits(files: Mapping[str, bytes], rng: np.random.Generator) -> Altered:
    """A constant or a weight with bits that are not canonical: illegal."""
    text = files[GRAPH].decode()
    inline = re.finditer(r"const @c\d+ : (\w+)\[.*?\] = 0x([0-9a-f]+)", text)
    spots = [(GRAPH, m.start(2), len(m[2]) // 2, m[1]) for m in inline]
    found = [x for x in spots if DType.parse(x[3]) in (*FLOATS, DType.BOOL) and x[2]]
    if found and rng.integers(2):
        name, start, size, kind = found[int(rng.integers(len(found)))]
        dtype = DType.parse(kind)
        at = start + 2 * dtype.size * int(rng.integers(size // dtype.size))
        odd = _odd(dtype, rng).tobytes().hex()
        text = files[GRAPH].decode()
        return (
            sealed(files, {name: (text[:at] + odd + text[at + len(odd) :]).encode()}),
            f"bits {odd}",
            True,
        )
    for name, kinds in ((WEIGHTS, (*FLOATS, DType.BOOL)), (CONSTANTS, tuple(FLOATS))):
        tensors = parse_tensors(files[name])
        held = [k for k, x in tensors.items() if DType.of(x.dtype) in kinds and x.size]
        if not held:
            continue
        key, raw, graph = held[int(rng.integers(len(held)))], bytearray(files[name]), files[GRAPH]
        x, size = tensors[key], 8 + int.from_bytes(files[name][:8], "little")
        start = size + json.loads(files[name][8:size])[key]["data_offsets"][0]
        at = start + x.itemsize * int(rng.integers(x.size))
        raw[at : at + x.itemsize] = _odd(DType.of(x.dtype), rng).tobytes()
        if name == CONSTANTS:  # its digest is in the text
            new = hash_array(parse_tensors(bytes(raw))[key]).hex()
            graph = graph.replace(hash_array(x).hex().encode(), new.encode())
        return sealed(files, {name: bytes(raw), GRAPH: graph}), f"bits in {name}", True
    raise Nothing


def _odd(dtype: DType, rng: np.random.Generator) -> Array:
    """One element of a type in bits that are not canonical."""
    if dtype is DType.BOOL:
        return np.array(rng.integers(2, 256), np.uint8)
    kind, infinity, nan = FLOATS[dtype]
    sign = 1 << (8 * dtype.size - 1)
    bits = int(rng.integers(infinity + 1, sign)) | sign * int(rng.integers(2))
    return np.array(bits if bits != nan else bits | sign, kind)


def _apart(text: str, separator: str = ", ") -> list[str]:
    """Parts of a text between separators that stand in no parentheses."""
    out, depth = [""], 0
    for part in re.split(f"({re.escape(separator)})", text):
        if part == separator and depth == 0:
            out.append("")
            continue
        depth += part.count("(") - part.count(")")
        out[-1] += part
    return out if text else []
