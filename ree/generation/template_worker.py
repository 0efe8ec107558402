"""The process that renders chat templates: run as a file, alone, with limits that it sets itself first.

A template comes from a model's author, whom nobody need trust, and is a program: Jinja's sandbox keeps it from
Python, this process from the machine. Requests and answers are frames of JSON on a socket, its standard input.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache, wraps
from types import BuiltinMethodType, FunctionType, MethodType, MethodWrapperType
from typing import Any

MEMORY = 512 << 20  # address space, bytes
SECONDS = 2  # processor time of one request, rounded up
KEPT = 8  # compiled templates
GROWN = (
    16 << 20
)  # bytes kept after a request, over what it starts with: the process is not used again


def frame(value: object) -> bytes:
    """A value as a message: its length in four bytes, big-endian, then JSON."""
    raw = json.dumps(value).encode()
    return struct.pack(">I", len(raw)) + raw


class _Failed(Exception):
    """What the user is told of a template that cannot be rendered."""


def _unprintable(self: object) -> str:
    raise _Failed(f"the template prints a {type(self).__name__}")


class _Function:
    """Something to call; printed as Python does it, it would show where it lies in memory, another place in
    every process."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    __repr__ = _unprintable


class _Lazy:
    """An iterator; printed it would show the same."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self._items

    def __next__(self) -> Any:
        return next(self._items)

    __repr__ = _unprintable


def _covered(x: Any) -> Any:
    if isinstance(x, (FunctionType, MethodType, BuiltinMethodType, MethodWrapperType)):
        return _Function(x)
    plain = (
        isinstance(x, Iterator) and type(x).__module__ == "builtins"
    )  # Jinja's `loop` has a text
    return _Lazy(x) if plain else x


def _covering(f: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(f)
    def covering(*args: Any, **kwargs: Any) -> Any:
        return _covered(f(*args, **kwargs))

    return covering


def _environment() -> Any:
    import jinja2
    import jinja2.ext
    import jinja2.runtime
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Cycler, Joiner

    class Sandbox(ImmutableSandboxedEnvironment):  # type: ignore[misc]
        """Jinja's, in which nothing that has no text of its own can become text."""

        def getattr(self, obj: Any, attribute: str) -> Any:
            return _covered(super().getattr(obj, attribute))

        def getitem(self, obj: Any, argument: Any) -> Any:
            return _covered(super().getitem(obj, argument))

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            called = obj._call if isinstance(obj, _Function) else obj
            return _covered(super().call(context, called, *args, **kwargs))

    for kind in (Cycler, Joiner, jinja2.runtime.BlockReference):
        kind.__repr__ = _unprintable

    class Generation(jinja2.ext.Extension):  # type: ignore[misc]
        """{% generation %}: what is inside, as it is; the tag marks what a model is trained on."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(
                line
            )

        def _inside(self, caller: Any) -> Any:
            return caller()

    def raise_exception(message: object) -> None:
        raise _Failed(f"the template says: {message}")

    def tojson(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def shown(value: Any) -> Any:
        """Anything else would print where it lies in memory, which differs from run to run."""
        if (
            isinstance(value, (str, int, float, list, tuple, dict, jinja2.Undefined))
            or value is None
        ):
            return value
        raise _Failed(f"the template prints a {type(value).__name__}")

    env = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
        finalize=shown,
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = _Function(raise_exception)
    for table, name in ((env.filters, "random"), (env.globals, "lipsum")):
        del table[name]  # they draw random numbers
    env.filters = {name: _covering(f) for name, f in env.filters.items()}
    return env


@lru_cache(KEPT)
def _compiled(env: Any, template: str) -> Any:
    return env.from_string(template)


def _render(env: Any, request: dict[str, Any]) -> str:
    now = datetime.fromisoformat(request["date"])
    names = dict(request["names"], strftime_now=_Function(lambda form: now.strftime(form)))
    parts, left = [], request["most"]
    for part in _compiled(env, request["template"]).generate(names):
        left -= len(part)
        if left < 0:
            raise _Failed(f"the template gives over {request['most']} characters")
        parts.append(part)
    text = "".join(parts)
    text.encode()
    return text


def _answer(env: Any, request: dict[str, Any]) -> dict[str, object]:
    import jinja2

    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(used.ru_utime + used.ru_stime)
    resource.setrlimit(
        resource.RLIMIT_CPU, (spent + SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1])
    )
    try:
        return {"text": _render(env, request)}
    except _Failed as e:
        return {"error": str(e)}
    except jinja2.TemplateSyntaxError as e:
        return {"error": f"line {e.lineno}: {e.message}"}
    except (MemoryError, RecursionError) as e:
        return {"error": f"the template needs too much memory ({type(e).__name__})"}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {str(e)[:500]}"}


def _meter() -> Callable[[], int]:
    """How many bytes of memory this process has now; opened before no file can be."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:  # another system: address space is still limited
        return lambda: 0
    page = os.sysconf("SC_PAGE_SIZE")
    return lambda: int(os.pread(file, 200, 0).split()[1]) * page


def main() -> None:
    link = socket.socket(fileno=0)
    in_use = _meter()
    with contextlib.suppress(
        ValueError, OSError
    ):  # what the machine does not limit, the parent's clock does
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    env = _environment()
    for text in (
        "{{ missing.x }}",
        "{% if %}",
        "{{ strftime_now('%d %B') }}",
        *(f"{{{{ 'é'|{f} }}}}" for f in env.filters),
    ):
        # what is imported when it is first used is imported now
        _answer(env, {"template": text, "date": "2000-01-01", "names": {}, "most": 99})
    for limit in ("FSIZE", "CORE", "NPROC", "NOFILE"):  # no file, socket or process from here on
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (0, 0))
    start = in_use()
    link.sendall(frame({"ready": True}))
    stream = link.makefile("rb")
    while head := stream.read(4):
        request = json.loads(stream.read(struct.unpack(">I", head)[0]))
        answer = _answer(env, request)
        link.sendall(frame({**answer, "grown": in_use() > start + GROWN}))


if __name__ == "__main__":
    sys.setrecursionlimit(1000)
    main()
