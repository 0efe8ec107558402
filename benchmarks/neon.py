"""The C++ kernels for AArch64, under emulation, against those of this processor, by digest.

    python benchmarks/neon.py [--full] [--json FILE]

benchmarks/neon/ is built for this x86-64 machine and, with a cross compiler, for AArch64; the latter
runs under qemu's user-mode emulation. A case is a kernel on deterministic operands, or one operation
of the vector layer; every build must print the same SHA-256 of its output bytes. Needs
aarch64-linux-gnu-g++ and qemu-aarch64-static (Debian: g++-aarch64-linux-gnu, qemu-user-static).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("csrc/pool.cpp", "csrc/dispatch.cpp", "benchmarks/neon/main.cpp")
# as CMakeLists.txt has them
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
         "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-pthread"]  # fmt: skip
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma",
          "-mprefer-vector-width=512"]  # fmt: skip
BUILDS: dict[str, dict[str, list[str]]] = {
    "x86-64": {"portable": [], "avx2": ["-mavx2", "-mfma", "-mf16c"], "avx512": AVX512},
    "aarch64": {"portable": [], "neon": []},
}
# the processor's own SHA-256; emulated processors have ARM's, so NEON's is taken in a second build
SHA = {"x86-64": ("csrc/hash/sha_x86.cpp", "-msha", "-msse4.1"),
       "aarch64": ("csrc/hash/sha_arm.cpp", "-march=armv8-a+crypto")}  # fmt: skip
COMPILERS = {"x86-64": "g++", "aarch64": "aarch64-linux-gnu-g++"}
EMULATOR = "qemu-aarch64-static"
PACKAGES = {COMPILERS["aarch64"]: "g++-aarch64-linux-gnu", EMULATOR: "qemu-user-static"}


def build(machine: str, folder: Path) -> tuple[Path, Path]:
    """The harness for `machine`, linked statically, and one that leaves out SHA instructions."""
    compiler, objects = COMPILERS[machine], []

    def compile_(source: str, target: str, *options: str) -> None:
        objects.append(str(folder / f"{machine}-{target}.o"))
        subprocess.run([compiler, *FLAGS, *options, f"-I{folder}", f"-I{ROOT / 'csrc'}", "-c",
                        str(ROOT / source), "-o", objects[-1]], check=True)  # fmt: skip

    for source in SOURCES:
        compile_(source, Path(source).stem)
    compile_(SHA[machine][0], "sha", *SHA[machine][1:])
    for isa, options in BUILDS[machine].items():
        compile_(f"csrc/isa/{isa}.cpp", isa, *options)
        compile_("benchmarks/neon/layer.cpp", f"{isa}-layer", *options,
                 f'-DREE_LAYER="isa/{isa}.hpp"')  # fmt: skip

    def link(name: str, objects: list[str]) -> Path:
        whole = ["-Wl,--whole-archive", "-lpthread", "-Wl,--no-whole-archive"]
        command = [compiler, "-static", *objects, *whole, "-o", str(folder / name)]
        subprocess.run(command, check=True)
        return folder / name

    program = link(f"harness-{machine}", objects)
    objects.remove(str(folder / f"{machine}-dispatch.o"))
    compile_("csrc/dispatch.cpp", "dispatch-no-sha", "-DREE_NO_SHA")
    return program, link(f"harness-no-sha-{machine}", objects)


def digests(command: list[str]) -> dict[str, str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}")
    cases = dict(line.split() for line in done.stdout.splitlines())
    if cases["bytes_0_to_255"] != hashlib.sha256(bytes(range(256))).hexdigest():
        sys.exit(f"{' '.join(command)}: its SHA-256 is wrong")
    return cases


def version(tool: str) -> str:
    done = subprocess.run([tool, "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[0]


def processor_has(isa: str) -> bool:
    words = set(Path("/proc/cpuinfo").read_text().split())
    return {"avx2": {"avx2", "fma", "f16c"}, "avx512": {"avx512dq", "avx512bw", "avx512vl"}}.get(
        isa, set()
    ) <= words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more operands of scalar functions")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/neon.json")
    args = parser.parse_args()
    for tool, package in PACKAGES.items():
        if shutil.which(tool) is None:
            sys.exit(f"{tool} not found: install {package}")
    results: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, str(ROOT / "csrc/generate.py"), str(folder)], check=True)
        for machine, isas in BUILDS.items():
            emulator = [EMULATOR] * (machine == "aarch64")
            program, without = build(machine, folder)
            for isa in filter(processor_has, isas):
                command = [*emulator, str(program), isa]
                results[f"{machine}/{isa}"] = digests(command + ["--full"] * args.full)
                print(f"{machine}/{isa}: {len(results[f'{machine}/{isa}'])} cases", file=sys.stderr)
            best = list(filter(processor_has, isas))[-1]
            hashes = digests([*emulator, str(without), best, "--hashes"])
            first = results["x86-64/portable"]
            results[f"{machine}/{best} without SHA instructions"] = first | hashes
    first = results["x86-64/portable"]
    different = {
        build: sorted(case for case in first.keys() | r.keys() if r.get(case) != first.get(case))
        for build, r in results.items()
    }
    for build_, cases in different.items():
        for case in cases:
            print(f"{build_}: {case} differs")
    if any(different.values()):
        sys.exit(1)
    data = {
        "builds": list(results),
        "compilers": {machine: version(tool) for machine, tool in COMPILERS.items()},
        "emulator": version(EMULATOR),
        "operands": "full" if args.full else "default",
        "cases": len(first),
        "digests": first,
    }
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(data, indent=1) + "\n")
    print(f"{len(first)} cases equal on {', '.join(results)}; wrote {args.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
