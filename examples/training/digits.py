"""A small convolutional network on scikit-learn's digits: 1797 grey images of 8x8 pixels.

ree train examples/training/digits.py -o digits.run --steps 300
"""

from pathlib import Path

import numpy as np
import sklearn.datasets
import torch
import torch.nn.functional as F
from torch import nn

from ree import optim
from ree.random import Generator

BATCH, STEPS, TEST = 64, 300, 360
FILE = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"

table = np.loadtxt(FILE, delimiter=",", dtype=np.float32)
table = table[np.random.default_rng(0).permutation(len(table))]
images = torch.from_numpy(table[:, :64] / np.float32(16)).reshape(-1, 1, 8, 8)
labels = torch.from_numpy(table[:, 64].astype(np.int64))


def data():
    return [FILE]


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64 * 2 * 2, 10),
    )


def loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


def optimizer():
    schedule = optim.Cosine(warmup=20, steps=STEPS, final=0.0)
    return optim.AdamW(lr=3e-3, weight_decay=0.01, clip_norm=1.0, schedule=schedule)


def batch(step):
    """64 images f32[64, 1, 8, 8] in [0, 1] and their digits i64[64]; all of them in turn, shuffled anew
    each time round, in the same order on every machine."""
    count = len(images) - TEST
    turn, place = divmod(step, count // BATCH)
    rows = Generator(1, turn).permutation(count)[place * BATCH : (place + 1) * BATCH]
    return images[TEST:][rows], labels[TEST:][rows]


@torch.no_grad()
def evaluate(model):
    """Accuracy on the images held out."""
    model.eval()
    found = model(images[:TEST]).argmax(1)
    return {"test_accuracy": (found == labels[:TEST]).double().mean().item()}
