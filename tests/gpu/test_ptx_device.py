"""`--device ptx:TARGET`: Triton's PTX executed on this CPU, in a process of its own, since this one interprets
kernels; and faults planted in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ree
from ree.cli import main
from ree.errors import PlatformError
from ree.runtime import gpu_device
from ree.runtime.ptx_device import PTX_TARGETS, PtxDevice

ENV = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}


@pytest.fixture(scope="module")
def lines():
    script = Path(__file__).with_name("executed.py")
    out = subprocess.run(
        [sys.executable, "-P", str(script)], env=ENV, text=True, capture_output=True
    )
    assert out.returncode == 0, out.stderr
    return [json.loads(line) for line in out.stdout.splitlines()]


def test_operators_of_every_kind_have_the_references_bytes(lines):
    real = [x for x in lines if not x["fault"]]
    assert len({x["name"] for x in real}) == 17
    targets = [x["device"].split(":")[1].split(",")[0] for x in real if x["name"] == "linear_i8"]
    assert sorted(targets) == sorted(PTX_TARGETS)
    assert [x for x in real if x["said"] != "same"] == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("barrier", "race on shared memory"),
        ("lane", "race on shared memory"),
        ("approximation", "div.approx.f32 is not known"),
        ("fused", "differs"),
        ("border", "outside of all arguments"),
        ("wait", "differs"),
        ("race", "race on shared memory"),
        ("unwritten", "differs"),
    ],
)
def test_a_planted_fault_is_seen(lines, fault, said):
    (x,) = (x for x in lines if x["fault"] == fault)
    assert said in x["said"]
    if said != "differs":
        assert "PTX line" in x["said"]
        assert ".py:" in x["said"] or "<ree tile" in x["said"]


def test_names_of_devices(monkeypatch):
    for name in ("ptx:sm_35", "ptx:", "ptx:sm_90,early", "ptx:sm_90,order=", "ptx:gfx942"):
        with pytest.raises(
            PlatformError, match="expected ptx:TARGET with a target of sm_80, sm_90, sm_120"
        ):
            PtxDevice(name)
    with pytest.raises(PlatformError, match="kernels are interpreted in this process"):
        PtxDevice("ptx:sm_90")
    monkeypatch.setattr(gpu_device.importlib.metadata, "version", lambda name: "3.5.1")
    with pytest.raises(PlatformError, match=r"Triton: expected 3\.6 or newer, got 3\.5\.1"):
        PtxDevice("ptx:sm_90")
    monkeypatch.setattr(gpu_device.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlatformError, match="Triton is not installed"):
        PtxDevice("ptx:sm_90")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ptx")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 9), torch.nn.GELU(), torch.nn.Softmax(-1)
    ).eval()
    program = ree.compile(model, {"input": torch.randn(3, 20)})
    program.save(folder / "m.ree")
    np.savez(folder / "in.npz", **program.examples)
    return folder


def test_a_trace_of_the_cpu_is_verified(artifact, capsys):
    given = ["--inputs", str(artifact / "in.npz"), "--trace", str(artifact / "t")]
    assert main(["run", str(artifact / "m.ree"), *given]) == 0
    verify = ["verify", str(artifact / "m.ree"), *given, "--device", "ptx:sm_90"]
    command = [sys.executable, "-P", "-m", "ree.cli", *verify]
    out = subprocess.run(command, env=ENV, text=True, capture_output=True)
    assert out.returncode == 0, out.stderr


@pytest.mark.parametrize(
    ("device", "said"),
    [("ptx:sm_35", "expected ptx:TARGET"), ("ptx:sm_90", "interpreted in this process")],
)
def test_a_device_that_is_not_there_is_one_line(artifact, capsys, device, said):
    given = ["--inputs", str(artifact / "in.npz"), "--device", device]
    assert main(["run", str(artifact / "m.ree"), *given]) == 2
    out = capsys.readouterr()
    assert said in out.err
    assert len(out.err.strip().splitlines()) <= 2  # the line and its hint
    assert not out.out
