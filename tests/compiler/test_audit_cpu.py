"""Audit of CPU machine code: planted faults are found, real kernels are clean."""

import pytest

from ree import _core
from ree.compiler.audit import cpu
from ree.compiler.audit.cpu import audit_core, audit_text, audit_tiles
from ree.compiler.plan.planner import plan
from ree.conformance import cases
from ree.errors import PlatformError
from ree.kernels.scalar import language as scalar
from ree.kernels.scalar.language import F32, function
from ree.kernels.tilespec import Operand, TileSpec, TileStep
from ree.kernels.types import DType

ISAS = ("portable", "avx2", "avx512")

FAULTS = [
    ("portable", "rcpps %xmm0, %xmm1", "approximation"),
    ("portable", "rsqrtss (%rdi), %xmm1", "approximation"),
    ("portable", "pfrcp %mm0, %mm1", "approximation"),
    ("avx512", "vrcp14ps %zmm0, %zmm1", "approximation"),
    ("avx512", "vrsqrt14ps %zmm0, %zmm1 {%k1} {z}", "approximation"),
    ("avx512", "vrcp28ps %zmm0, %zmm1", "approximation"),
    ("portable", "faddp %st, %st(1)", "x87"),
    ("avx512", "flds 8(%rsp)", "x87"),
    ("portable", "fstpt (%rdi)", "x87"),
    ("portable", "vfmadd231ps %zmm0, %zmm1, %zmm2", "fuses"),
    ("portable", "vfnmsub213ss %xmm0, %xmm1, %xmm2", "fuses"),
    ("portable", "vfmaddps %xmm0, %xmm1, %xmm2, %xmm3", "fuses"),
    ("avx512", "vfmaddsub213ps %zmm0, %zmm1, %zmm2", "fuses"),
    ("portable", "vaddps %xmm0, %xmm1, %xmm2", "feature"),
    ("portable", "dpps $255, %xmm0, %xmm1", "order"),
    ("avx512", "vdpps $255, %xmm0, %xmm1, %xmm2", "order"),
    ("avx512", "v4fmaddps (%rax), %zmm4, %zmm1", "order"),
    ("portable", "haddps %xmm0, %xmm0", "order"),
    ("avx512", "vdpbf16ps %zmm0, %zmm1, %zmm2", "half"),
    ("avx512", "vaddph %zmm0, %zmm1, %zmm2", "half"),
    ("avx512", "vfmadd231ph %zmm0, %zmm1, %zmm2", ""),
    ("avx512", "vcvtps2ph $0, %zmm0, %ymm1", "half"),
    ("avx512", "tdpbf16ps %tmm2, %tmm1, %tmm0", "matrix"),
    ("avx512", "vldmxcsr (%rsp)", "float mode"),
    ("portable", "ldmxcsr 4(%rsp)", "float mode"),
    ("avx512", "vaddps {rz-sae}, %zmm0, %zmm1, %zmm2", "direction"),
    ("avx512", "vcvtdq2ps {ru-sae}, %zmm0, %zmm1", "direction"),
    ("avx512", "vrndscaleps $11, %zmm0, %zmm1", "direction"),
    ("avx512", "vrndscaleps $0x18, %zmm0, %zmm1", "direction"),
    ("avx512", "vmulpd %zmm0, %zmm1, %zmm2", "double"),
    ("portable", "divpd %xmm0, %xmm1", "double"),
    ("avx512", "addps %xmm0, %xmm1", ""),
    ("avx512", "vnewps %zmm0, %zmm1", ""),
    ("avx2", "vrcpps %ymm0, %ymm1", "approximation"),
    ("avx2", "vroundps $11, %ymm0, %ymm1", "direction"),
    ("avx2", "vcvtps2ph $0, %ymm0, %xmm1", "half"),
    ("avx2", "vrangeps $5, %ymm0, %ymm1, %ymm2", ""),
    ("avx2", "vmulpd %ymm0, %ymm1, %ymm2", "double"),
    ("avx512", "vpdpbusds %zmm0, %zmm1, %zmm2", "saturates"),
    ("avx512", "vpdpwssds (%rax){1to16}, %zmm1, %zmm2", "saturates"),
    ("avx512", "vpmaddubsw %zmm0, %zmm1, %zmm2", "saturates"),
    ("portable", "pmaddubsw %xmm0, %xmm1", "saturates"),
    ("avx2", "vpdpbusd %ymm0, %ymm1, %ymm2", "feature"),
    ("portable", "vpdpbusd %xmm0, %xmm1, %xmm2", "feature"),
    ("portable", "callq expf@PLT", "platform"),
    ("portable", "call 6b20 <fmaf@plt>", "platform"),
    ("avx512", "jmp expf", "platform"),
    ("avx512", "movabsq $tanhf@GOT, %rax", "platform"),
]


