"""How tensors are nested in the arguments and the result of a module's forward.

A program's inputs and outputs are flat and named; this is what turns a call into them and them into
what the module returns. It stands beside the program's identity, as names do, and is kept as JSON:

    "tensor"                             a tensor, the next of the program's
    "none"                               a field of an object that holds None, which torch leaves out
    {"constant": null | true | 3 | "s"}  part of the program; {"float": "0x1.8p+1"} for a float
    {"tuple": [...]}  {"list": [...]}  {"dict": [[key, ...], ...]}
    {"namedtuple": [type, [[field, ...], ...]]}  {"object": [type, [[field, ...], ...]]}
"""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

from ree.errors import InputError

MAX_DEPTH = 10
MAX_PARTS = 100_000
CONSTANTS = (type(None), bool, int, float, str)
_NAMED = ("namedtuple", "object")


@dataclass(frozen=True)
class Part:
    """A tensor, a constant (its `value`), or a container: its parts, by `keys` where it has some.

    type: module and name of the class of a namedtuple or an object.
    """

    kind: str
    parts: tuple[Part, ...] = ()
    keys: tuple[Any, ...] = ()
    type: str = ""
    value: Any = None

    @property
    def size(self) -> int:
        """Tensors within."""
        return 1 if self.kind == "tensor" else sum(p.size for p in self.parts)

    def __str__(self) -> str:
        inside = [f"{k}: {p}" for k, p in zip(self.keys, self.parts, strict=True)] if self.keys else [
            str(p) for p in self.parts]  # fmt: skip
        match self.kind:
            case "tensor":
                return "tensor"
            case "constant" | "none":
                return repr(self.value)
            case "tuple":
                return f"({', '.join(inside)}{',' * (len(inside) == 1)})"
            case "list":
                return f"[{', '.join(inside)}]"
        return f"{self.type.rpartition('.')[2]}{{{', '.join(inside)}}}"


TENSOR, NONE = Part("tensor"), Part("none")


@dataclass(frozen=True)
class Parameter:
    """An argument of forward. `default`: a part that is one constant may be left out, since forward
    has it as its default."""

    name: str
    part: Part
    default: bool = False


