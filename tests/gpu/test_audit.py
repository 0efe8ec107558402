"""The GPU audit: forbidden instructions are found, real kernels have none. Kernels are compiled in
processes of their own, since this one interprets them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ree
from ree.compiler.audit.gpu import AMD_ALLOWED, audit_ptx, audit_sass

ENV = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}

PTX = """
\t.file\t1 "/src/kernel.py"
\t.loc\t1 42 7
\tfma.rn.f32 \t%r1, %r2, %r3, %r4;
\tadd.rn.f32x2 \t%rd1, %rd2, %rd3;
\t@%p1 div.rn.f32 \t%r5, %r6, %r7;
\tsetp.lt.f32 \t%p2, %r1, %r2;
\tcvt.rn.f32.s32 \t%r8, %r9;
\tmma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 {%r1}, {%r2}, {%r3}, {%r4};
\twgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {%r1}, %rd1, %rd2, 1;
"""


def test_allowed_ptx_passes():
    counts, findings = audit_ptx(PTX)
    assert sum(counts.values()) == 7
    assert not findings


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("add.f32 %r1, %r2, %r3;", "fuse"),
        ("mad.f32 %r1, %r2, %r3, %r4;", "fuse"),
        ("mul.rn.ftz.f32 %r1, %r2, %r3;", "flushed"),
        ("div.full.f32 %r1, %r2, %r3;", "not correctly rounded"),
        ("ex2.approx.f32 %r1, %r2;", "not correctly rounded"),
        ("sqrt.approx.ftz.f32 %r1, %r2;", "flushed"),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r1}, {%r2}, {%r3}, {%r4};",
            "tensor",
        ),
        ("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%r1}, {%r2}, {%r3}, {%r4};", "tensor"),
        (
            "mma.sync.aligned.m16n8k32.row.col.f16.e4m3.e4m3.f16 {%r1}, {%r2}, {%r3}, {%r4};",
            "tensor",
        ),
        ("atom.global.add.f32 %r1, [%rd1], %r2;", "atomic"),
        ("red.global.add.f32 [%rd1], %r2;", "atomic"),
        ("fma.rn.f64 %rd1, %rd2, %rd3, %rd4;", "float32"),
        ("add.rz.f32 %r1, %r2, %r3;", "fuse"),
        ("tanh.approx.f32 %r1, %r2;", "not correctly rounded"),
    ],
)
def test_planted_ptx_is_found(planted, reason):
    _, findings = audit_ptx(PTX + f"\t.loc\t1 99 3\n\t{planted}\n")
    assert [f.instruction for f in findings] == [planted.split()[0]]
    assert reason in findings[0].reason
    assert findings[0].where == "/src/kernel.py:99"


SASS = """
        /*0010*/                   FFMA R1, R2, R3, R4 ;
        /*0020*/              @!P0 FADD R1, R2, -R3 ;
        /*0030*/                   HFMA2 R7, -RZ, RZ, 0, 0 ;
        /*0040*/                   LDG.E R2, desc[UR4][R2.64] ;
        /*0050*/                   IMMA.16832.S8.S8.SAT R4, R8.ROW, R2.COL, R4 ;
        /*0060*/                   IGMMA.64x64x32.S8.S8 R24, gdesc[UR8], R24, gsb0 ;
"""


def test_allowed_sass_passes():
    counts, findings = audit_sass(SASS, (False, False))
    assert counts == {"FFMA": 1, "FADD": 1, "IMMA.16832.S8.S8.SAT": 1, "IGMMA.64": 1}
    assert not findings


@pytest.mark.parametrize(
    ("planted", "divides", "reason"),
    [
        ("MUFU.EX2 R1, R2", (True, True), "not correctly rounded"),
        ("MUFU.RCP R1, R2", (False, False), "not correctly rounded"),
        ("FFMA.FTZ R1, R2, R3, R4", (False, True), "flushed"),
        ("FADD.RZ R1, R2, R3", (False, False), "not correctly rounded"),
        ("HMMA.1688.F32.TF32 R4, R8, R2, R4", (True, True), "tensor"),
        ("HGMMA.64x64x8.F32.TF32 R24, gdesc[UR4], R24", (True, True), "tensor"),
        ("IMMA.16832.U8.S8.SAT R4, R8.ROW, R2.COL, R4", (True, True), "tensor"),
        ("IGMMA.64x64x32.U8.U8 R24, gdesc[UR8], R24", (True, True), "tensor"),
        ("HFMA2 R1, R2, R3, R4", (True, True), "float32"),
        ("DFMA R2, R4, R6, R8", (True, True), "float32"),
        ("RED.E.ADD.F32.FTZ.RN.STRONG.GPU desc[UR4][R2.64], R5", (True, True), "atomic"),
        ("STL [R1], R2", (True, True), "spill"),
        ("LDL.LU R3, [R1]", (True, True), "spill"),
    ],
)
def test_planted_sass_is_found(planted, divides, reason):
    _, findings = audit_sass(SASS + f"        /*0050*/                   {planted} ;\n", divides)
    assert len(findings) == 1
    assert findings[0].instruction.startswith(planted.split()[0])
    assert reason in findings[0].reason


def test_division_may_approximate_inside():
    listing = SASS + "        /*0050*/                   MUFU.RCP R1, R2 ;\n"
    assert not audit_sass(listing, (True, False))[1]


def test_amd_matrix_instructions_are_not_allowed():
    assert AMD_ALLOWED.fullmatch("v_fma_f32")
    assert not AMD_ALLOWED.fullmatch("v_mad_f32")
    assert not AMD_ALLOWED.fullmatch("v_exp_f32")


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(40, 24)

    def forward(self, x):
        return torch.softmax(torch.nn.functional.gelu(self.linear(x)), -1)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "small.ree"
    ree.compile(Small().eval(), {"x": torch.randn(3, 40)}).save(path)
    return path


def ree_command(*args):
    return subprocess.run([sys.executable, "-P", "-m", "ree.cli", *map(str, args)], env=ENV, text=True,
                          capture_output=True)  # fmt: skip


def test_a_programs_kernels_pass(artifact):
    out = ree_command("audit", artifact, "--target", "cpu,sm_90", "--json")
    assert out.returncode == 0, out.stderr
    kernels = json.loads(out.stdout)["kernels"]
    gpu = [k for k in kernels if k["target"] == "sm_90"]
    assert {k["kernel"].split("[")[0] for k in gpu} >= {"gemm", "softmax", "hash_leaves"}
    assert any("linear" in op and "test_audit.py" in op for k in gpu for op in k["operators"])
    assert all(k["registers"] > 0 and k["spills"] == 0 for k in gpu)
    assert any("ptx fma.rn.f32" in k["floats"] for k in gpu)


def test_a_contraction_of_bytes_and_a_draw_pass(tmp_path):
    """Contractions on tensor cores: their totals are exact, whatever their order."""
    script = tmp_path / "bytes.py"
    script.write_text(BYTES)
    out = subprocess.run(
        [sys.executable, "-P", str(script)], env=ENV, text=True, capture_output=True
    )
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    assert len(lines) == 15
    assert all("[]" in x for x in lines), out.stdout
    assert all("s32.s8.s8" in x for x in lines if x.startswith("gemm_i8")), out.stdout
    assert sum(x.startswith("draw_tokens") for x in lines) == 3


BYTES = """
from ree.compiler.audit import gpu
from ree.kernels.abi import NO_TILE
from ree.kernels.gpu.launch import kernel_call, table
for target in ("sm_80", "sm_90", "sm_120"):
    calls = [kernel_call("gemm_i8", a=0, packed=1, c=2, m=m, n=n, k=k, group=2, tile=NO_TILE)
             for m, n, k in ((1024, 1024, 1024), (30, 20, 100))]
    calls.append(kernel_call("sample", logits=0, temperature=1, top_p=2, min_p=3, top_k=4, seed=5, position=6,
                             choice=7, tokens=8, rows=2, vocabulary=262144))
    for call in calls:
        table()[call.kernel](call)
        for report in gpu.audit(call.launches, target):
            print(report.kernel, list(report.findings), report.spills * "spills", sorted(report.floats))
