"""Signatures of kernels: what one side calls an argument, the other sides must call it too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ree import _core
from ree.compiler.plan.lowering import GroupPlanner
from ree.errors import PlatformError
from ree.kernels.abi import (
    NO_TILE,
    SIGNATURES,
    Signature,
    Tile,
    call,
    floats,
    ints,
    reads,
    signature,
    version,
    writes,
)
from ree.kernels.gpu.launch import kernel_call, table
from ree.runtime import settings

CSRC = Path(__file__).parent.parent.parent / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
FILL = {"y": 0, "n": 3, "element_bytes": 4, "pattern": 7}


def example(s: Signature) -> dict[str, Any]:
    """Arguments of a call: every count is 3."""
    counts = {b.count for b in s.buffers} | {n for p in s.params for n in p.shape}
    given: dict[str, Any] = {}
    for i, b in enumerate(s.buffers):
        given[b.name] = (i, i + 1, i + 2) if b.count else i
    for i, p in enumerate(s.params):
        size = int(np.prod([n if isinstance(n, int) else 3 for n in p.shape]))
        many = tuple(range(100 * i, 100 * i + size))
        given[p.name] = (
            3 if p.name in counts else many if p.shape else i + 0.5 if p.element == "f32" else i
        )
    if s.takes_tile:
        given["tile"] = Tile(-1, (8, 9), (11, -12))
    return given


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_call_is_read_as_it_was_written(name: str) -> None:
    s = SIGNATURES[name]
    slots, params = s.pack(example(s))
    assert s.read(slots, params) == SimpleNamespace(**example(s))
    for isa in _core.isa_names():
        kernel = "unary_exp" if name == "unary" else name
        _core.Plan(isa).add(kernel, slots, params)
        for wrong in ((slots[:-1], params), (slots, params[:-1]), ((*slots, 0), params),
                      (slots, (*params, 0))):  # fmt: skip
            if s.takes_tile and (len(wrong[0]) > len(s.buffers) and len(wrong[1]) > s.fixed):
                continue  # what follows is the tile function's
            with pytest.raises(
                ValueError, match=f"'{kernel}' does not take {len(wrong[0])} buffers"
            ):
                _core.Plan(isa).add(kernel, *wrong)
            with pytest.raises(TypeError, match="arguments than it takes"):
                s.read(*wrong)


def test_a_name_that_a_kernel_lacks_is_refused_at_once() -> None:
    assert call("fill", **FILL) == ("fill", (0,), (3, 4, 7))
    planner = SimpleNamespace(call=lambda kernel, **arguments: call(kernel, **arguments))
    lowering = SimpleNamespace(p=planner)
    for wrong, said in (
        ({**FILL, "count": 3}, "kernel fill has no argument count"),
        ({k: v for k, v in FILL.items() if k != "n"}, "kernel fill: argument n is missing"),
        ({**FILL, "y": None}, "buffer y is missing"),
        ({**FILL, "n": 3.0}, "expected an integer, got 3.0"),
    ):
        for emit in (
            lambda k, **a: GroupPlanner.emit(lowering, k, **a),  # type: ignore[arg-type]
            kernel_call,
        ):
            with pytest.raises(TypeError, match=said):
                emit("fill", **wrong)
    copy = {"x": 0, "y": 1, "element_bytes": 4, "rank": 2, "extents": (3, 4), "x_strides": (4, 1)}
    with pytest.raises(TypeError, match="y_strides is 2 values, got 3"):
        call("strided_copy", **copy, y_strides=(1, 2, 3))
    with pytest.raises(KeyError):
        call("copy", **copy)


def test_a_schedule_that_reads_another_name_fails() -> None:
    fill = kernel_call("fill", **FILL)
    with pytest.raises(AttributeError, match="count"):
        fill.args.count  # noqa: B018
    table()["fill"](fill)
    assert len(fill.launches) == 1


def test_kernels_built_from_other_signatures_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _core.abi == version()
    monkeypatch.setattr(_core, "abi", "0" * 16)
    monkeypatch.setattr(settings, "_pools", {})
    monkeypatch.setattr(settings, "_own", threading.local())
    for threads in (1, 2):
        with pytest.raises(
            PlatformError, match=r"of another version: expected [0-9a-f]{16}, got 0{16}"
        ):
            settings.pool(threads)


def test_the_address_of_a_tile_function_is_put_where_the_signature_says() -> None:
    s = signature("tile")
    slots, params = s.pack({"rows": 5, "columns": 6, "tile": Tile(0, (1, 2), (7, 8))})
    assert (slots, params) == ((1, 2), (5, 6, 0, 7, 8))
    assert s.with_tile(params, 99) == [5, 6, 99, 7, 8]
    assert s.pack({"rows": 5, "columns": 6, "tile": NO_TILE}) == ((), (5, 6, 0))
    with pytest.raises(TypeError, match="takes no tile function"):
        signature("fill").with_tile((3, 4, 7), 99)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*reads("f32", "x"), *writes("f32", "x")], "two arguments have one name"),
        ([*reads("f32", "tile")], "two arguments have one name"),
        ([*ints("n"), *ints("sizes", "n"), *floats("eps")], "follows one whose number varies"),
        ([*ints("sizes", "n")], "no count is called n"),
        ([*reads("f32", "x", count="n")], "no count is called n"),
    ],
)
def test_signatures_that_cannot_be_read_are_refused(arguments: list[Any], said: str) -> None:
    buffers = tuple(a for a in arguments if hasattr(a, "written"))
    params = tuple(a for a in arguments if not hasattr(a, "written"))
    with pytest.raises(TypeError, match=said):
        Signature("wrong", buffers, params)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_an_argument_renamed_on_one_side_does_not_compile(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(CSRC / "generate.py"), str(tmp_path)], check=True)
    header = tmp_path / "abi.hpp"
    main = tmp_path / "main.cpp"
    main.write_text('#include "ops/scan.inl"\n')
    assert COMPILER
    command = [COMPILER, "-std=c++17", "-fsyntax-only", f"-I{tmp_path}", f"-I{CSRC}", str(main)]
    assert subprocess.run(command).returncode == 0
    text = header.read_text()
    start = text.index("struct CumsumF32Args")
    header.write_text(text[:start] + text[start:].replace("inner", "columns", 2))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "has no member named" in done.stderr