@dataclass(frozen=True)
class Structure:
    """Arguments, in the order of the program's inputs, what forward returns, and the arguments with
    constant defaults that were not given when it was compiled.

    tree: torch's own description of the result, which knows its classes; lost when written.
    """

    parameters: tuple[Parameter, ...]
    result: Part
    omitted: tuple[Parameter, ...] = ()
    tree: Any = None

    @cached_property
    def is_flat(self) -> bool:
        """Whether every argument is one tensor."""
        return all(p.part.kind == "tensor" for p in self.parameters)

    def build(self, tensors: Sequence[Any]) -> Any:
        """What forward returns, holding these tensors."""
        if self.result.kind == "tensor":
            return tensors[0]
        if self.tree is not None:
            from torch.utils._pytree import tree_unflatten

            mine = iter(tensors)
            leaves = [next(mine) if p.kind == "tensor" else p.value for p in leaves_of(self.result)]
            return tree_unflatten(leaves, self.tree)
        return _build(self.result, iter(tensors))

    def flatten(
        self, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], by_name: bool
    ) -> list[Any]:
        """The program's inputs in order, from a call like forward's; also by their own names.

        by_name: what is part of the program may be left out. InputError for a call that does not fit.
        """
        if len(args) > len(self.parameters):
            raise InputError(f"expected {len(self.parameters)} arguments, got {len(args)}")
        given: dict[str, Any] = {}
        at = {p.name: p for p in (*self.parameters, *self.omitted)}
        for p, value in zip(self.parameters, args, strict=False):
            given[p.name] = value
        flat = {}
        for name, value in kwargs.items():
            if name in at and not (by_name and name in names):
                if name in given:
                    raise InputError(f"input '{name}' is given twice")
                given[name] = value
            elif name in names:
                flat[name] = value
            else:
                raise InputError(f"unknown input '{name}'", f"inputs are {', '.join(names)}")
        out: list[Any] = []
        for p in self.parameters:
            mine = names[len(out) : len(out) + p.part.size]
            twice = [n for n in mine if n in flat and p.name in given]
            if twice:
                raise InputError(f"input '{twice[0]}' is given twice")
            if p.name in given:
                out += _flatten(p.part, given[p.name], p.name)
            elif not mine and not by_name and not p.default:
                raise InputError(
                    f"missing input '{p.name}'", f"the program was compiled for {p.part}"
                )
            else:
                missing = [n for n in mine if n not in flat]
                if missing:
                    raise InputError(
                        f"missing input '{missing[0]}'", f"inputs are {', '.join(names)}"
                    )
                out += [flat[n] for n in mine]
        for p in self.omitted:
            if p.name in given:
                _flatten(p.part, given[p.name], p.name)
        return out

    def output_names(self) -> tuple[str, ...]:
        """Distinct names of the tensors of the result: `logits` in a dict, `output0` in a tuple."""
        found: list[str] = []
        for i, path in enumerate(_paths(self.result, ())):
            head = path[:1] if path and isinstance(path[0], str) else (f"output{(*path, 0)[0]}",)
            name = ".".join(map(str, (*head, *path[1:])))
            plain = 0 < len(name) <= 200 and name.isprintable() and name != "__metadata__"
            if not plain or name in found:
                name = f"output{i}"
            while name in found:
                name += "_"
            found.append(name)
        return tuple(found)

    # as JSON

    def encode(self) -> dict[str, Any]:
        """The structure as JSON."""
        return {
            "parameters": [[p.name, _encode(p.part), p.default] for p in self.parameters],
            "omitted": [[p.name, _encode(p.part), True] for p in self.omitted],
            "result": _encode(self.result),
        }

    @classmethod
    def decode(cls, value: Any, inputs: int, outputs: int) -> Structure:
        """A structure from JSON that another has written; ValueError unless it is one for so many
        inputs and outputs."""
        if not isinstance(value, dict) or set(value) != {"parameters", "omitted", "result"}:
            raise ValueError("expected parameters, omitted and result")
        count = [0]
        lists = [_parameters(value[k], count) for k in ("parameters", "omitted")]
        found = cls(lists[0], _decode(value["result"], 0, count), lists[1])
        have = (sum(p.part.size for p in found.parameters), found.result.size)
        if have != (inputs, outputs) or any(p.part.kind != "constant" for p in found.omitted):
            raise ValueError(f"expected {inputs} inputs and {outputs} outputs")
        return found


def leaves_of(part: Part) -> Iterator[Part]:
    """Tensors and constants in order."""
    if part.kind in ("tensor", "constant"):
        yield part
    for p in part.parts:
        yield from leaves_of(p)


def _paths(part: Part, at: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if part.kind == "tensor":
        yield at
    for k, p in zip(part.keys or range(len(part.parts)), part.parts, strict=True):
        yield from _paths(p, (*at, k))


def _flatten(part: Part, value: Any, name: str) -> list[Any]:
    """Tensors of one argument."""
    if part.kind == "tensor":
        return [value]
    if part.kind in ("constant", "none"):
        if not is_same(value, part.value):
            raise InputError(f"input '{name}': the program was compiled for {part.value!r}, got "
                             f"{_shown(value)}", "compile it for this value")  # fmt: skip
        return []
    if part.kind in ("tuple", "list") or (part.kind == "namedtuple" and isinstance(value, tuple)):
        fits = isinstance(value, tuple | list) and len(value) == len(part.parts)
        values = list(value) if fits else []
    elif isinstance(value, Mapping):
        have = {k for k in value if part.kind == "dict" or value[k] is not None}
        fits = have == {k for k, p in zip(part.keys, part.parts, strict=True) if p.kind != "none"}
        values = [value.get(k) for k in part.keys] if fits else []
    else:
        fits = part.kind in _NAMED and all(hasattr(value, str(k)) for k in part.keys)
        values = [getattr(value, k) for k in part.keys] if fits else []
    if not fits:
        raise InputError(f"input '{name}': expected {part}, got {_shown(value)}")
    keys = part.keys or range(len(values))
    return [x for k, p, v in zip(keys, part.parts, values, strict=True)
            for x in _flatten(p, v, f"{name}.{k}")]  # fmt: skip


def is_same(value: Any, want: Any) -> bool:
    """Whether a value is the constant: 2 for 2.0, but not True for 1."""
    if not isinstance(value, CONSTANTS) or isinstance(value, bool) is not isinstance(want, bool):
        return False
    return bool(value == want or (value != value and want != want))


def _shown(value: Any) -> str:
    if isinstance(value, CONSTANTS):
        return repr(value)[:80]
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} of {', '.join(map(str, value))}"[:80]
    return type(value).__name__


