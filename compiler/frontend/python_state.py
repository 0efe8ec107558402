"""Python state around a forward pass: attributes, lists, globals, closures, generators of random numbers.

A program has one value of each of them; what a forward pass changes is therefore a state that the program
does not have. Seen by comparing before and after; what cannot be seen is in docs/training.md.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import random
import sys
import textwrap
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import length_hint
from types import CodeType, FunctionType, GeneratorType, MethodType
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from ree.compiler.frontend.watch import short

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
DEPTH, ITEMS = 4, 4096  # of containers that are looked through
FUNCTIONS = 2000
ENVIRONMENT, DEFAULT = "the environment", "torch's default dtype"
SETTINGS = (ENVIRONMENT, DEFAULT)
WORDS = {"Python's random": "random", "numpy.random": "random", "torch's generator": "torch",
         ENVIRONMENT: "environ", DEFAULT: "set_default_dtype"}  # fmt: skip
# kept by torch for itself
TABLES = ("_parameters", "_buffers", "_modules")
SKIPPED = {*TABLES, "forward"}
RECURRENT = {"_flat_weights", "_flat_weight_refs"}  # of nn.RNNBase: the same parameters in a list
LIBRARIES = {"torch", "numpy", "scipy", *sys.stdlib_module_names}


class ModuleState:
    """What a module and its submodules hold, to compare with later, and to put back."""

    def __init__(self, module: torch.nn.Module, *functions: Callable[..., Any]) -> None:
        self.module = module
        # a scripted module runs no Python: what it holds are its tensors, which torch.export follows
        self.modules = {name: m for name, m in module.named_modules(remove_duplicate=False)
                        if not isinstance(m, torch.jit.ScriptModule)}  # fmt: skip
        self._attributes = {id(m): (m, dict(m.__dict__)) for m in self.modules.values()}
        self._tables = {
            id(m): tuple(dict(m.__dict__[k]) for k in TABLES) for m in self.modules.values()
        }
        self._copies: dict[int, tuple[Any, Any]] = {}  # containers as they were
        self._code: list[FunctionType] = []  # the user's functions that were looked through
        self._kept: list[Any] = []  # so that no identity is used again
        self._marked: set[int] = set()  # in the present pass
        self.functions = functions
        self._seen = dict(self._places())
        self._random = _generators()

    def changes(self) -> Iterator[tuple[str, str]]:
        """(what, line) of everything that is no longer what it was, buffers that were assigned excepted."""
        now = dict(self._places())
        for name in sorted(self._seen.keys() | now.keys()):
            if self._seen.get(name) != now.get(name):
                yield name, self.line(name)
        for name, m in self.modules.items():
            dot = f"{name}." if name else ""
            for old, key in zip(self._tables[id(m)], TABLES, strict=True):
                table = m.__dict__[key]
                for k in old.keys() | table.keys():
                    replaced = key == "_buffers" and isinstance(old.get(k), torch.Tensor) \
                        and isinstance(table.get(k), torch.Tensor)  # fmt: skip
                    if old.get(k) is not table.get(k) and not replaced:
                        yield dot + k, self.line(dot + k)
        for name, state in _generators().items():
            if state != self._random[name]:
                what = name if name in SETTINGS else f"the state of {name}"
                yield what, self.line(what)

    def assigned_buffers(self) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """(name, as it was, as it is) of buffers that were assigned anew."""
        done = set()
        for name, m in self.modules.items():
            if id(m) in done:
                continue
            done.add(id(m))
            old = self._tables[id(m)][1]
            for k, t in m._buffers.items():
                was = old.get(k)
                if isinstance(was, torch.Tensor) and isinstance(t, torch.Tensor) and was is not t:
                    yield f"{name}.{k}" if name else k, was, t

    def restore(self) -> None:
        """Attributes, tables and containers as they were."""
        for m, attributes in self._attributes.values():
            for k in m.__dict__.keys() - attributes.keys():
                del m.__dict__[k]
            m.__dict__.update(attributes)
            for key, old in zip(TABLES, self._tables[id(m)], strict=True):
                if _identities(m.__dict__[key]) != _identities(old):
                    m.__dict__[key].clear()
                    m.__dict__[key].update(old)
        for box, copy in self._copies.values():
            if [*map(id, _flattened(box))] != [*map(id, _flattened(copy))]:
                box.clear()
                box.extend(copy) if isinstance(box, list | deque) else box.update(copy)

    def _places(self) -> Iterator[tuple[str, Any]]:
        done = set()
        for name, m in self.modules.items():
            if id(m) in done:
                continue
            done.add(id(m))
            dot = f"{name}." if name else ""
            own = RECURRENT if isinstance(m, torch.nn.RNNBase) else ()
            for k, v in list(m.__dict__.items()):
                if k not in SKIPPED and k not in own:
                    yield dot + k, self._mark(v, 0)
        self._code.clear()
        classes = {type(m) for m in self.modules.values()}
        for where, v in _surroundings(classes, (*self.functions, *self._hooks()), self._code):
            yield where, self._mark(v, 0)
        self._marked.clear()

    def _hooks(self) -> Iterator[Callable[..., Any]]:
        """What is called before and after modules, and functions that are their attributes."""
        for m in self.modules.values():
            yield from m._forward_pre_hooks.values()
            yield from m._forward_hooks.values()
            yield from (f for f in m.__dict__.values() if isinstance(f, FunctionType | MethodType))

    def _mark(self, v: Any, depth: int) -> Any:
        """Something that is equal as long as v is unchanged."""
        if isinstance(v, PLAIN):
            return type(v).__name__, repr(v)
        self._kept.append(v)
        if isinstance(v, torch.nn.Module) or id(v) in self._marked:
            return id(v)
        self._marked.add(id(v))
        if isinstance(v, np.ndarray) and v.size <= ITEMS and not v.dtype.hasobject:
            return id(v), v.tobytes()
        if isinstance(v, random.Random | np.random.RandomState):
            return id(v), repr(v.getstate() if isinstance(v, random.Random) else v.get_state())
        if isinstance(v, np.random.Generator):
            return id(v), repr(v.bit_generator.state)
        if isinstance(v, torch.Generator):
            with _disable_current_modes():
                return id(v), bytes(v.get_state().numpy())
        if isinstance(v, bytearray | array):
            return id(v), bytes(v)
        if isinstance(v, GeneratorType):
            return id(v), v.gi_frame and v.gi_frame.f_lasti
        if isinstance(v, Iterator) and type(v).__module__ in ("builtins", "itertools"):
            return id(v), _position(v)
        if depth < DEPTH and isinstance(v, list | tuple | dict | set | frozenset | deque):
            if isinstance(v, list | dict | set | deque) and len(v) <= ITEMS:
                self._copies.setdefault(id(v), (v, _contents(v)))
            some = itertools.islice(_flattened(v), ITEMS)
            return id(v), len(v), tuple([self._mark(x, depth + 1) for x in some])
        if depth < DEPTH and _is_simple(v):
            self._copies.setdefault(id(vars(v)), (vars(v), dict(vars(v))))
            return id(v), tuple((k, self._mark(x, depth + 1)) for k, x in list(vars(v).items()))
        if depth < DEPTH and (held := _slots(v)):
            return id(v), tuple((k, self._mark(x, depth + 1)) for k, x in held)
        return id(v)

    def attribute(self, path: str) -> tuple[torch.nn.Module, str, Any] | None:
        """(module, name, new value) of an attribute that now holds a number, a text or a tensor of its own."""
        owner, _, name = path.rpartition(".")
        m = self.modules.get(owner)
        if m is None or name not in m.__dict__ or name in ("training", *TABLES):
            return None
        v = m.__dict__[name]
        parts = v if isinstance(v, tuple) else (v,)
        if isinstance(v, torch.Tensor) or all(isinstance(x, PLAIN) for x in parts):
            return m, name, v
        return None

    def line(self, path: str) -> str:
        """Where the user's code changes it, or names it, as far as its source says."""
        for text, word in WORDS.items():
            if text in path:
                return _named_at(self._code, word)
        if " (" in path:
            return _named_at(self._code, path.split(" ")[0].rsplit(".", 1)[-1])
        name = path.split(" ")[0].rsplit(".", 1)
        owner = self.modules.get(name[0] if len(name) > 1 else "")
        line = _assigned_at(type(owner), name[-1]) if owner is not None else ""
        for part in reversed(path.split(".")):
            line = line or _named_at(self._code, part)
        return line or _named_at(self._code, "self")


