"""The tests in C++ (tests/csrc/native), built and run without sanitizers; `make sanitize` has them with."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def test_every_test_in_cpp_holds() -> None:
    folder = ROOT / "build/native"
    configure = [
        TOOLS / "cmake",
        "-S",
        ROOT,
        "-B",
        folder,
        "-G",
        "Ninja",
        "-DREE_TESTS=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    for command in (configure, [TOOLS / "cmake", "--build", folder, "--target", "ree_tests"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([folder / "tests/csrc/native/ree_tests"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 failed\n")
