"""Functions of torch and tensors to differentiate them at."""

import math

import torch
from torch.nn import functional as F


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def positive(*shape):
    return randn(*shape).abs() + 0.2


def ints(high, *shape):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(high + sum(shape)))


CLASSES, GRID = positive(9), randn(2, 3, 4, 2)


def conv(f, **how):
    return lambda x, w, b=None: f(x, w, b, **how)


FAMILIES = {
    "convolution": {
        "plain": (conv(F.conv2d), (randn(2, 3, 7, 8), randn(5, 3, 3, 3), randn(5))),
        "stride leaves a rest": (conv(F.conv2d, stride=3, padding=1), (randn(2, 3, 9, 10), randn(4, 3, 3, 2))),
        "stride, dilation, groups": (
            conv(F.conv2d, stride=(2, 3), padding=(2, 1), dilation=(2, 1), groups=2),
            (randn(2, 4, 11, 12), randn(6, 2, 3, 3), randn(6))),
        "depthwise": (conv(F.conv2d, padding=1, groups=6), (randn(2, 6, 5, 7), randn(12, 1, 3, 3))),
        "one axis": (conv(F.conv1d, stride=4, padding=3), (randn(3, 2, 50), randn(4, 2, 7), randn(4))),
        "three axes": (conv(F.conv3d, stride=(1, 2, 1), padding=(0, 1, 2)),
                       (randn(2, 2, 4, 5, 4), randn(3, 2, 2, 3, 3))),
        "one pixel": (conv(F.conv2d, stride=2), (randn(2, 150, 5, 5), randn(4, 150, 1, 1))),
        "circular": (lambda x, w: F.conv1d(F.pad(x, (2, 1), "circular"), w), (randn(2, 3, 9), randn(4, 3, 4))),
    },
    "transposed convolution": {
        "plain": (conv(F.conv_transpose2d), (randn(2, 3, 4, 5), randn(3, 4, 3, 2), randn(4))),
        "all": (conv(F.conv_transpose2d, stride=(2, 3), padding=1, output_padding=1, groups=2, dilation=(1, 2)),
                (randn(2, 4, 5, 4), randn(4, 3, 3, 3), randn(6))),
        "one axis": (conv(F.conv_transpose1d, stride=4, padding=2), (randn(2, 5, 6), randn(5, 3, 8))),
        "three axes": (conv(F.conv_transpose3d, stride=2), (randn(1, 2, 2, 3, 2), randn(2, 3, 2, 2, 2))),
    },
    "places": {
        "cumprod": (lambda x: torch.cumprod(x, 1), (randn(3, 7),)),
        "cumprod with zeros": (lambda x: torch.cumprod(x, 0), (randn(6, 3).round(),)),
        "cummax": (lambda x: torch.cummax(x, 1)[0], (randn(3, 9),)),
        "cummax, ties": (lambda x: torch.cummax(x, 1)[0], (randn(3, 20).round(),)),
        "cummin": (lambda x: torch.cummin(x, 0)[0], (randn(9, 2),)),
        "logcumsumexp": (lambda x: torch.logcumsumexp(x, 1), (randn(3, 9),)),
        "median": (lambda x: torch.median(x, 1)[0], (randn(3, 9),)),
        "median of all, ties": (lambda x: torch.median(x), (randn(5, 9).round(),)),
        "nanmedian": (lambda x: torch.nanmedian(x), (randn(5, 8),)),
        "mode": (lambda x: torch.mode(x, 1)[0], (randn(4, 6).round(),)),
        **{f"scatter_reduce {how} {own}": (
            lambda x, i, y, how=how, own=own: x.scatter_reduce(0, i, y, how, include_self=own),
            (randn(5, 3), ints(5, 9, 3), randn(9, 3))) for how in ("sum", "mean", "prod", "amax", "amin")
           for own in (True, False)},
        **{f"scatter_reduce {how}, ties": (
            lambda x, i, y, how=how: x.scatter_reduce(0, i, y, how),
            (randn(5, 3).round(), ints(5, 29, 3), randn(29, 3).round())) for how in ("amax", "amin")},
        "index_reduce": (lambda x, i, y: x.index_reduce(1, i, y, "mean"),
                         (randn(3, 4), ints(4, 7), randn(3, 7))),
        **{f"embedding_bag {mode}": (lambda w, i, mode=mode: F.embedding_bag(i, w, mode=mode, padding_idx=2),
                                     (randn(9, 4), ints(9, 3, 5))) for mode in ("sum", "mean", "max")},
        "embedding_bag, weights": (lambda w, i, p: F.embedding_bag(i, w, mode="sum", per_sample_weights=p),
                                   (randn(9, 4), ints(9, 3, 5), randn(3, 5))),
        **{f"grid_sample {mode} {padding}": (
            lambda x, g, mode=mode, padding=padding: F.grid_sample(x, g, mode, padding, False),
            (randn(2, 2, 5, 6), randn(2, 3, 4, 2))) for mode in ("bilinear", "bicubic")
           for padding in ("zeros", "border", "reflection")},
        "grid_sample nearest": (lambda x: F.grid_sample(x, GRID.to(x), "nearest", "border", False),
                                (randn(2, 2, 5, 6),)),
        "grid_sample, three axes": (lambda x, g: F.grid_sample(x, g, align_corners=True),
                                    (randn(1, 2, 3, 4, 5), 0.7 * randn(1, 2, 3, 2, 3))),
        **{f"cdist {p}": (lambda a, b, p=p: torch.cdist(a, b, p), (randn(4, 5), randn(3, 5)))
           for p in (1.0, 2.0, 3.0, math.inf)},
        "cdist of equal rows": (lambda a, b: torch.cdist(a, torch.cat((a, b))), (randn(4, 5), randn(3, 5))),
        "pdist": (lambda a: F.pdist(a), (randn(6, 4),)),
    },
    "pooling": {
        "adaptive max": (lambda x: F.adaptive_max_pool2d(x, (5, 3)), (randn(2, 3, 8, 7),)),
        "adaptive max, ties": (lambda x: F.adaptive_max_pool2d(x, (5, 3)), (randn(2, 3, 8, 7).round(),)),
        "adaptive, many cells": (lambda x: F.adaptive_avg_pool2d(x, (9, 8)), (randn(1, 2, 12, 11),)),
        "max": (lambda x: F.max_pool2d(x, 2), (randn(2, 3, 8, 9),)),
        "max, overlapping": (lambda x: F.max_pool2d(x, 3, 2, 1), (randn(1, 4, 11, 12),)),
        "max, dilated": (lambda x: F.max_pool2d(x, (2, 3), 1, dilation=(3, 2)), (randn(1, 2, 9, 9),)),
        "max, ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), (randn(1, 2, 8, 10),)),
        "max, one axis": (lambda x: F.max_pool1d(x, 4, 3, 1), (randn(2, 3, 30),)),
        "mean": (lambda x: F.avg_pool2d(x, 2), (randn(2, 3, 8, 9),)),
        "mean, overlapping": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
                              (randn(1, 4, 11, 12),)),
        "mean, ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), (randn(1, 4, 12, 9),)),
        "adaptive": (lambda x: F.adaptive_avg_pool2d(x, (5, 3)), (randn(2, 3, 8, 7),)),
        "adaptive, to one": (lambda x: F.adaptive_avg_pool2d(x, 1), (randn(2, 3, 5, 7),)),
        "nearest": (lambda x: F.interpolate(x, scale_factor=2), (randn(1, 3, 4, 5),)),
        "bilinear": (lambda x: F.interpolate(x, size=(9, 4), mode="bilinear"), (randn(1, 3, 5, 6),)),
    },
    "norms": {
        "layer": (lambda x, w, b: F.layer_norm(x, (40,), w, b), (randn(3, 5, 40), randn(40), randn(40))),
        "layer, two axes": (lambda x, w: F.layer_norm(x, (5, 40), w), (randn(3, 5, 40), randn(5, 40))),
        "layer, bare": (lambda x: F.layer_norm(x, (1100,)), (randn(2, 1100),)),
        "rms": (lambda x, w: F.rms_norm(x, (33,), w, 1e-5), (randn(2, 4, 33), randn(33))),
        "rms written out": (lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w,
                            (randn(2, 4, 33), randn(33))),
        "group": (lambda x, w, b: F.group_norm(x, 3, w, b), (randn(2, 6, 4, 5), randn(6), randn(6))),
        "batch, training": (
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            (randn(4, 3, 5, 5), randn(3), randn(3))),
        "instance": (lambda x: F.instance_norm(x), (randn(3, 4, 5, 2),)),
        "normalize": (lambda x: F.normalize(x, dim=1), (randn(5, 7),)),
        "var": (lambda x: (x.var(1), x.std(0, correction=0)), (randn(5, 7),)),
    },
    "softmax and losses": {
        "softmax": (lambda x: F.softmax(x, 1), (randn(2, 9, 4),)),
        "log_softmax": (lambda x: F.log_softmax(x, -1), (3 * randn(4, 130),)),
        "logsumexp": (lambda x: torch.logsumexp(x, (0, 2)), (randn(3, 4, 5),)),
        "cross entropy": (lambda x, t: F.cross_entropy(x, t), (randn(6, 9), ints(9, 6))),
        "smoothing, weights": (
            lambda x, t: F.cross_entropy(x, t, CLASSES.to(x.dtype), label_smoothing=0.2),
            (randn(6, 9), ints(9, 6))),
        "ignored": (lambda x, t: F.cross_entropy(x, t, ignore_index=2, reduction="sum"),
                    (randn(8, 4), ints(4, 8))),
        "pixels": (lambda x, t: F.cross_entropy(x, t, reduction="none"), (randn(2, 5, 3, 4), ints(5, 2, 3, 4))),
        "probabilities": (lambda x, p: F.cross_entropy(x, p.softmax(1)), (randn(5, 6), randn(5, 6, seed=1))),
        "nll": (lambda x, t: F.nll_loss(F.log_softmax(x, 1), t), (randn(5, 6), ints(6, 5))),
        "binary": (lambda x, t: F.binary_cross_entropy_with_logits(x, t.sigmoid()),
                   (randn(5, 6), randn(5, 6, seed=1))),
        "mse, smooth, l1, kl": (
            lambda x, y: (F.mse_loss(x, y), F.smooth_l1_loss(x, y), F.l1_loss(x, y), F.huber_loss(x, y),
                          F.kl_div(F.log_softmax(x, 1), F.softmax(y, 1), reduction="batchmean")),
            (randn(4, 7), randn(4, 7, seed=3))),
        "cosine": (lambda x, y: F.cosine_similarity(x, y), (randn(4, 7), randn(4, 7, seed=3))),
    },
    "activations": {
        n: (f, (2 * randn(5, 9),)) for n, f in {
            "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
            "softplus": F.softplus,  "elu": F.elu, "selu": F.selu,
            "leaky": lambda x: F.leaky_relu(x, 0.1), "mish": F.mish, "hardswish": F.hardswish,
            "sigmoid": torch.sigmoid, "logsigmoid": F.logsigmoid, "tanh": torch.tanh, "relu6": F.relu6,
            "softsign": F.softsign, "glu": lambda x: F.glu(x[:, :8]), "abs": torch.abs, "erf": torch.erf,
        }.items()
    },
    "elementwise": {
        "powers": (lambda x: (x**2, x**3, x**-1, x**0.5, x**2.3, 2.0**x, x.square()), (positive(4, 5),)),
        "pow of negatives": (lambda x: (x**2, x**3, x**4), (randn(4, 5),)),
        "pow of two": (torch.pow, (positive(4, 5), randn(5))),
        "clamp": (lambda x, lo: (x.clamp(-0.5, 0.7), x.clamp(min=0.1), torch.clamp(x, min=lo)),
                  (randn(6, 5), randn(5, seed=4))),
        "where": (lambda x, y: torch.where(x > y, x * 2, y**2), (randn(6, 5), randn(5, seed=2))),
        "maximum": (lambda x, y: (torch.maximum(x, y), torch.minimum(x, y)), (randn(6, 5), randn(6, 1))),
        "roots": (lambda x: (x.sqrt(), x.rsqrt(), x.log(), x.log2(), x.log1p(), x.log10(), x.reciprocal()),
                  (positive(4, 5),)),
        "waves": (lambda x: (x.sin(), x.cos(), x.tan(), x.exp(), x.exp2(), x.expm1()), (randn(4, 5),)),
        "remainder": (lambda x, y: (torch.remainder(x, y), torch.fmod(x, 0.7)), (randn(6, 5), positive(5))),
        "steps": (lambda x: (x.floor() * x, x.round() * x, x.sign() * x, x.trunc() * x), (randn(4, 5),)),
        "masked": (lambda x: x.masked_fill(x < 0, -3.0), (randn(4, 5),)),
        "lerp, addcmul": (lambda x, y, z: (torch.lerp(x, y, 0.3), torch.addcmul(x, y, z),
                                           torch.addcdiv(x, y, z)),
                          (randn(4, 5), randn(5), positive(4, 1))),
        "half": (lambda x: (x.to(torch.float32) * 2).exp(), (randn(3, 4),)),
        "through integers": (lambda x: x.long() * x + (x > 0) * x, (3 * randn(3, 4),)),
        "isfinite": (lambda x: torch.where(torch.isfinite(x), x, 0.0) * x, (randn(3, 4),)),
    },
    "reductions": {
        "sum": (lambda x: (x.sum(), x.sum(1), x.sum((0, 2), keepdim=True)), (randn(3, 4, 5),)),
        "mean": (lambda x: (x.mean(), x.mean(0), x.mean((1, 2))), (randn(3, 4, 5),)),
        "max": (lambda x: (x.max(), x.min(), x.max(1)[0], x.amax((0, 2)), x.amin(1, keepdim=True)),
                (randn(3, 4, 5),)),
        "prod": (lambda x: x.prod(1), (positive(3, 4),)),
        "cumsum": (lambda x: (x.cumsum(0), x.cumsum(1)), (randn(3, 300),)),
        "norms": (lambda x: (x.norm(), x.norm(dim=1), x.norm(1, 1), x.norm(3, 0)), (randn(3, 5),)),
        "sort": (lambda x: (x.sort(1)[0], x.sort(0, descending=True)[0]), (randn(5, 7),)),
        "topk": (lambda x: (x.topk(3, 1)[0], x.topk(2, 0, largest=False)[0]), (randn(5, 7),)),
        "median": (lambda x: x.kthvalue(2, 1)[0] if hasattr(x, "kthvalue") else x, (randn(5, 7),)),
        "argmax": (lambda x: F.one_hot(x.argmax(1), 7) * x, (randn(5, 7),)),
    },
    "contractions": {
        "linear": (F.linear, (randn(2, 3, 130), randn(7, 130), randn(7))),
        "linear of a vector": (F.linear, (randn(9), randn(7, 9), randn(7))),
        "matmul": (torch.matmul, (randn(2, 3, 4, 5), randn(3, 5, 6))),
        "matmul, shared": (torch.matmul, (randn(2, 3, 4, 5), randn(5, 6))),
        "matmul, broadcast left": (torch.matmul, (randn(4, 5), randn(3, 5, 6))),
        "matmul, vectors": (lambda a, b, m: (a @ b, m @ a, a @ m.T), (randn(5), randn(5, seed=1), randn(4, 5))),
        "bmm": (torch.bmm, (randn(3, 4, 5), randn(3, 5, 2))),
        "addmm": (torch.addmm, (randn(6), randn(4, 5), randn(5, 6))),
        "baddbmm": (lambda a, b, c: torch.baddbmm(a, b, c, beta=0.5, alpha=2),
                    (randn(3, 4, 2), randn(3, 4, 5), randn(3, 5, 2))),
        "einsum": (lambda a, b: (torch.einsum("bij,bkj->bik", a, b), torch.einsum("bij,bij->i", a, a)),
                   (randn(2, 3, 4), randn(2, 5, 4))),
        "outer": (lambda a, b: torch.outer(a, b), (randn(3), randn(4))),
        "bilinear form": (lambda a, w: (a @ w * a).sum(-1), (randn(4, 5), randn(5, 5))),
    },
    "indices": {
        "embedding": (lambda t, i: F.embedding(i, t), (randn(7, 5), ints(7, 4, 6))),
        "embedding, padding": (lambda t, i: F.embedding(i, t, padding_idx=2), (randn(7, 5), ints(7, 4, 6))),
        "index": (lambda x, i, j: (x[i], x[i, j], x[:, j], x[i[:, None], j]),
                  (randn(5, 5, 3), ints(5, 9), ints(4, 9))),
        "from the end": (lambda x: (x[-1], x[:, -2:], x[torch.tensor([-1, 0, -1])]), (randn(4, 5),)),
        "gather": (lambda x, i: torch.gather(x, 1, i), (randn(4, 5), ints(5, 4, 9))),
        "gather, fewer rows": (lambda x, i: torch.gather(x, 1, i), (randn(4, 5), ints(5, 2, 3))),
        "take_along": (lambda x: torch.take_along_dim(x, x.argsort(1), 1), (randn(4, 5),)),
        "scatter": (lambda x, s: x.scatter(1, torch.tensor([[0, 3], [2, 1]]), s), (randn(2, 5), randn(2, 2))),
        "scatter_add": (lambda x, s, i: x.scatter_add(1, i, s), (randn(3, 5), randn(3, 9), ints(5, 3, 9))),
        "index_add": (lambda x, s, i: x.index_add(0, i, s), (randn(4, 3), randn(9, 3), ints(4, 9))),
        "index_copy": (lambda x, s: x.index_copy(0, torch.tensor([2, 0]), s), (randn(4, 3), randn(2, 3))),
        "index_put": (lambda x, s: x.index_put((torch.tensor([2, 0, 1]),), s), (randn(4, 3), randn(3, 3))),
        "index_put, adding": (lambda x, s, i: x.index_put((i,), s, accumulate=True),
                              (randn(4, 3), randn(9, 3), ints(4, 9))),
        "index_put, broadcast": (lambda x, s: x.index_put((torch.tensor([2, 0, 1]),), s),
                                 (randn(4, 3), randn(3))),
        "index_select": (lambda x, i: x.index_select(1, i), (randn(4, 5), ints(5, 8))),
        "assignments": (lambda x, y: _assign(x, y), (randn(4, 5), randn(2, 5))),
        "bool mask": (lambda x, m: torch.where(m, x, 0.5), (randn(4, 5), ints(2, 4, 5).bool())),
    },
    "moves": {
        "slices": (lambda x: (x[1:4], x[:, ::3], x[2:, 1:7:2], x[..., 0], x[:, None, 3]), (randn(5, 8),)),
        "cat": (lambda x, y, z: torch.cat((x, y, z, x), 1), (randn(2, 3), randn(2, 1), randn(2, 6))),
        "stack": (lambda x, y: torch.stack((x, y, x), 1), (randn(2, 3), randn(2, 3, seed=2))),
        "many": (lambda x: torch.cat([x * i for i in range(9)], 0), (randn(2, 3),)),
        "split": (lambda x: [v * (i + 1) for i, v in enumerate(x.split((2, 1, 4), 1))], (randn(3, 7),)),
        "one of a split": (lambda x: x.split(2, 1)[1].exp(), (randn(3, 7),)),
        "chunk": (lambda x: x.chunk(3, 0)[0] * x.chunk(3, 0)[2], (randn(9, 2),)),
        "unbind": (lambda x: x.unbind(1)[0] * x.unbind(1)[2], (randn(2, 3, 4),)),
        "unfold": (lambda x: x.unfold(1, 3, 2), (randn(2, 11),)),
        "shapes": (lambda x: (x.view(4, 6).T, x.permute(2, 0, 1), x.flatten(1), x.unsqueeze(1),
                              x.movedim(0, 2)),
                   (randn(2, 3, 4),)),
        "expand": (lambda x: (x.expand(4, 3, 5), x[0].expand(2, 5), x.repeat(2, 1, 3)),
                   (randn(3, 1).expand(3, 5).clone(),)),
        "roll": (lambda x: (x.roll(2, 1), x.roll((1, -1), (0, 1)), x.roll(3)), (randn(4, 5),)),
        "flip": (lambda x: x.flip((0, 1)), (randn(4, 5),)),
        "triangles": (lambda x: (x.tril(), x.triu(1), x.diagonal(1)), (randn(4, 5),)),
        "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), (randn(4, 2),)),
        "pad": (lambda x: (F.pad(x, (1, 2, 0, 3)), F.pad(x, (-1, 2)), F.pad(x, (2, -1), value=4.0)),
                (randn(2, 4, 5),)),
        "pad, other modes": (lambda x: (F.pad(x, (2, 1, 3, 0), "reflect"), F.pad(x, (2, 1, 0, 3), "replicate"),
                                        F.pad(x, (2, 1, 0, 3), "circular")), (randn(1, 2, 4, 5),)),
        "shuffle": (lambda x: F.pixel_shuffle(x, 2), (randn(1, 8, 2, 3),)),
        "nothing": (lambda x: (x[2:2], x * 1), (randn(4, 5),)),
        "detach": (lambda x: x * x.detach() + x.detach().exp(), (randn(4, 5),)),
    },
    "broadcasting": {
        f"{a}*{b}": (lambda x, y: (x * y, x + y, x - y, x / (2 + y * y)), (randn(*a), randn(*b, seed=1)))
        for a, b in [((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((1,), (5,)), ((1, 1), (2, 3)),
                     ((4, 1, 3), (1, 5, 1))]
    },
}  # fmt: skip


def _assign(x, y):
    z = x.clone()
    z[1:3] = y
    z[:, 2] = 1.5
    z[0, 1:3] += z[3, 3:5]
    return z * x


def sdpa(**how):
    return lambda q, k, v, *m: F.scaled_dot_product_attention(q, k, v, *m, **how)


def qkv(b, h, t, d, hk=None, tk=None):
    return (
        randn(b, h, t, d),
        randn(b, hk or h, tk or t, d, seed=1),
        randn(b, hk or h, tk or t, d, seed=2),
    )


def window(t, n):
    at = torch.arange(t)
    return (at[None] <= at[:, None]) & (at[:, None] - at[None] < n)


def holes(t, tk):
    """A mask with one query that sees nothing."""
    mask = ints(3, t, tk) > 0
    mask[2] = False
    return mask


def manual(q, k, v, mask):
    """The float mask is a parameter: its gradient is the scores'."""
    return F.scaled_dot_product_attention(q, k, v, mask)


ATTENTION = {
    "plain": (sdpa(), qkv(2, 2, 5, 8)),
    "causal, segments": (sdpa(is_causal=True), qkv(1, 2, 150, 8)),
    "scale": (sdpa(scale=0.3), qkv(1, 2, 7, 4)),
    "bool mask": (sdpa(), (*qkv(2, 2, 5, 8), ints(4, 2, 1, 5, 5) > 0)),
    "rows that see nothing": (sdpa(), (*qkv(1, 2, 5, 8, tk=9), holes(5, 9))),
    "float mask": (manual, (*qkv(1, 2, 5, 8), randn(5, 5))),
    "float mask, heads": (manual, (*qkv(2, 2, 5, 8), randn(1, 2, 1, 5))),
    "-inf mask": (lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, torch.full((6, 6), -math.inf).triu(1)), qkv(1, 2, 6, 8)),
    "window": (sdpa(), (*qkv(1, 2, 40, 8), window(40, 7))),
    "grouped": (sdpa(is_causal=True, enable_gqa=True), qkv(2, 6, 5, 8, hk=2)),
    "one key head": (sdpa(enable_gqa=True), qkv(1, 4, 5, 8, hk=1, tk=9)),
    "cross": (sdpa(), qkv(1, 2, 3, 8, tk=140)),
    "written out": (lambda q, k, v: torch.softmax(q @ k.mT * 0.35, -1) @ v, qkv(2, 2, 5, 8)),
}  # fmt: skip