def _position(v: Any) -> Any:
    """How far an iterator of Python's own has come, as far as it tells."""
    if isinstance(v, tuple):
        return tuple(map(_position, v))
    if not isinstance(v, Iterator):
        return repr(v) if isinstance(v, PLAIN) else type(v)
    left = length_hint(v, -1)
    with suppress(TypeError):  # a file, for one
        return left if left >= 0 else _position(v.__reduce__()[1:])
    return None


def _contents(box: Any) -> Any:
    """A copy by the type's own methods, which a subclass may have given effects."""
    return dict(dict.items(box)) if isinstance(box, dict) else list(box)


def _flattened(box: Any) -> Iterator[Any]:
    return itertools.chain.from_iterable(dict.items(box)) if isinstance(box, dict) else iter(box)


def _identities(table: dict[str, Any]) -> dict[str, int]:
    return {k: id(v) for k, v in table.items()}


def _is_simple(v: Any) -> bool:
    """An object of the user's own class, whose attributes may change."""
    library = (type(v).__module__ or "").split(".")[0] in LIBRARIES | {"builtins"}
    return not library and not isinstance(v, type) and hasattr(v, "__dict__")


def _slots(v: Any) -> list[tuple[str, Any]]:
    """What an object of the user's own class keeps in __slots__."""
    if (type(v).__module__ or "").split(".")[0] in LIBRARIES | {"builtins"} or isinstance(v, type):
        return []
    names = [k for c in type(v).__mro__ for k in _tuple(vars(c).get("__slots__", ()))]
    return [(k, getattr(v, k)) for k in names if not k.startswith("__") and hasattr(v, k)]


