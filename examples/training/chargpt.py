"""A GPT over characters on the four Gospels (King James Version): 4 layers, 3.2 million parameters.

ree train examples/training/chargpt.py -o chargpt.run --steps 200
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ree import optim


class Size(NamedTuple):
    width: int
    layers: int
    heads: int
    tokens: int
    batch: int


FULL = Size(width=256, layers=4, heads=8, tokens=128, batch=16)
TINY = Size(width=64, layers=2, heads=4, tokens=32, batch=8)
SIZE = FULL
DROPOUT = 0.0
STEPS = 200
FILE = Path(__file__).parent / "data" / "gospels.txt"

characters = np.frombuffer(FILE.read_bytes(), np.uint8)  # the text is ASCII
alphabet, tokens = np.unique(characters, return_inverse=True)
held_out = len(tokens) // 10  # the end of the text


def data():
    return [FILE]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (
            y.view(b, t, self.heads, d // self.heads).transpose(1, 2)
            for y in self.qkv(self.norm1(x)).split(d, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(b, t, d)), DROPOUT, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), DROPOUT, self.training)


class GPT(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.characters = nn.Embedding(len(alphabet), size.width)
        self.positions = nn.Parameter(torch.empty(size.tokens, size.width))
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, len(alphabet), bias=False)
        for name, p in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):  # each layer adds two of these
                nn.init.normal_(p, std=0.02 / (2 * size.layers) ** 0.5)
            elif p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.characters(ids) + self.positions)))


def model():
    torch.manual_seed(0)
    return GPT(SIZE)


def loss(model, batch):
    ids, following = batch
    return F.cross_entropy(model(ids).flatten(0, 1), following.flatten())


def optimizer():
    schedule = optim.Cosine(warmup=20, steps=STEPS, final=0.1)
    return optim.AdamW(
        lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1, clip_norm=1.0, schedule=schedule
    )


def windows(starts):
    at = np.asarray(starts)[:, None] + np.arange(SIZE.tokens + 1)
    ids = torch.from_numpy(tokens[at].astype(np.int64))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def batch(step):
    """Characters i64[batch, tokens] at random places of the text and the characters after them."""
    last = len(tokens) - held_out - SIZE.tokens
    return windows(np.random.default_rng([1, step]).integers(0, last, SIZE.batch))


@torch.no_grad()
def evaluate(model):
    """Nats per character on 64 windows of the text held out."""
    model.eval()
    starts = np.linspace(len(tokens) - held_out, len(tokens) - SIZE.tokens - 1, 64).astype(int)
    return {"test_loss": loss(model, windows(starts)).item()}
