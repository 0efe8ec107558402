"""Canonical text of a graph: printing and strict parsing (print(parse(t)) == t)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from ree.compiler.ir import PREFIX, Const, Graph, Node, Ref, Symbol
from ree.kernels import opdef, registry  # noqa: F401  (all operators)
from ree.kernels.opdef import AttrValue
from ree.kernels.schema import check_attrs
from ree.kernels.types import MAX_RANK, Dim, DType, Shape, Sym, TensorType, parse_dim

MAX_TEXT = 64 << 20
MAX_INLINE = 64  # bytes; larger constants are named by their digest and stored beside the text
MAX_NESTED = 8  # tuples in tuples of an attribute
ConstLoader = Callable[[int, TensorType, str], bytes]


class GraphError(ValueError):
    """A graph text that is malformed; the message has the line number."""


def print_graph(g: Graph) -> str:
    """The canonical text."""
    from ree.traces.tensor import tensor_hash

    out = [f"ree.graph {g.contract}"]
    out += [f"symbol {s.name} {s.low} {s.high}" for s in g.symbols]
    out += [f"input @i{i} : {t}" for i, t in enumerate(g.inputs)]
    out += [f"weight @w{i} : {t}" for i, t in enumerate(g.weights)]
    out += [f"state @s{i} : {t}" for i, t in enumerate(g.states)]
    for i, c in enumerate(g.consts):
        small = len(c.data) <= MAX_INLINE
        body = "0x" + c.data.hex() if small else "sha256:" + tensor_hash(c.array()).hex()
        out.append(f"const @c{i} : {c.type} = {body}")
    out += [print_node(n) for n in g.nodes]
    out.append("return " + ", ".join(map(str, g.outputs)))
    return "\n".join(out) + "\n"


def print_node(n: Node) -> str:
    """One node, one line."""
    left = ", ".join(f"%{n.first + i}" for i in range(len(n.results)))
    attrs = print_attrs(n)
    sources = ", ".join(map(str, n.sources))
    types = ", ".join(map(str, n.results))
    return f"{left} = {n.op}({sources})" + (f" {{{attrs}}}" if attrs else "") + f" : {types}"


def print_attrs(n: Node) -> str:
    """A node's attributes as in its line. It tells them apart where Python finds 0.0, -0.0 and False equal."""
    return ", ".join(f"{k}={print_attr(v)}" for k, v in n.attrs)


def print_attr(v: AttrValue) -> str:
    """Attribute text: ints and dimensions as such, floats by their float32 bits."""
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, float):
        return "f0x" + struct.pack(">f", v).hex()
    if isinstance(v, DType):
        return v.text
    if isinstance(v, str):
        return f'"{v}"'
    if isinstance(v, tuple):
        return "(" + ",".join(print_attr(x) for x in v) + ")"
    return str(v)


_LINE = re.compile(r"^((?:%\d+(?:, )?)+) = ([a-z_0-9]+)\(([^()]*)\)(?: \{(.*)\})? : (.+)$")
_TYPE = re.compile(r"^([a-z0-9]+)\[(.*)\]$")


def parse_graph(text: str, load_const: ConstLoader | None = None) -> Graph:
    """The graph a canonical text describes; GraphError if it is malformed or not canonical.

    load_const(index, type, digest) supplies the bytes of constants that are not inline; the caller
    has checked them against the digest.
    """
    if len(text) > MAX_TEXT:
        raise GraphError(f"graph text too long: expected at most {MAX_TEXT}, got {len(text)}")
    p = _Parser(text, load_const)
    g = p.parse()
    if print_graph(g) != text:
        raise GraphError("graph text is not canonical")
    return g


