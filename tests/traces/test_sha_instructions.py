"""SHA-256 by x86's own instructions against hashlib: emulated ones where the processor lacks them."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ree import _core
from ree.traces.tensor import body_root

from .test_csrc_hash import LENGTHS, data, reference

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-psabi", "-Werror", "-fPIC", "-pthread"]
LAYERS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"],
}
KERNELS = ["tree_hash", "tree_hash_many", "sha256_many"]
COMPILER = shutil.which(os.environ.get("CXX", "g++"))

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 instructions"),
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
]


def processor_has_them() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "sha_ni" in cpuinfo.read_text().split()


def compile_(source: Path, target: Path, *options: str) -> Path:
    assert COMPILER
    folders = [f"-I{CSRC}", f"-I{target.parent}"]
    command = [COMPILER, *FLAGS, *folders, *options, "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """A library for each vector layer and each kind of instructions."""
    folder = tmp_path_factory.mktemp("sha")
    subprocess.run([sys.executable, str(CSRC / "generate.py"), str(folder)], check=True)
    source = CSRC / "hash/sha_x86.cpp"
    emulation = f'-DREE_SHA_EMULATED="{HERE / "sha_emulated.hpp"}"'
    kinds = {"emulated": compile_(source, folder / "emulated.o", "-msse4.1", emulation)}
    if processor_has_them():
        kinds["own"] = compile_(source, folder / "own.o", "-msse4.1", "-msha")
    pool = compile_(CSRC / "pool.cpp", folder / "pool.o")
    libraries = {}
    for layer in set(LAYERS) & set(_core.isa_names()):
        harness = compile_(HERE / "sha_harness.cpp", folder / f"{layer}.o", *LAYERS[layer],
                           f'-DREE_LAYER="isa/{layer}.hpp"')  # fmt: skip
        for kind, instructions in kinds.items():
            library = folder / f"{layer}-{kind}.so"
            objects = [str(x) for x in (pool, harness, instructions)]
            assert COMPILER
            subprocess.run(
                [COMPILER, "-shared", "-pthread", *objects, "-o", str(library)], check=True
            )
            libraries[f"{layer}-{kind}"] = ctypes.CDLL(str(library))
    return libraries


def run(library: ctypes.CDLL, up_to: int, threads: int, kernel: str, params: list[int],
        *arrays: np.ndarray) -> None:  # fmt: skip
    pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    numbers = (ctypes.c_int64 * len(params))(*params)
    library.run(up_to, KERNELS.index(kernel), threads, pointers, numbers)


@pytest.mark.parametrize("up_to", [1, 2, 10, 16])
def test_tree_hash(builds: dict[str, ctypes.CDLL], up_to: int) -> None:
    for name, library in builds.items():
        for n in LENGTHS:
            out = np.full(34, 0xA5, np.uint8)
            run(library, up_to, 2, "tree_hash", [n], data(n), out[1:33])
            assert out[1:33].tobytes() == reference(n), (name, n)
            assert out[0] == out[33] == 0xA5


@pytest.mark.parametrize("up_to", [1, 10, 16])
def test_tree_hash_many(builds: dict[str, ctypes.CDLL], up_to: int) -> None:
    rng = np.random.default_rng(7)
    for k in (0, 1, 2, 3, 17, 40):
        sizes = [int(n) for n in rng.choice(LENGTHS[:-1], k)]
        for library in builds.values():
            out = np.zeros((k + 1, 32), np.uint8)
            run(library, up_to, 2, "tree_hash_many", [k, *sizes], *map(data, sizes), out)
            assert [r.tobytes() for r in out] == [*map(reference, sizes), bytes(32)]


def test_at_any_address(builds: dict[str, ctypes.CDLL]) -> None:
    n = 512 * 20 + 100
    for shift in range(0, 65, 13):
        x = np.zeros(n + 65, np.uint8)
        x[shift : shift + n] = data(n)
        for library in builds.values():
            out = np.zeros(32, np.uint8)
            run(library, 16, 1, "tree_hash", [n], x[shift : shift + n], out)
            assert out.tobytes() == body_root(data(n))


@pytest.mark.parametrize("up_to", [1, 10, 16])
def test_sha256_many(builds: dict[str, ctypes.CDLL], up_to: int) -> None:
    for length in (0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 1000):
        for count in (1, 3, 16, 37):
            x = data(count * (length + 3)).reshape(count, length + 3)
            want = [hashlib.sha256(row[:length].tobytes()).digest() for row in x]
            for library in builds.values():
                out = np.zeros((count, 32), np.uint8)
                run(library, up_to, 2, "sha256_many", [count, length, length + 3], x, out)
                assert [r.tobytes() for r in out] == want


def test_the_build_holds_the_instructions(tmp_path: Path) -> None:
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("no objdump")
    built = compile_(CSRC / "hash/sha_x86.cpp", tmp_path / "own.o", "-msse4.1", "-msha")
    code = subprocess.run([objdump, "-d", str(built)], capture_output=True, text=True, check=True)
    # one stream and two: 32 double rounds a block and 12 steps of the schedule, each
    for name, count in {"sha256rnds2": 32, "sha256msg1": 12, "sha256msg2": 12}.items():
        assert code.stdout.count(name) == 3 * count