def _tuple(x: Any) -> tuple[str, ...]:
    return (x,) if isinstance(x, str) else tuple(x)


def _generators() -> dict[str, Any]:
    """The states of the global generators of random numbers, torch's default type, and the environment."""
    with _disable_current_modes():  # torch.export's, in which tensors have no data
        drawn = bytes(torch.get_rng_state().numpy())
    return {
        "Python's random": random.getstate(),
        "numpy.random": repr(np.random.get_state(legacy=True)),
        "torch's generator": drawn,
        DEFAULT: torch.get_default_dtype(),
        ENVIRONMENT: dict(os.environ),
    }


def _surroundings(
    classes: Iterable[type], functions: Iterable[Callable[..., Any]], code: list[FunctionType]
) -> Iterator[tuple[str, Any]]:
    """Class attributes, and what the code of classes and functions reads from closures and globals.

    `code` becomes the functions that were looked through.
    """
    todo: list[Any] = list(functions)
    for cls in sorted(classes, key=lambda c: f"{c.__module__}.{c.__qualname__}"):
        for base in cls.__mro__:
            if base.__module__.split(".")[0] in LIBRARIES | {"builtins"}:
                continue
            for k, v in list(vars(base).items()):
                f = v.__func__ if isinstance(v, staticmethod | classmethod) else v
                if isinstance(f, FunctionType):
                    todo.append(f)
                elif not k.startswith("__") and not callable(v) and not isinstance(v, property):
                    yield f"{base.__name__}.{k} (of the class)", v
    seen: set[int] = set()
    while todo and len(seen) < FUNCTIONS:
        f = todo.pop()
        f = f.__func__ if isinstance(f, MethodType) else inspect.unwrap(f) if callable(f) else f
        if not isinstance(f, FunctionType) or id(f) in seen:
            continue
        seen.add(id(f))
        if (f.__module__ or "").split(".")[0] in LIBRARIES:
            continue
        code.append(f)
        closed = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        values = [(f"{n} (closed over by {f.__name__})", c) for n, c in closed]
        found = [(n, c.cell_contents) for n, c in values if _is_filled(c)]
        found += [
            (f"{n} (a default of {f.__name__})", v) for n, v in (f.__kwdefaults__ or {}).items()
        ]
        found += [(f"default {i} of {f.__name__}", v) for i, v in enumerate(f.__defaults__ or ())]
        found += [
            (f"{n} (a global)", f.__globals__[n]) for n in _names(f.__code__) if n in f.__globals__
        ]
        for name, v in found:
            if isinstance(v, FunctionType | MethodType):
                todo.append(v)
            elif not isinstance(v, type | torch.nn.Module) and not inspect.ismodule(v):
                yield name, v
        todo += [v for v in vars(f).values() if isinstance(v, FunctionType)]
        for k, v in vars(f).items():
            if not isinstance(v, FunctionType):
                yield f"{f.__name__}.{k} (of the function)", v