class _Parser:
    def __init__(self, text: str, load_const: ConstLoader | None) -> None:
        self.lines = text.split("\n")
        self.load_const = load_const
        self.symbols: list[Symbol] = []
        self.inputs: list[TensorType] = []
        self.weights: list[TensorType] = []
        self.states: list[TensorType] = []
        self.consts: list[Const] = []
        self.nodes: list[Node] = []
        self.values = 0
        self.number = 0

    def fail(self, message: str) -> GraphError:
        return GraphError(f"graph line {self.number}: {message}")

    def parse(self) -> Graph:
        head = self.lines[0].split(" ")
        self.number = 1
        if len(head) != 2 or head[0] != "ree.graph":
            raise self.fail("expected 'ree.graph CONTRACT'")
        outputs: tuple[Ref, ...] | None = None
        for number, line in enumerate(self.lines[1:], start=2):
            self.number = number
            try:
                outputs = self.line(line, outputs)
            except GraphError:
                raise
            except (ValueError, IndexError, KeyError, TypeError) as e:
                raise self.fail(str(e)) from e
        if outputs is None:
            raise self.fail("expected a return line")
        return Graph(tuple(self.symbols), tuple(self.inputs), tuple(self.weights),
                     tuple(self.consts), tuple(self.nodes), outputs, head[1],
                     tuple(self.states))  # fmt: skip

    def line(self, line: str, outputs: tuple[Ref, ...] | None) -> tuple[Ref, ...] | None:
        if outputs is not None:
            if line == "" and self.number == len(self.lines):
                return outputs
            raise self.fail("nothing may follow the return line")
        word, _, rest = line.partition(" ")
        if word == "symbol":
            name, low, high = rest.split(" ")
            if not re.fullmatch(r"s\d{1,4}", name):
                raise self.fail(f"bad symbol '{name[:20]}'")
            self.symbols.append(Symbol(name, int(low), int(high)))
        elif word in ("input", "weight", "state"):
            _, _, t = rest.partition(" : ")
            types = {"input": self.inputs, "weight": self.weights, "state": self.states}[word]
            types.append(self.type(t))
        elif word == "const":
            self.const(rest)
        elif word == "return":
            return tuple(self.ref(r) for r in rest.split(", "))
        else:
            self.node(line)
        return None

    def const(self, rest: str) -> None:
        head, _, body = rest.partition(" = ")
        t = self.type(head.partition(" : ")[2])
        if body.startswith("0x"):
            data = bytes.fromhex(body[2:])
        elif body.startswith("sha256:") and self.load_const is not None:
            data = self.load_const(len(self.consts), t, body[7:])
        else:
            raise self.fail("constant without data")
        if len(data) != t.nbytes:
            raise self.fail(f"constant of {t}: expected {t.nbytes} bytes, got {len(data)}")
        self.consts.append(Const(t, data))

    def node(self, line: str) -> None:
        m = _LINE.match(line)
        if m is None:
            raise self.fail(f"expected a node, got '{line[:60]}'")
        left, op, sources, attrs, types = m.groups()
        first = self.values
        results = tuple(self.type(t) for t in _split(types, ", "))
        if left != ", ".join(f"%{first + i}" for i in range(len(results))):
            raise self.fail(f"expected results numbered from %{first}, got '{left[:40]}'")
        pairs = tuple(self.attr(a) for a in _split(attrs or "", ", "))
        if len(dict(pairs)) != len(pairs):
            raise self.fail(f"an attribute of {op} stands twice")
        typed = opdef.typed(op)
        if typed is not None:
            check_attrs(op, typed.closed_schema, dict(pairs))
        refs = tuple(self.ref(r) for r in sources.split(", ")) if sources else ()
        self.nodes.append(Node(op, refs, pairs, results, first))
        self.values += len(results)

    def attr(self, text: str) -> tuple[str, AttrValue]:
        key, eq, value = text.partition("=")
        if not eq or not key.isidentifier():
            raise self.fail(f"bad attribute '{text[:40]}'")
        return key, self.attr_value(value)

    def attr_value(self, text: str, nested: int = 0) -> AttrValue:
        if text in ("true", "false"):
            return text == "true"
        if re.fullmatch(r"f0x[0-9a-f]{8}", text):
            return float(struct.unpack(">f", bytes.fromhex(text[3:]))[0])
        if re.fullmatch(r'"[a-z_]{0,40}"', text):
            return text[1:-1]
        if text.startswith("(") and text.endswith(")"):
            if nested == MAX_NESTED:
                raise self.fail(f"attribute nested over {MAX_NESTED} deep")
            return tuple(self.attr_value(x, nested + 1) for x in _split(text[1:-1], ","))
        for d in DType:
            if d.text == text:
                return d
        return self.dim(text)

    def dim(self, text: str) -> Dim:
        d = parse_dim(text)
        if isinstance(d, Sym):
            from ree.kernels.types import symbols_of

            unknown = symbols_of(d) - {s.name for s in self.symbols}
            if unknown:
                raise self.fail(f"undeclared symbol {sorted(unknown)[0]}")
        return d

    def type(self, text: str) -> TensorType:
        m = _TYPE.match(text)
        if m is None:
            raise self.fail(f"expected a type, got '{text[:40]}'")
        shape: Shape = tuple(self.dim(d) for d in _split(m.group(2), ","))
        if len(shape) > MAX_RANK:
            raise self.fail(f"rank: expected at most {MAX_RANK}, got {len(shape)}")
        if any(isinstance(d, int) and d < 0 for d in shape):
            raise self.fail(f"negative dimension in {text[:40]}")
        return TensorType(DType.parse(m.group(1)), shape)

    def ref(self, text: str) -> Ref:
        for kind, prefix in PREFIX.items():
            if text.startswith(prefix) and text[len(prefix) :].isdecimal():
                return Ref(kind, int(text[len(prefix) :]))
        raise self.fail(f"expected a source, got '{text[:40]}'")


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside parentheses and brackets."""
    if not text:
        return []
    parts, depth, start, i = [], 0, 0, 0
    while i < len(text):
        if text[i] in "([":
            depth += 1
        elif text[i] in ")]":
            depth -= 1
        elif depth == 0 and text.startswith(separator, i):
            parts.append(text[start:i])
            i += len(separator)
            start = i
            continue
        i += 1
    parts.append(text[start:])
    return parts
