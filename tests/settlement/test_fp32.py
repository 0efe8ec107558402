"""Fp32 and microcode in the EVM against exact integer arithmetic and the casts of the operators, by both of
Vyper's code generators."""

import re
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.kernels.ops.casts import cast_function
from ree.kernels.scalar import softfloat
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.functions import FUNCTIONS
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
    maximum,
    minimum,
    param,
)
from ree.kernels.scalar.microcode import assemble
from ree.kernels.types import DType
from ree.settlement.compile import compile_contract, compile_edited, source
from ree.settlement.testing import cases
from ree.settlement.testing.cases import NO_RESULT, Bits
from ree.settlement.testing.evm import Contract
from ree.settlement.testing.gas import TESTER, fp32_meter, fp32_tester, numbers, operands

OPERATIONS = cases.operations()
NAN = 0x7FC00000

# operation, operands, result: each is wrong once the bits below the last place are forgotten
STICKY = {
    "fma: a tie of the product and a far smaller c": (
        "fma", (0x45800800, 0x45800800, 0x0D800000), 0x4B801001),
    "fma: the same, from above": ("fma", (0x45800800, 0x45801800, 0x8D800000), 0x4B802001),
    "div: a remainder below a tie": ("div", (0x00000001, 0x00FFFFFF), 0x33800001),
    "sqrt: a remainder below a tie": ("sqrt", (0x3F6E9372,), 0x3F77226D),
}  # fmt: skip


def identify(operation: tuple[str, T, T, tuple[T, ...]]) -> str:
    name, result, operand, _ = operation
    return f"{name}_{operand.text}_{result.text}"


def check(name: str, result: T, operand: T, columns: list[Bits]) -> None:
    """Both code generators against the reference."""
    want = cases.expected(name, result, operand, columns)
    for venom in (False, True):
        got = cases.run_steps(fp32_tester(venom), cases.record(name, result, operand), columns)
        wrong = np.flatnonzero(got != want)
        if wrong.size:
            i = wrong[0]
            shown = f"{name}({', '.join(f'{int(c[i]):x}' for c in columns)}), venom={venom}"
            pytest.fail(f"{shown}: expected {want[i]:x}, got {got[i]:x} ({wrong.size} differ)")


@pytest.mark.parametrize("operation", OPERATIONS, ids=identify)
def test_step_on_edges_and_random_operands(
    operation: tuple[str, T, T, tuple[T, ...]],
) -> None:
    name, result, operand, types = operation
    rng = np.random.default_rng(7)
    edges = cases.combinations(types)
    if len(edges[0]) > 20_000:  # three floats: all of them in benchmarks/settlement_fp32.py
        chosen = rng.permutation(len(edges[0]))[:20_000]
        edges = [c[chosen] for c in edges]
    for columns in (edges, cases.anything(types, rng, 2000)):
        check(name, result, operand, columns)


@pytest.mark.parametrize("corpus", ["alignments", "cancellations", "halfway"])
def test_fma_where_rounding_is_hard(corpus: str) -> None:
    rng = np.random.default_rng(8)
    size = {} if corpus == "alignments" else {"n": 10_000}
    check("fma", F32, F32, getattr(cases, corpus)(rng, **size))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_arithmetic_where_rounding_is_hard(name: str) -> None:
    rng = np.random.default_rng(9)
    for a, b, c in (cases.alignments(rng), cases.halfway(rng, 5000)):
        check(name, F32, F32, [a, c])
        check(name, F32, F32, [b, c])


@pytest.mark.parametrize("title", STICKY)
def test_sticky_bits(title: str) -> None:
    name, arguments, want = STICKY[title]
    columns = [np.array([x], np.uint64) for x in arguments]
    assert int(cases.expected(name, F32, F32, columns)[0]) == want
    assert int(cases.run_steps(fp32_tester(), cases.record(name, F32, F32), columns)[0]) == want