def _names(code: CodeType) -> list[str]:
    """Globals that a function's code, and the code inside it, may read."""
    inner = [n for c in code.co_consts if isinstance(c, CodeType) for n in _names(c)]
    return sorted({*code.co_names, *inner})


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _assigned_at(cls: type, name: str) -> str:
    """file:line of the first place outside __init__ where a class assigns or changes self.NAME."""
    for base in cls.__mro__:
        if base.__module__.split(".")[0] in LIBRARIES | {"builtins"}:
            continue
        forward = ""
        for f in _methods(base):
            try:  # of each function: a class is found by its module, which a script need not have
                lines, first = inspect.getsourcelines(f)
                tree = ast.parse(textwrap.dedent("".join(lines)))
            except (OSError, TypeError, SyntaxError):
                continue
            file = short(f.__code__.co_filename)
            if f.__name__ == "forward":
                forward = f"{file}:{first + tree.body[0].lineno - 1}"
            for node in ast.walk(tree):
                if _changes(node, name):
                    return f"{file}:{first + node.lineno - 1}"  # type: ignore[attr-defined]
        if forward:
            return forward
    return ""


def _named_at(functions: Iterable[FunctionType], name: str) -> str:
    """file:line where one of the functions changes what has this name, or else the first that has it."""
    first = ""
    for f in functions:
        try:
            lines, start = inspect.getsourcelines(f)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            line = getattr(node, "lineno", 1)
            if _changes(node, name):
                return f"{short(f.__code__.co_filename)}:{start + line - 1}"
            if not first and _is_named(node, name):
                first = f"{short(f.__code__.co_filename)}:{start + line - 1}"
    return first


def _methods(cls: type) -> Iterator[FunctionType]:
    """The functions that a class itself defines, without its __init__."""
    for v in vars(cls).values():
        v = v.fget if isinstance(v, property) else getattr(v, "__func__", v)
        f = inspect.unwrap(v) if callable(v) else v
        if isinstance(f, FunctionType) and f.__name__ != "__init__":
            yield f


def _changes(node: ast.AST, name: str) -> bool:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Call):
        f = node.func
        if isinstance(f, ast.Name) and f.id == "setattr" and len(node.args) > 1:
            return isinstance(node.args[1], ast.Constant) and node.args[1].value == name
        return isinstance(f, ast.Attribute) and _is_named(f.value, name)
    return any(_is_named(x, name) for t in targets for x in ast.walk(t))


def _is_named(x: ast.AST, name: str) -> bool:
    return name in (getattr(x, "attr", ""), getattr(x, "id", ""))
