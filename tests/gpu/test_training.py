"""A training step on Triton's kernels, interpreted: the bytes of the CPU's step."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ree.optim import AdamW, Cosine
from ree.runtime.gpu_device import find_device
from ree.training.step import compile_step

find_device("interpret")


class Tiny(nn.Module):
    def __init__(self, width=8, words=9):
        super().__init__()
        self.table, self.norm = nn.Embedding(words, width, padding_idx=2), nn.LayerNorm(width)
        self.qkv, self.up, self.down = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, 12),
            nn.Linear(12, width),
        )

    def forward(self, ids):
        x = self.table(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return F.dropout(x + self.down(F.gelu(self.up(x))), 0.2) @ self.table.weight.T


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(12, 4)

    def forward(self, x):
        return self.head(F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1))


def loss(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


def check(model, batch):
    step = compile_step(
        model, loss, AdamW(0.01, clip_norm=0.5, schedule=Cosine(1, 5)), batch, seed=3
    )
    f = step.as_function()
    state = [np.array(x) for x in step.initial]
    for _ in range(2):
        inputs = [*state, *(x.numpy() for x in batch)]
        want = [np.asarray(x) for x in f.run(*inputs).outputs]
        got = [np.asarray(x) for x in f.run(*inputs, device="interpret").outputs]
        for name, a, b in zip(step.names.outputs, got, want, strict=True):
            assert a.tobytes() == b.tobytes(), name
        state = want[:-1]


def test_a_transformer():
    torch.manual_seed(0)
    check(Tiny(), (torch.randint(0, 9, (2, 5)), torch.randint(0, 9, (2, 5))))


def test_a_convolutional_net():
    torch.manual_seed(0)
    check(Images(), (torch.randn(3, 1, 6, 6), torch.randint(0, 4, (3,))))