@pytest.mark.parametrize(("target", "text", "word"), FAULTS)
@pytest.mark.parametrize("form", ["\t{}", "   12af:\t{}", "  12af:\tnotrack {}", "\t{} # why"])
def test_a_planted_fault_is_found_and_named(target, text, word, form):
    good = {
        "portable": "\tsubps %xmm0, %xmm1",
        "avx2": "\tvsubps %ymm0, %ymm1, %ymm2",
        "avx512": "\tvsubps %zmm0, %zmm1, %zmm2",
    }[target]
    report = audit_text("k", target, ["inner:", good, form.format(text), good], ["add"])
    (finding,) = report.findings
    assert finding.instruction == text
    assert word in finding.reason
    assert finding.where == ("inner, 0x12af" if "12af" in form else "inner, line 3")
    assert not report.ok
    assert report.floats[good.split()[0]] == 2
    assert report.operators == ("add",)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("portable", "paddd %xmm0, %xmm1"),
        ("portable", "movaps %xmm0, (%rdi)"),
        ("portable", "cvtss2sd %xmm0, %xmm1"),
        ("portable", "cs nopw 0x0(%rax,%rax,1)"),
        ("portable", "mov %fs:0x28, %rax"),
        ("portable", "stmxcsr 4(%rsp)"),
        ("portable", "callq memset@PLT"),
        ("portable", "jmp .LBB0_3"),
        ("portable", "call 6b20 <_ZdlPvm@plt>"),
        ("portable", "leaq .LCPI0_1@GOTOFF(%rax), %rcx"),
        ("avx2", "vroundps $8, %ymm0, %ymm1"),
        ("avx512", "vaddps {rn-sae}, %zmm0, %zmm1, %zmm2"),
        ("avx512", "vrndscaleps $8, %zmm0, %zmm1"),
        ("avx512", "vfmadd231ps (%rax){1to16}, %zmm1, %zmm2"),
        ("avx512", "vmovups (%rdi), %zmm0 {%k1} {z}"),
        ("avx512", "kortestw %k0, %k1"),
        ("avx512", "vcmpneq_oqps %zmm0, %zmm1, %k0"),
    ],
)
def test_allowed_code_has_no_finding(target, text):
    assert audit_text("k", target, [f"\t{text}"]).ok


def test_only_arithmetic_is_counted():
    lines = ["\t.byte 1", "\tmovups (%rdi), %xmm0", "\tmulps %xmm1, %xmm0", "\tpxor %xmm1, %xmm1"]
    assert audit_text("k", "portable", lines).floats == {"mulps": 1}


# tile functions


def spec(f):
    """f over contiguous rows."""
    operand = Operand(DType.F32, 1, (True,))
    sources = (operand,) * len(f.params)
    return TileSpec(sources, (TileStep(f, tuple(range(len(sources)))),), ((0, operand),))


@function("two_roundings", F32, F32, F32)
def two_roundings(a, b, c):
    return a * b + c


@function("one_rounding", F32, F32, F32)
def one_rounding(a, b, c):
    return scalar.fma(a, b, c)


def test_mul_and_add_are_not_contracted():
    for isa in ("avx2", "avx512"):
        (wide,) = audit_tiles([spec(two_roundings)], isa)
        assert wide.ok
        assert set(wide.floats) == {"vmulps", "vaddps", "vmulss", "vaddss"}
    (narrow,) = audit_tiles([spec(two_roundings)], "portable")
    assert narrow.ok
    assert set(narrow.floats) == {"mulps", "addps", "mulss", "addss"}


