"""A small training run that several files of tests look at."""

import shutil
from pathlib import Path

import pytest

TRAIN = """
import numpy as np, torch
import ree.optim

class M(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
    def forward(self, x):
        return self.b(torch.nn.functional.gelu(self.a(x)))

def model():
    return M()

def loss(model, batch):
    x, y = batch
    return torch.nn.functional.cross_entropy(model(x), y)

def optimizer():
    return ree.optim.AdamW(lr=0.01)

def batch(step):
    r = np.random.default_rng(step)
    x = r.standard_normal((4, 6), np.float32)
    return torch.from_numpy(x), torch.from_numpy((x.sum(1) > 0).astype(np.int64))
"""
STEPS, EVERY = 12, 5


class Toy:
    """The functions of a TRAIN.py and its compiled step."""

    def __init__(self, text: str) -> None:
        from ree.training.step import compile_step

        names: dict = {"__name__": "toy"}
        exec(compile(text, "train.py", "exec"), names)
        self.batch = names["batch"]
        self.step = compile_step(
            names["model"](), names["loss"], names["optimizer"](), self.batch(1)
        )


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy(TRAIN)


@pytest.fixture(scope="session")
def toy_with():
    """A toy whose TRAIN.py has one text replaced by another."""

    def make(old: str, new: str) -> Toy:
        assert old in TRAIN
        return Toy(TRAIN.replace(old, new))

    return make


@pytest.fixture(scope="session")
def honest(toy, tmp_path_factory) -> Path:
    """A run of STEPS steps with a checkpoint every EVERY, beside its train.py; not to be changed."""
    from ree.training.loop import run_steps

    d = tmp_path_factory.mktemp("runs")
    (d / "train.py").write_text(TRAIN)
    run_steps(toy.step, toy.batch, STEPS, run=d / "run", checkpoint_every=EVERY)
    return d


@pytest.fixture
def runs(honest, tmp_path) -> Path:
    """A copy of `honest` to change."""
    shutil.copytree(honest, tmp_path / "w")
    return tmp_path / "w"