@pytest.mark.parametrize(
    ("edit", "titles"),
    [
        (("nc = 1  # the sticky bit", "nc = 0"), ["fma: a tie of the product and a far smaller c",
                                                  "fma: the same, from above"]),
        (("quotient |= convert(unsafe_mul(quotient, m) < n, uint256)", "pass"),
         ["div: a remainder below a tie"]),
        (("root |= convert(unsafe_mul(root, root) < n, uint256)", "pass"),
         ["sqrt: a remainder below a tie"]),
    ],
    ids=["fma", "div", "sqrt"],
)  # fmt: skip
def test_without_its_sticky_bit_a_named_case_is_wrong(
    edit: tuple[str, str], titles: list[str]
) -> None:
    faulty = Contract(compile_edited(TESTER, "fp32.vy", edit))
    for title, (name, arguments, want) in STICKY.items():
        columns = [np.array([x], np.uint64) for x in arguments]
        got = int(cases.run_steps(faulty, cases.record(name, F32, F32), columns)[0])
        assert (got != want) == (title in titles), title


def test_computed_nans_are_canonical() -> None:
    """Whatever NaN goes in; registers never hold another, but an operand may be a claim."""
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFC00000], np.uint64)
    one = np.full(4, 0x3F800000, np.uint64)
    for name in ("fma", "add", "sub", "mul", "div", "sqrt", "neg", "abs", "rint"):
        arity = OPS[name].arity
        for at in range(arity):
            columns = [nans if i == at else one for i in range(arity)]
            got = cases.run_steps(fp32_tester(), cases.record(name, F32, F32), columns)
            assert got.tolist() == [NAN] * 4, name


def cast_column(d: DType, to: DType) -> tuple[Bits, Bits]:
    """Operands and results of a cast by the operators' own functions."""
    if d is DType.F32:
        rng = np.random.default_rng(2)
        x = np.concatenate([*cases.anything((F32,), rng, 20_000), cases.SPECIAL, ties()])
        y = evaluate(cast_function(d, to), x.astype(np.uint32).view(np.float32))
        return x, y.astype(np.uint64)
    x = np.arange(1 << 16, dtype=np.uint64)
    y = evaluate(cast_function(d, to), x.astype(np.uint32))
    return x, y.view(np.uint32).astype(np.uint64)


def ties() -> Bits:
    """float32 halfway between two halves, or two bfloat16s, and their neighbours."""
    high = np.arange(1 << 16, dtype=np.int64)
    half = (high & 0x8000) << 16 | ((high & 0x7FFF) << 13) + (112 << 23) & 0x7FFFFFFF
    small = np.ldexp((high % 2048 + 0.5).astype(np.float32), -24).view(np.uint32).astype(np.int64)
    middles = [half + 0x1000, (high << 16) + 0x8000, small]
    return np.concatenate([m + d for m in middles for d in (-1, 0, 1)]).astype(np.uint64)


@pytest.mark.parametrize("name", ["from_f16", "to_f16", "from_bf16", "to_bf16"])
def test_half_precision_conversions(name: str) -> None:
    direction, text = name.split("_")
    d = DType.parse(text)
    x, want = cast_column(*((d, DType.F32) if direction == "from" else (DType.F32, d)))
    _, got = cases.measure(fp32_meter(), numbers()[name], cases.words(0, [x]))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("f", [minimum, maximum])
def test_minimum_and_maximum(f: Callable[[Expr, Expr], Expr]) -> None:
    a, b = operands("minimum", np.random.default_rng(4), 1000)
    program = assemble(Function(f.__name__, (F32, F32), f(param(0, F32), param(1, F32))))
    _, got = cases.measure(fp32_meter(), numbers()[f.__name__], cases.words(0, [a, b]))
    canonical = [np.where((x & 0x7FFFFFFF) > 0x7F800000, NAN, x) for x in (a, b)]
    want = [program.run(row)[-1] for row in zip(*(x.tolist() for x in canonical), strict=True)]
    np.testing.assert_array_equal(got, np.array(want, np.uint64))


