"""Builds the wheel, installs it in a fresh environment outside the checkout and runs an artifact there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

import ree
from ree.compiler.frontend.torch_types import to_numpy

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run(
        list(map(str, command)), cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        d = Path(folder)
        pip = ("-m", "pip", "--disable-pip-version-check")
        run(sys.executable, *pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", d, ROOT)
        (wheel,) = d.glob("*.whl")
        files = zipfile.ZipFile(wheel).namelist()
        assert "ree/settlement/gate.py" in files
        assert "ree/serving/static/index.html" in files
        assert not [
            f for f in files if "testing" in Path(f).with_suffix("").parts and f.endswith(".py")
        ]
        run(sys.executable, "-m", "venv", d / "venv")
        run(d / "venv/bin/python", *pip, "install", "-q", "-c", ROOT / "constraints.txt", wheel)
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(40, 30), torch.nn.GELU(), torch.nn.Linear(30, 5)
        )
        x = torch.randn(3, 40)
        program = ree.compile(model.eval(), (x,))
        program.save(d / "net.ree")
        np.savez(d / "in.npz", **{program.names.inputs[0]: x.numpy()})
        ours = d / "venv/bin/ree"
        assert run(ours, "-V", cwd=d).split()[-1] == ree.__version__
        assert "compile" in run(ours, "--help", cwd=d)
        run(
            ours,
            "run",
            "net.ree",
            "--inputs",
            "in.npz",
            "-o",
            "out.safetensors",
            "--trace",
            "t.trace",
            cwd=d,
        )
        (got,) = load_file(d / "out.safetensors").values()
        assert got.tobytes() == to_numpy(program(x)).tobytes(), "other bits"
        run(ours, "verify", "net.ree", "--trace", "t.trace", "--inputs", "in.npz", cwd=d)
        has_torch = subprocess.run(
            [d / "venv/bin/python", "-c", "import torch"], capture_output=True, check=False
        )
        assert has_torch.returncode, "the base install has no torch"
        print(f"{wheel.name}: installed without torch, the same bits and trace")


if __name__ == "__main__":
    main()
