"""Every operation and function of the scalar language on every target, byte for byte."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import llvmlite.ir as ll
import numpy as np
import numpy.typing as npt
import pytest

from ree import _core
from ree.compiler.emit.jit import TARGETS, MachineCode, assembly, compile_module
from ree.compiler.emit.scalar_llvm import emit
from ree.kernels.abi import call
from ree.kernels.numerics import CONTRACT, canonical_nan
from ree.kernels.samples import SPECIAL
from ree.kernels.scalar import language as scalar
from ree.kernels.scalar import softfloat
from ree.kernels.scalar.emit_numpy import DTYPES, evaluate
from ree.kernels.scalar.functions import BOUNDS, FUNCTIONS
from ree.kernels.scalar.language import (
    BOOL,
    F32,
    I32,
    I64,
    OPS,
    U32,
    Expr,
    Function,
    T,
    const,
    param,
)
from ree.kernels.scalar.microcode import assemble, decode, microcode_bytes

Array = npt.NDArray[Any]
ISAS = _core.isa_names()
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "scalar_bounds.json"
UNSIGNED = {F32: np.uint32, I32: np.uint32, U32: np.uint32, I64: np.uint64, BOOL: np.uint8}
LLVM = {F32: ll.FloatType(), I32: ll.IntType(32), U32: ll.IntType(32), I64: ll.IntType(64),
        BOOL: ll.IntType(8)}  # fmt: skip
WIDTH = {I32: 32, U32: 32, I64: 64}


def single_operations() -> dict[str, Function]:
    """Each operation on each type it takes, as a function of its own."""
    out = {}
    for name, info in OPS.items():
        if name in ("param", "const", "table"):
            continue
        for t in info.types:
            types = (BOOL, t, t) if name == "select" else (t,) * info.arity
            args = tuple(param(i, p) for i, p in enumerate(types))
            bodies: dict[str, Expr] = {}
            if name == "select":
                bodies[t.text] = scalar.select(*args)
            elif name in ("convert", "bitcast"):
                for to in T if name == "convert" else (F32, I32, U32):
                    if to is not t and (name, t, to) != ("convert", F32, U32):
                        bodies[f"{t.text}_{to.text}"] = getattr(scalar, name)(args[0], to)
            elif name in ("shl", "shr"):
                amount = args[1] & (WIDTH[t] - 1)  # the amount must be in range
                bodies[t.text] = scalar.make(name, args[0], amount)
            else:
                bodies[t.text] = scalar.make(name, *args)
            for suffix, body in bodies.items():
                out[f"{name}_{suffix}"] = Function(f"{name}_{suffix}", types, body)
    entries = tuple(0x9E3779B9 * k % 2**32 for k in range(11))
    body = scalar.lookup(entries, param(0, U32) & 7)
    out["table"] = Function("table", (U32,), body)
    return out


SINGLE = single_operations()


def edge_values(t: T) -> Array:
    if t is F32:
        halves = np.array([0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, 8388607.5, 2.0**31, -(2.0**31),
                           2.0**63, -(2.0**63), 1e30, 0.1, 3.0], np.float32)  # fmt: skip
        return np.concatenate([SPECIAL, halves])
    if t is BOOL:
        return np.array([False, True])
    n = 64 if t is I64 else 32
    values = [0, 1, 2, 3, 7, 31, 100, 2**24 + 1, 2 ** (n - 1) - 1, 2 ** (n - 1), 2**n - 1, 2**n - 7]
    values += [2**53 + 1, 2**40 + 2**16 + 1] if n == 64 else []
    return np.array(values, np.uint64 if n == 64 else np.uint32).view(DTYPES[t])


def operands(types: tuple[T, ...]) -> list[Array]:
    """Edge values in all combinations (three operands: a sample), then random bit patterns."""
    rng = np.random.default_rng(len(types))
    combinations = list(product(*(range(len(edge_values(t))) for t in types)))
    grid = np.array(combinations).reshape(-1, len(types))
    if len(grid) > 3000:
        grid = rng.permutation(grid)[:3000]
    out = []
    for i, t in enumerate(types):
        edges = edge_values(t)[grid[:, i]]
        if t is BOOL:
            noise: Array = rng.integers(0, 2, 1024).astype(bool)
        else:
            noise = rng.integers(0, 2**64, 1024, np.uint64).astype(UNSIGNED[t]).view(DTYPES[t])
        if t is F32:  # half of them of like exponents, so that sums cancel and round
            noise[:512] = rng.standard_normal(512)
            noise = canonical_nan(noise)
        out.append(np.concatenate([edges, noise]))
    size = len(out[0]) // 64 * 64
    return [np.ascontiguousarray(a[:size]) for a in out]


def bits(x: Array, t: T) -> Array:
    return np.ascontiguousarray(x).view(UNSIGNED[t])


def by_steps(f: Function, arrays: list[Array]) -> Array:
    """The function through its microcode, element by element."""
    program = assemble(f)
    columns = [bits(a, t) for a, t in zip(arrays, f.params, strict=True)]
    rows = [[int(v) for v in row] for row in zip(*columns, strict=True)]
    return np.array([program.run(row)[-1] for row in rows], UNSIGNED[f.result])


def llvm_text(functions: dict[str, Function], isa: str, lanes: int) -> str:
    """A module with a loop over n elements for each function: fn(sources..., result, n)."""
    module = ll.Module("scalar")
    pointer, i64 = ll.PointerType(), ll.IntType(64)
    for name, f in functions.items():
        signature = ll.FunctionType(ll.VoidType(), [pointer] * (len(f.params) + 1) + [i64])
        fn = ll.Function(module, signature, name)
        entry, head, body, end = (fn.append_basic_block(s) for s in ("e", "h", "b", "z"))
        b = ll.IRBuilder(entry)
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(i64)
        i.add_incoming(i64(0), entry)
        b.cbranch(b.icmp_signed("<", i, fn.args[-1]), body, end)
        b.position_at_end(body)

        def wide(t: ll.Type) -> ll.Type:
            return t if lanes == 1 else ll.VectorType(t, lanes)

        values = []
        for t, p in zip(f.params, fn.args, strict=False):
            at = b.gep(p, [i], source_etype=LLVM[t])
            x = b.load(at, typ=wide(LLVM[t]), align=1)
            values.append(b.trunc(x, wide(ll.IntType(1))) if t is BOOL else x)
        y = emit(b, f, values, lanes, TARGETS[isa].hardware_fma)
        y = b.zext(y, wide(LLVM[BOOL])) if f.result is BOOL else y
        b.store(y, b.gep(fn.args[-2], [i], source_etype=LLVM[f.result]), align=1)
        i.add_incoming(b.add(i, i64(lanes)), body)
        b.branch(head)
        b.position_at_end(end)
        b.ret_void()
    return str(module)


@lru_cache
def compiled(isa: str, lanes: int) -> dict[str, MachineCode]:
    functions = {**SINGLE, **FUNCTIONS}
    text = llvm_text(functions, isa, lanes)
    code = compile_module(text, list(functions), TARGETS[isa])
    return dict(zip(functions, code, strict=True))


def by_llvm(f: Function, arrays: list[Array], isa: str, lanes: int) -> Array:
    y = np.empty(len(arrays[0]), UNSIGNED[f.result])
    pointers = [a.ctypes.data for a in [*arrays, y]]
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64)
    kind(compiled(isa, lanes)[f.name].address)(*pointers, len(y))
    return bits(canonical_nan(y.view(np.float32)), F32) if f.result is F32 else y


def by_kernel(name: str, isa: str, x: Array) -> Array:
    y = np.empty_like(x)
    plan = _core.Plan(isa)
    plan.add(*call(f"unary_{name}", x=0, y=1, n=x.size))
    plan.run(_core.Pool(1), [x.ctypes.data, y.ctypes.data])
    return y.view(np.uint32)


LAYOUTS = [(isa, lanes) for isa in ISAS for lanes in (1, TARGETS[isa].lanes)]


@pytest.mark.parametrize("name", SINGLE)
def test_operation(name: str) -> None:
    f = SINGLE[name]
    arrays = operands(f.params)
    want = bits(evaluate(f, *arrays), f.result)
    np.testing.assert_array_equal(by_steps(f, arrays), want)
    for isa, lanes in LAYOUTS:
        np.testing.assert_array_equal(by_llvm(f, arrays, isa, lanes), want, f"{isa} x {lanes}")


def inputs(n: int) -> Array:
    """Edges, random bit patterns, and values near 0 and 1 and of moderate size."""
    rng = np.random.default_rng(3)
    anything = rng.integers(0, 2**32, n, np.uint64).astype(np.uint32).view(np.float32)
    moderate = (rng.standard_normal(n) * 10 ** rng.uniform(-4, 2, n)).astype(np.float32)
    near_one = np.float32(1) + (rng.standard_normal(n) * 1e-3).astype(np.float32)
    x = np.concatenate([edge_values(F32), anything, moderate, near_one])
    return canonical_nan(x[: len(x) // 64 * 64])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_on_every_target(name: str) -> None:
    f = FUNCTIONS[name]
    x = [inputs(6000 // (1 + 4 * k)) for k in range(len(f.params))]
    x = [a[: len(x[-1])] if k == 0 else np.roll(a, k) for k, a in enumerate(x)]
    want = bits(evaluate(f, *x), f.result)
    for isa, lanes in LAYOUTS:
        np.testing.assert_array_equal(by_llvm(f, x, isa, lanes), want, f"{isa} x {lanes}")
    if len(x) == 1:
        for isa in ISAS:
            for n in (len(x[0]), 4 * 16 + 13, 3, 0):  # every path of the kernel's loop
                np.testing.assert_array_equal(by_kernel(name, isa, x[0][:n]), want[:n], isa)
    few = [a[::37] for a in x]
    np.testing.assert_array_equal(by_steps(f, few), want[::37])


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("name", "x", "want"),
    [
        ("exp", -INF, 0.0), ("exp", INF, INF), ("exp", 0.0, 1.0), ("exp", -0.0, 1.0),
        ("exp", 88.72284, INF), ("exp", -103.98, 0.0), ("exp", -103.0, 1.401298464324817e-45),
        ("exp", NAN, NAN), ("log", 0.0, -INF), ("log", -0.0, -INF), ("log", -1.0, NAN),
        ("log", -INF, NAN), ("log", INF, INF), ("log", 1.0, 0.0), ("tanh", 0.0, 0.0),
        ("tanh", -0.0, -0.0), ("tanh", INF, 1.0), ("tanh", -INF, -1.0), ("tanh", NAN, NAN),
        ("erf", 0.0, 0.0), ("erf", -0.0, -0.0), ("erf", INF, 1.0), ("erf", -INF, -1.0),
        ("erf", NAN, NAN), ("sin", 0.0, 0.0), ("sin", -0.0, -0.0), ("sin", INF, NAN),
        ("sin", -INF, NAN), ("sin", NAN, NAN), ("cos", 0.0, 1.0), ("cos", INF, NAN),
        ("cos", -INF, NAN), ("rsqrt", 0.0, INF), ("rsqrt", -0.0, -INF), ("rsqrt", -1.0, NAN),
        ("rsqrt", INF, 0.0), ("sigmoid", -INF, 0.0), ("sigmoid", INF, 1.0), ("sigmoid", 0.0, 0.5),
        ("sigmoid", -103.0, 1.401298464324817e-45), ("sigmoid", NAN, NAN),
    ],
)  # fmt: skip
def test_special_values(name: str, x: float, want: float) -> None:
    if x == 88.72284:  # the first float32 whose exponential rounds to infinity is just above
        below = evaluate(FUNCTIONS[name], np.float32(88.72283))
        assert np.isfinite(below)
    got = evaluate(FUNCTIONS[name], np.float32(x))
    expected = bits(canonical_nan(np.array(want, np.float32)), F32)
    assert bits(got, F32) == expected


def test_odd_functions_are_odd_and_even_ones_even() -> None:
    x = inputs(4000)
    for name in ("tanh", "erf", "sin"):
        y, z = evaluate(FUNCTIONS[name], x), evaluate(FUNCTIONS[name], -x)
        np.testing.assert_array_equal(bits(canonical_nan(-z), F32), bits(y, F32), name)
    np.testing.assert_array_equal(evaluate(FUNCTIONS["cos"], x), evaluate(FUNCTIONS["cos"], -x))


def test_results_do_not_depend_on_the_bits_of_a_nan() -> None:
    nans = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FA5A5A5], np.uint32)
    for name, f in FUNCTIONS.items():
        for position in range(len(f.params)):
            args = [np.full(5, 0.75, np.float32) for _ in f.params]
            args[position] = nans.view(np.float32)
            for isa, lanes in LAYOUTS:
                cut = [np.resize(a, 64) for a in args]
                assert len(set(by_llvm(f, cut, isa, lanes).tolist())) == 1, name
            assert len(set(bits(evaluate(f, *args), f.result).tolist())) == 1, name


@pytest.mark.parametrize("name", BOUNDS)
def test_measured_bound_is_of_this_function(name: str) -> None:
    """The exhaustive measurement is kept; its worst case must still give the recorded bits."""
    results = json.loads(RESULTS.read_text())
    assert results["contract"] == CONTRACT
    r = results["functions"][name]
    assert r["inputs"] == 2**32
    assert r["special_value_mismatches"] == 0
    assert r["max_ulp"] <= r["bound_ulp"] == BOUNDS[name]
    x = np.array(int(r["worst_input"], 16), np.uint32).view(np.float32)
    assert bits(evaluate(FUNCTIONS[name], x), F32) == int(r["worst_output"], 16)
    assert r["microcode"] == microcode_digest(FUNCTIONS[name]), "measure again: the program changed"


def microcode_digest(f: Function) -> str:
    return hashlib.sha256(microcode_bytes(f)).hexdigest()


@pytest.mark.parametrize("isa", ISAS)
def test_code_is_self_contained(isa: str) -> None:
    """Nothing becomes a call (of a C library's rounding or fma), and only hardware FMA is fused."""
    for lanes in (1, TARGETS[isa].lanes):
        functions = {**SINGLE, **{n: FUNCTIONS[n] for n in ("exp", "sin", "softplus")}}
        text = assembly(llvm_text(functions, isa, lanes), TARGETS[isa])
        assert not re.search(r"\bcall", text)
        assert ("vfmadd" in text) == TARGETS[isa].hardware_fma
    products = {"f": Function("f", (F32,) * 3, param(0, F32) * param(1, F32) + param(2, F32))}
    assert "vfmadd" not in assembly(llvm_text(products, isa, TARGETS[isa].lanes), TARGETS[isa])


class TestLanguage:
    def test_equal_expressions_are_one_object(self) -> None:
        x = param(0, F32)
        assert (x + 1.0) * 2.0 is (param(0, F32) + 1.0) * 2.0
        assert x + 1.0 is not x - 1.0

    def test_types_are_checked(self) -> None:
        x, i = param(0, F32), param(1, I32)
        for wrong in (
            lambda: x + i, lambda: x & x, lambda: scalar.make("fma", x, x), lambda: scalar.sqrt(i),
            lambda: scalar.select(x, x, x), lambda: scalar.bitcast(x, I64),
            lambda: FUNCTIONS["exp"](i), lambda: scalar.lookup((1, 2), x),
        ):  # fmt: skip
            with pytest.raises(TypeError):
                wrong()

    def test_functions_compose(self) -> None:
        x = param(0, F32)
        f = Function("f", (F32,), FUNCTIONS["exp"](x * 0.5) + 1.0)
        v = inputs(100)
        half = evaluate(FUNCTIONS["exp"], (v * np.float32(0.5)).astype(np.float32))
        want = canonical_nan(half + np.float32(1))
        np.testing.assert_array_equal(bits(evaluate(f, v), F32), bits(want, F32))

    def test_constants_round_once(self) -> None:
        assert const(0.1, F32).value == 0x3DCCCCCD
        assert const(-1, I64).value == 2**64 - 1


class TestMicrocode:
    @pytest.mark.parametrize("name", [*FUNCTIONS, *SINGLE])
    def test_round_trip(self, name: str) -> None:
        f = {**FUNCTIONS, **SINGLE}[name]
        data = microcode_bytes(f)
        program = decode(data)
        assert program == assemble(f)
        assert len(data) % 8 == 0
        assert program.encode() == data

    def test_wide_constants_and_bare_parameters(self) -> None:
        for value in (5, -5, 2**31 - 1, -(2**31), 2**31, -(2**31) - 1, 2**62 + 12345, -(2**63)):
            f = Function("c", (), const(value, I64))
            assert decode(microcode_bytes(f)).run([])[-1] == value % 2**64
        second = Function("second", (F32, F32), param(0, F32))
        assert assemble(second).run([0x3F800000, 0])[-1] == 0x3F800000

    def test_every_corruption_is_refused_or_another_program(self) -> None:
        data = microcode_bytes(FUNCTIONS["sin"])
        good = decode(data)
        refused = 0
        places = [*range(0, len(data), 7), *range(32), *range(len(data) - 300, len(data), 5)]
        for i in places:
            for flip in (0x01, 0x10, 0x80):
                bad = bytearray(data)
                bad[i] ^= flip
                try:
                    other = decode(bytes(bad))
                except ValueError:
                    refused += 1
                else:
                    assert other != good
                    assert other.encode() == bytes(bad)
        assert refused > len(places)  # of three tries each
        for cut in (0, 7, len(data) - 8, len(data) - 1):
            with pytest.raises(ValueError, match="program"):
                decode(data[:cut])

    def test_a_step_reads_only_earlier_registers(self) -> None:
        f = Function("f", (F32,), param(0, F32) + 1.0)
        data = bytearray(microcode_bytes(f))
        data[-3] = 2  # operand b of the last step: itself
        with pytest.raises(ValueError, match="not written yet"):
            decode(bytes(data))

    def test_a_wrong_step_is_seen(self) -> None:
        """The comparisons above can fail: swap one fused multiply-add of exp."""
        program = assemble(FUNCTIONS["exp"])
        at = max(i for i, s in enumerate(program.steps) if s.op == "fma")
        data = bytearray(program.encode())
        start = 8 * (1 + len(program.params) + at)
        data[start + 2 : start + 4], data[start + 6 : start + 8] = (
            data[start + 6 : start + 8], data[start + 2 : start + 4],
        )  # fmt: skip
        x = 0x3F000000
        assert decode(bytes(data)).run([x])[-1] != program.run([x])[-1]

    def test_ranges_are_checked(self) -> None:
        f = Function("f", (U32, U32), param(0, U32) << param(1, U32))
        with pytest.raises(ValueError, match="shift"):
            assemble(f).run([1, 32])
        with pytest.raises(ValueError, match="inputs"):
            assemble(f).run([1])


def test_softfloat_rounds_like_float64_arithmetic() -> None:
    """pack() against NumPy's own rounding of float64 to float32, subnormals and ties included."""
    rng = np.random.default_rng(1)
    with np.errstate(over="ignore"):
        for _ in range(3000):
            n = int(rng.integers(0, 2**53)) >> int(rng.integers(0, 53))
            e = int(rng.integers(-200, 110))
            want = np.float32(np.ldexp(np.float64(n), e))
            assert softfloat.pack(0, n, e) == int(want.view(np.uint32)), (n, e)