def test_total_order() -> None:
    a, b = operands("total_order", np.random.default_rng(4), 2000)

    def key(x: int) -> float:
        return np.inf if softfloat.is_nan(x) else softfloat._key(x)

    _, got = cases.measure(fp32_meter(), numbers()["total_order"], cases.words(0, [a, b]))
    assert got.tolist() == [
        int(key(x) < key(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_step_of_a_scalar_function(name: str) -> None:
    """The microcode as a court reads it: encoded records, operands taken from the registers."""
    program = assemble(FUNCTIONS[name])
    rng = np.random.default_rng(5)
    inputs = [int(c[0]) for c in cases.anything(program.params, rng, 1)]
    registers = program.run(inputs)
    rows, tables = [], [s for s in program.steps if s.op == "table"]
    for i, s in enumerate(program.steps):
        if s.op != "table":
            values = [registers[r] for r in s.args]
            rows.append([int.from_bytes(s.encode(), "big"), *values, *[0] * (3 - len(values)),
                         registers[len(inputs) + i]])  # fmt: skip
    heads = np.array(rows, dtype=object)
    got = [
        int(cases.run_steps(fp32_tester(), h, [np.array([x], np.uint64) for x in (a, b, c)])[0])
        for h, a, b, c, _ in heads
    ]
    assert got == [r[-1] for r in rows]
    for s in tables:
        index = registers[s.args[0]]
        low, high = table_words(program.tables[s.immediate])
        assert fp32_tester().call("lookup", index, low, high) == program.tables[s.immediate][index]


def table_words(entries: tuple[int, ...]) -> tuple[int, int]:
    data = b"".join(e.to_bytes(4, "big") for e in entries)
    return int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big")


def test_constants() -> None:
    for t, value, want in [
        (F32, 0x3F800000, 0x3F800000), (I32, 2**32 - 1, 2**32 - 1), (U32, 2**31, 2**31),
        (I64, 5, 5), (I64, 2**31, 0xFFFFFFFF80000000), (I64, 2**32 - 1, 2**64 - 1), (BOOL, 1, 1),
    ]:  # fmt: skip
        head = OPS["const"].code << 56 | (17 * t.code) << 48 | value
        zero = [np.zeros(1, np.uint64)] * 3
        assert int(cases.run_steps(fp32_tester(), head, zero)[0]) == want


def test_what_no_register_holds_has_no_result() -> None:
    """A step on a register that does not fit its type, or without a result, makes no claim true."""

    def step(head: int, *arguments: int) -> int:
        columns = [np.array([x], np.uint64) for x in arguments]
        return int(cases.run_steps(fp32_tester(), head, columns)[0])

    assert step(cases.record("add", F32, F32), 2**32, 0) == NO_RESULT
    assert step(cases.record("add", I32, I32), 1, 2**32) == NO_RESULT
    assert step(cases.record("fma", F32, F32), 0, 0, 2**33) == NO_RESULT
    assert step(cases.record("not", BOOL, BOOL), 2) == NO_RESULT
    assert step(cases.record("select", F32, F32), 2, 0, 0) == NO_RESULT
    assert step(cases.record("select", F32, F32), 1, 2**32, 0) == NO_RESULT
    assert step(cases.record("shl", I32, I32), 1, 32) == NO_RESULT
    assert step(cases.record("shr", I32, I32), 1, 2**32 - 1) == NO_RESULT
    assert step(cases.record("shl", I64, I64), 1, 64) == NO_RESULT
    for opcode in (0, 28, 255):  # param, and none
        assert step(opcode << 56, 1, 1, 1) == NO_RESULT
    assert fp32_tester().call("lookup", 16, 0, 0) == 2**256 - 1
    assert [
        fp32_tester().call("fits", t.code, 2**w) for t, w in ((F32, 32), (I64, 64), (BOOL, 1))
    ] == [False] * 3
    assert all(
        fp32_tester().call("fits", t.code, 2**w - 1) for t, w in ((F32, 32), (I64, 64), (BOOL, 1))
    )


@pytest.mark.parametrize("module", ["fp32", "half", "microcode", "merkle", "commitments"])
def test_modules_have_nothing_to_call_or_to_own(module: str) -> None:
    """Linked, not called: no external function, and no state; a view reads calldata."""
    assert compile_contract(f"{module}.vy").abi == ()
    text = source(f"{module}.vy").read_text()
    headers = re.findall(r"@internal\n@(?:pure|view)\ndef ", text)
    assert len(headers) == text.count("\ndef ")
    assert not re.findall(r"(?m)^\w+: (?!constant\()", text)  # no variable of state