"""


def test_unknown_target(artifact):
    out = ree_command("audit", artifact, "--target", "sm_10")
    assert out.returncode == 2
    assert "expected some of cpu" in out.stderr
    assert "Traceback" not in out.stderr


PLANTED = """
import dataclasses, sys
import triton, triton.language as tl
from ree.compiler.audit import gpu
from ree.kernels.gpu.launch import Launch, Ptr
@triton.jit
def bad(x, y, B: tl.constexpr):
    i = tl.arange(0, B)
    v = tl.load(x + i)
    tl.store(y + i, tl.exp(v) / (v + 3.0) {extra})
l = Launch(bad, (1, 1, 1), (Ptr(0, "fp32"), Ptr(1, "fp32")), (("B", 128),))
(report,) = gpu.audit([l], "sm_90")
for f in report.findings:
    print(f.instruction.split()[0], f.where.rsplit("/", 1)[-1])
"""


def test_a_careless_kernel_is_rejected(tmp_path):
    """Triton's own exp and `/`: approximations, with the line they come from."""
    script = tmp_path / "careless.py"
    script.write_text(PLANTED.replace("{extra}", ""))
    out = subprocess.run(
        [sys.executable, "-P", str(script)], env=ENV, text=True, capture_output=True
    )
    assert "div.full.f32 careless.py:" in out.stdout, out.stderr
    assert "ex2.approx" in out.stdout


@pytest.fixture(scope="module")
def proofs():
    script = Path(__file__).with_name("proof.py")
    out = subprocess.run(
        [sys.executable, "-P", str(script)], env=ENV, text=True, capture_output=True
    )
    assert out.returncode == 0, out.stderr
    return [json.loads(line) for line in out.stdout.splitlines()]


def test_the_ptx_of_contractions_is_the_contracts_chain(proofs):
    real = [p for p in proofs if not p["fault"]]
    assert {p["name"] for p in real} == {
        "gemm", "gemv_segments+gemm_fold", "gemm_segments+gemm_fold",
    }  # fmt: skip
    assert {p["target"] for p in real} == {"sm_80", "sm_90", "sm_120"}
    assert all(p["wrong"] == 0 for p in real), real


def test_the_proof_sees_planted_faults(proofs):
    planted = {p["fault"]: p["wrong"] for p in proofs if p["fault"]}
    assert all(planted[f] > 0 for f in ("order", "unfused", "segment")), planted
    assert all("before it is written" in planted[f] for f in ("barrier", "wait")), planted


def test_contractions_with_narrow_weights_are_clean():
    script = Path(__file__).with_name("stored_kernels.py")
    out = subprocess.run(
        [sys.executable, "-P", str(script)], env=ENV, text=True, capture_output=True
    )
    assert out.returncode == 0, out.stderr
    reports = [json.loads(line) for line in out.stdout.splitlines()]
    expected = {(storage, few, "sm_90") for storage in (1, 2, 3) for few in (True, False)}
    expected |= {(3, few, target) for few in (True, False) for target in ("sm_80", "sm_120")}
    assert {(r["storage"], r["m"] <= 8, r["target"]) for r in reports} >= expected
    assert {r["kernel"].split("[")[0] for r in reports} == {"gemv_segments", "widen"}
    assert not [r for r in reports if r["spills"] or r["findings"]]