class Record(dict[str, Any]):
    """Named results of a class that is not loaded here: by name, by attribute, by number."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        return (
            list(self.values())[key] if isinstance(key, int | slice) else super().__getitem__(key)
        )


def _build(part: Part, tensors: Iterator[Any]) -> Any:
    if part.kind == "tensor":
        return next(tensors)
    if part.kind in ("constant", "none"):
        return part.value
    values = [_build(p, tensors) for p in part.parts]
    if part.kind in ("tuple", "list"):
        return tuple(values) if part.kind == "tuple" else values
    named = dict(zip(part.keys, values, strict=True))
    if part.kind == "dict":
        return named
    found = _class(part)
    if part.kind == "namedtuple":
        made: Any = found or namedtuple(_word(part.type), part.keys, rename=True)
        return made._make(values)
    return Record(named) if found is None else found(**named)


def _class(part: Part) -> Any:
    """The class of a namedtuple or an object, if this process has it already: nothing is imported, and
    an object's must be a dataclass of these fields that torch takes apart."""
    module, _, name = part.type.rpartition(".")
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if not isinstance(found, type):
        return None
    if part.kind == "namedtuple":
        made = issubclass(found, tuple) and getattr(found, "_fields", None) == part.keys
        return found if made else None
    torch = sys.modules.get("torch.utils._pytree")
    if torch is None or found not in torch.SUPPORTED_NODES or not is_dataclass(found):
        return None
    return found if set(part.keys) <= {f.name for f in fields(found)} else None


def _word(text: str) -> str:
    name = text.rpartition(".")[2]
    return name if name.isidentifier() else "Result"


def _encode(part: Part) -> Any:
    if part.kind in ("tensor", "none"):
        return part.kind
    if part.kind == "constant":
        if isinstance(part.value, float):
            return {"float": part.value.hex()}
        return {"constant": part.value}
    parts = [_encode(p) for p in part.parts]
    rows = [list(row) for row in zip(part.keys, parts, strict=True)] if part.keys else []
    if part.kind in _NAMED:
        return {part.kind: [part.type, rows]}
    return {part.kind: rows if part.kind == "dict" else parts}


def _parameters(value: Any, count: list[int]) -> tuple[Parameter, ...]:
    if not isinstance(value, list) or not all(
        isinstance(r, list) and len(r) == 3 and isinstance(r[0], str) and isinstance(r[2], bool)
        for r in value
    ):
        raise ValueError(
            "parameters: expected rows of a name, a structure and whether it has a default"
        )
    return tuple(Parameter(r[0], _decode(r[1], 0, count), r[2]) for r in value)


def _decode(value: Any, depth: int, count: list[int]) -> Part:
    count[0] += 1
    if depth > MAX_DEPTH or count[0] > MAX_PARTS:
        raise ValueError(f"nested over {MAX_DEPTH} deep, or over {MAX_PARTS} parts")
    if value in ("tensor", "none"):
        return TENSOR if value == "tensor" else NONE
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("expected one structure")
    ((kind, body),) = value.items()
    if kind == "constant" and isinstance(body, CONSTANTS) and not isinstance(body, float):
        return Part("constant", value=body)
    if kind == "float" and isinstance(body, str) and len(body) < 40:
        return Part("constant", value=float.fromhex(body))
    if kind in ("tuple", "list") and isinstance(body, list):
        return Part(kind, tuple(_decode(x, depth + 1, count) for x in body))
    name = ""
    if kind in _NAMED and isinstance(body, list) and len(body) == 2 and isinstance(body[0], str):
        name, body = body
    elif kind != "dict":
        raise ValueError("unknown structure")
    if not isinstance(body, list) or not all(isinstance(r, list) and len(r) == 2 for r in body):
        raise ValueError(f"{kind}: expected rows of a key and a structure")
    keys = tuple(r[0] for r in body)
    allowed = str if kind in _NAMED else str | int
    if not all(isinstance(k, allowed) for k in keys) or len(set(keys)) != len(keys):
        raise ValueError(f"{kind}: expected distinct keys")
    return Part(kind, tuple(_decode(r[1], depth + 1, count) for r in body), keys, name)