def test_a_stated_fma_is_one_instruction_or_emulated():
    for isa in ("avx2", "avx512"):
        wide = audit_tiles([spec(one_rounding)], isa)[0].floats
        assert all(m.startswith("vfmadd") for m in wide)
    narrow = audit_tiles([spec(one_rounding)], "portable")[0]
    assert narrow.ok
    assert {"mulpd", "addpd", "cvtpd2ps"} <= set(narrow.floats)


def test_tiles_are_reported_in_order_and_by_operator():
    both = [spec(two_roundings), spec(one_rounding), spec(two_roundings)]
    reports = audit_tiles(both, "avx512")
    assert [r.kernel for r in reports] == ["tile0", "tile1", "tile2"]
    assert [r.operators for r in reports] == [
        ("two_roundings",),
        ("one_rounding",),
        ("two_roundings",),
    ]
    assert reports[0].floats == reports[2].floats != reports[1].floats
    assert audit_tiles([], "avx512") == []


@pytest.mark.parametrize("isa", ISAS)
def test_tiles_of_real_programs_are_clean(isa):
    tiles = {}
    for op in ("exp", "log", "sin", "erf", "gelu", "rsqrt", "sigmoid", "div", "maximum", "where"):
        for case in cases(op):
            instance = case.program.instance(case.program.bind_symbols(case.sample.inputs))
            for tile in plan(instance.graph, panel=_core.panel("portable")).tiles:
                tiles[tile] = op
    reports = audit_tiles(list(tiles), isa)
    assert len(reports) == len(tiles) >= 10
    assert [f for r in reports for f in r.findings] == []


# the compiled kernels


@pytest.fixture(scope="module")
def core():
    return {r.target: r for r in audit_core()}


def test_the_compiled_kernels_are_clean(core):
    assert set(core) == set(ISAS)
    for report in core.values():
        assert report.findings == ()
        assert {"gemm", "attention", "softmax", "cumsum_f32", "sum"} <= set(report.operators)
    assert core["portable"].operators == core["avx2"].operators == core["avx512"].operators


def test_the_report_covers_the_kernels_arithmetic(core):
    """The builds hold the same source: thousands of chain steps, fused or emulated."""
    portable = core["portable"].floats
    assert portable["mulpd"] > 1000
    assert not any(m.startswith("v") for m in portable)
    for wide in (core["avx2"].floats, core["avx512"].floats):
        assert sum(n for m, n in wide.items() if m.startswith("vfmadd")) > 1000
        assert all(m.startswith("v") for m in wide)
        for mnemonic in ("divps", "sqrtps", "addps", "subps"):
            assert portable[mnemonic] > 0
            assert wide[f"v{mnemonic}"] > 0


@pytest.mark.parametrize(
    ("target", "before", "after", "word"),
    [
        ("portable", "\tmulpd ", "\tvfmadd231ps %zmm0,", "fuses"),
        ("portable", "\tdivps ", "\trcpps ", "approximation"),
        ("avx2", "\tvdivps %ymm", "\tvdpps $0xff,%ymm", "order"),
        ("avx512", "\tvsqrtps ", "\tvrsqrt14ps ", "approximation"),
        ("avx512", "\tvdivss ", "\tfdivp ", "x87"),
    ],
)
def test_a_fault_planted_in_the_library_is_found(monkeypatch, target, before, after, word):
    real = cpu._output
    planted = []

    def output(*command):
        lines = real(*command)
        if "-d" in command:
            at = next(i for i, line in enumerate(lines) if before in line)
            lines[at] = lines[at].replace(before, after)
            planted.append(lines[at])
        return lines

    monkeypatch.setattr(cpu, "_output", output)
    findings = {r.target: r.findings for r in audit_core()}
    (finding,) = findings.pop(target)
    assert findings == dict.fromkeys(findings, ())
    assert word in finding.reason
    kernel, address = finding.where.split(", ")
    assert address == "0x" + planted[0].split(":")[0].strip()
    assert kernel != "unreached code"


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr(cpu.shutil, "which", lambda tool: None)
    with pytest.raises(PlatformError, match="objdump") as e:
        audit_core()
    assert e.value.hint == "install binutils"
