# ruff: noqa: E501
"""Functions of torch and the points at which their gradients are a matter of convention: zeros of both signs,
corners, ends of a domain, ties, infinities."""

import math

import torch
from torch.nn import functional as F

INF, NAN = math.inf, math.nan
LINE = torch.tensor([-INF, -100.0, -6.0, -3.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0, 100.0,
                     INF])  # fmt: skip
UNIT = torch.tensor([0.0, -0.0, 1e-30, 0.25, 0.5, 0.75, 1.0])
ENDS = torch.tensor([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0])
HALF_LINE = torch.tensor([-0.0, 0.0, 1e-30, 0.25, 1.0, 2.0, 100.0, INF])
A, B = (x.flatten() for x in torch.meshgrid(LINE, LINE, indexing="ij"))
P, Q = (x.flatten() for x in torch.meshgrid(HALF_LINE, LINE, indexing="ij"))
TIES = torch.tensor([[1.0, 3.0, 3.0, 2.0], [-0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [INF, 1.0, INF, -INF],
                     [-INF, -INF, -INF, -INF], [-3.0, 3.0, -3.0, 1.0]])  # fmt: skip
FINITE_TIES = TIES[[0, 1, 2, 5]]
IMAGES = torch.tensor(
    [[[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [2.0, 0.0, -0.0, 0.0], [0.0, 2.0, 0.0, -1.0]]]]
)
ROWS = torch.tensor([[0.0, 0.0, 0.0], [3.0, -4.0, 0.0], [1.0, 1.0, 1.0], [-0.0, 2.0, -2.0]])
OTHER_ROWS = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
T = torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0, 0.5, 1.0])


def at(x, **functions):
    return {name: (f, (x,)) for name, f in functions.items()}


def bag(x):
    """The maxima of three bags whose equal rows are not neighbours, the last with padding."""
    rows, starts = torch.tensor([2, 0, 1, 3, 1, 1, 2, 0]), torch.tensor([0, 3, 5])
    return F.embedding_bag(rows, x, starts, mode="max", padding_idx=1)


FAMILIES = {
    "corners": at(
        LINE, relu=F.relu, relu6=F.relu6, hardtanh=F.hardtanh, hardtanh_wide=lambda x: F.hardtanh(x, -2, 3),
        hardsigmoid=F.hardsigmoid, hardswish=F.hardswish, leaky_relu=F.leaky_relu,
        leaky_relu_down=lambda x: F.leaky_relu(x, -0.5), elu=F.elu, elu_2=lambda x: F.elu(x, 2.0),
        elu_inf=lambda x: F.elu(x, INF), celu_inf=lambda x: F.celu(x, INF), elu_0=lambda x: F.elu(x, 0.0),
        elu_negative=lambda x: F.elu(x, -1.5), selu=F.selu, celu=lambda x: F.celu(x, 2.0), hardshrink=F.hardshrink,
        hardshrink_1=lambda x: F.hardshrink(x, 1.0), softshrink=F.softshrink,
        softshrink_2=lambda x: F.softshrink(x, 2.0), threshold=lambda x: F.threshold(x, 1.0, 20.0),
        softplus=F.softplus, softplus_3=lambda x: F.softplus(x, 3.0, 6.0), logsigmoid=F.logsigmoid, abs=torch.abs,
        sign=lambda x: x.sign() + x, clamp=lambda x: x.clamp(-1, 2), clamp_min=lambda x: x.clamp(min=0.5),
        clamp_max=lambda x: x.clamp(max=3.0), crossed=lambda x: x.clamp(3.0, 1.0),
        maximum_of_a_constant=lambda x: torch.maximum(x, torch.tensor(1.0)),
        minimum_of_a_constant=lambda x: torch.minimum(x, torch.tensor(-0.5)),
        where=lambda x: torch.where(x > 0, x, x * 2), masked=lambda x: x.masked_fill(x > 1, 0.0),
        prelu_like=lambda x: torch.where(x >= 0, x, 0.25 * x), softsign=F.softsign,
    ),
    "lines": at(
        LINE, exp=torch.exp, expm1=torch.expm1, exp2=torch.exp2, tanh=torch.tanh, sigmoid=torch.sigmoid,
        erf=torch.erf, silu=F.silu, mish=F.mish, tanhshrink=F.tanhshrink, square=torch.square,
        cube=lambda x: x**3, fourth=lambda x: x**4, power_0=lambda x: x**0 + x, power_1=lambda x: x**1,
        inverse=lambda x: x**-1, reciprocal=torch.reciprocal, inverse_square=lambda x: x**-2,
        two_to=lambda x: 2.0**x, zero_to=lambda x: torch.pow(0.0, x[8:]), one_to=lambda x: 1.0**x,
        sinc=torch.sinc, nan_to_num=torch.nan_to_num, round=lambda x: torch.round(x) + x,
        floor=lambda x: torch.floor(x) + x, ceil=lambda x: torch.ceil(x) + x, trunc=lambda x: torch.trunc(x) + x,
        frac=torch.frac, remainder=lambda x: torch.remainder(x, 2.0), fmod=lambda x: torch.fmod(x, 2.0),
        where_guard=lambda x: torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0),
        where_trap=lambda x: torch.where(x > 0, x.log(), 0.0),
    ),
    "ends of a domain": {
        **at(HALF_LINE, sqrt=torch.sqrt, rsqrt=torch.rsqrt, log=torch.log, log2=torch.log2, log10=torch.log10,
             half=lambda x: x**0.5, minus_half=lambda x: x**-0.5, third=lambda x: x ** (1 / 3), one_and=lambda x: x**1.5,
             xlogx=lambda x: torch.xlogy(x, x), guarded=lambda x: (x + 1e-6).sqrt()),
        **at(UNIT, logit=torch.logit, logit_eps=lambda x: torch.logit(x, 0.25), log1m=lambda x: torch.log1p(-x),
             bce=lambda x: F.binary_cross_entropy(x, T[: len(x)], reduction="none"),
             bce_mean=lambda x: F.binary_cross_entropy(x, T[: len(x)]),
             arc=lambda x: (1 - x * x).sqrt()),
    },
    "two operands": {
        **{n: (f, (A, B)) for n, f in {
            "maximum": torch.maximum, "minimum": torch.minimum, "clamp min": lambda x, b: torch.clamp(x, min=b),
            "clamp max": lambda x, b: torch.clamp(x, max=b), "clamp both": lambda x, b: torch.clamp(x, min=b, max=b.flip(0)),
            "where ge": lambda x, y: torch.where(x >= y, x, y), "prelu": lambda x, w: F.prelu(x[:17], w[5:6]),
        }.items()},
        "pow": (torch.pow, (P, Q)), "xlogy": (torch.xlogy, (P, P.flip(0).abs())),
        "prelu of all": (F.prelu, (LINE, torch.tensor([0.25]))),
        "fmod": (torch.fmod, (LINE, torch.tensor(1.5))), "remainder": (torch.remainder, (LINE, torch.tensor(1.5))),
        "bce target": (lambda x, t: F.binary_cross_entropy(x, t, reduction="none"), (UNIT, T)),
        **{n: (f, (A, B)) for n, f in {
            "atan2": torch.atan2, "fmax": torch.fmax, "fmin": torch.fmin, "hypot": torch.hypot, "copysign": torch.copysign,
        }.items()},
        **{n: (f, (ENDS, ENDS.flip(0))) for n, f in {
            "sub of a multiple": lambda x, y: torch.sub(x, y, alpha=3), "add of a multiple": lambda x, y: torch.add(x, y, alpha=-2.5),
            "sub that overflows": lambda x, y: torch.sub(x * 3e38, y, alpha=3e38),
            "add that overflows": lambda x, y: torch.add(x * 3e38, y, alpha=3e38),
            "sub of an infinite multiple": lambda x, y: torch.sub(x, y, alpha=INF),
            "atan2 of zeros": lambda x, y: torch.atan2(x * 0, y * 0), "hypot of zeros": lambda x, y: torch.hypot(x * 0, y * 0),
        }.items()},
        "lerp": (lambda x, y: torch.lerp(x, y, 0.5), (ENDS, ENDS.flip(0))),
    },
    "ties": {
        **at(TIES, amax=lambda x: x.amax(1), amin=lambda x: x.amin(1), max_dim=lambda x: x.max(1)[0],
             min_dim=lambda x: x.min(1)[0], sort=lambda x: torch.sort(x, dim=1, stable=True)[0],
             aminmax=lambda x: x.aminmax(dim=1)[0]),
        **at(FINITE_TIES, max=torch.max, min=torch.min, amax_all=lambda x: x.amax(),
             pool_1d=lambda x: F.max_pool1d(x[None], 2), cumsum=lambda x: x.cumsum(1), bag=bag),
        "farthest": (lambda x, y: torch.cdist(x, y, INF), (ROWS, OTHER_ROWS)),
        **at(ROWS, farthest_pairs=lambda x: F.pdist(x, INF)),
        **at(IMAGES, pool=lambda x: F.max_pool2d(x, 2), pool_overlapping=lambda x: F.max_pool2d(x, 3, 1, 1),
             pool_dilated=lambda x: F.max_pool2d(x, 2, 1, dilation=2),
             pool_indices=lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
             relu_pool=lambda x: F.max_pool2d(x.relu(), 2), pool_3d=lambda x: F.max_pool3d(x.expand(1, 2, 4, 4)[None], 2)),
    },
    "norms": {
        **at(ROWS, norm=lambda x: x.norm(dim=1), norm_1=lambda x: x.norm(1, 1), norm_inf=lambda x: x.norm(INF, 1),
             norm_low=lambda x: x.norm(-INF, 1), norm_3=lambda x: x.norm(3, 1), norm_4=lambda x: x.norm(4, 1),
             norm_15=lambda x: x.norm(1.5, 1), norm_half=lambda x: x.norm(0.5, 1), norm_0=lambda x: x.norm(0, 1) + x.sum(1),
             norm_all=lambda x: x.norm(), norm_of_zeros=lambda x: x[:1].norm(), keep=lambda x: x.norm(dim=0, keepdim=True),
             vector_norm=lambda x: torch.linalg.vector_norm(x, dim=(0, 1)), frobenius=lambda x: torch.linalg.matrix_norm(x),
             normalize=lambda x: F.normalize(x, dim=1), normalize_1=lambda x: F.normalize(x, 1, 1),
             std=lambda x: x.std(1), std_0=lambda x: x.std(1, correction=0), var=lambda x: x.var(1),
             std_mean=lambda x: torch.std_mean(x, 1)[0], var_mean=lambda x: torch.var_mean(x, 1)[0],
             layer_norm=lambda x: F.layer_norm(x, (3,)), rms_norm=lambda x: F.rms_norm(x, (3,), eps=1e-6),
             cumprod=lambda x: x.cumprod(1), cumprod_down=lambda x: x.cumprod(0), cumprod_zeros=lambda x: (x * 0).cumprod(0),
             prod=lambda x: x.prod(1), prod_all=lambda x: x[1:3].prod()),
        "cosine": (lambda x, y: F.cosine_similarity(x, y), (ROWS, OTHER_ROWS)),
        "distance": (lambda x, y: F.pairwise_distance(x, y), (ROWS, OTHER_ROWS)),
        "distance 1": (lambda x, y: F.pairwise_distance(x, y, 1.0), (ROWS, OTHER_ROWS)),
        **{f"cdist {p}": (lambda x, y, p=p: torch.cdist(x, y, p), (ROWS, OTHER_ROWS)) for p in (0.5, 1.0, 1.5, 2.0, 3.0)},
        **{f"pdist {p}": (lambda x, p=p: F.pdist(x, p), (ROWS,)) for p in (0.5, 1.0, 1.5, 2.0, 3.0)},
        "cdist of rows with themselves": (lambda x: torch.cdist(x, x), (ROWS,)),
        "difference": (lambda x, y: (x - y).norm(dim=1), (ROWS, OTHER_ROWS)),
    },
    "losses": {
        **{n: (f, (ROWS, OTHER_ROWS)) for n, f in {
            "l1": F.l1_loss, "mse": F.mse_loss, "smooth l1": F.smooth_l1_loss, "huber": F.huber_loss,
            "smooth l1, 2": lambda x, y: F.smooth_l1_loss(x, y, beta=2.0),
            "smooth l1, 0": lambda x, y: F.smooth_l1_loss(x, y, beta=0.0),
            "huber, 2": lambda x, y: F.huber_loss(x, y, delta=2.0, reduction="none"),
            "margin": lambda x, y: F.margin_ranking_loss(x, y, torch.ones_like(x), reduction="none"),
            "hinge": lambda x, y: F.relu(1 - x * y), "triplet": lambda x, y: F.triplet_margin_loss(x, y, x.flip(0)),
            "soft margin": lambda x, y: F.soft_margin_loss(x, torch.ones_like(y), reduction="none") + 0 * y,
            "logits": lambda x, y: F.binary_cross_entropy_with_logits(x, y.clamp(0, 1), reduction="none"),
            "logits, weighted": lambda x, y: F.binary_cross_entropy_with_logits(
                x, y.clamp(0, 1), pos_weight=torch.tensor([2.0, 1.0, 0.5])),
            "hinge embedding": lambda x, y: F.hinge_embedding_loss(x, torch.where(y > 0, 1.0, -1.0), reduction="none") + 0 * y,
            "hinge embedding at its margin": lambda x, y: F.hinge_embedding_loss(x, -torch.ones_like(y), margin=3.0) + 0 * y.sum(),
            "cosine embedding": lambda x, y: F.cosine_embedding_loss(x, y, torch.tensor([1.0, -1.0, 1.0, -1.0]), reduction="none"),
            "cosine embedding, margin": lambda x, y: F.cosine_embedding_loss(x, y, -torch.ones(4), margin=1.0),
            "multi margin": lambda x, y: F.multi_margin_loss(x, torch.tensor([0, 1, 2, 0]), reduction="none").sum() + 0 * y.sum(),
            "multilabel soft margin": lambda x, y: F.multilabel_soft_margin_loss(x, y.clamp(0, 1)),
            "triplet with distance": lambda x, y: F.triplet_margin_with_distance_loss(x, y, x.flip(0), swap=True),
            "kl": lambda x, y: F.kl_div(x, y, reduction="none"),
            "poisson": lambda x, y: F.poisson_nll_loss(x, y),
            "logaddexp": torch.logaddexp,
        }.items()},
        **at(LINE, bce_logits=lambda x: F.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.5), reduction="none")),
        **at(TIES, logsumexp=lambda x: x.logsumexp(1), softmax=lambda x: x.softmax(1), log_softmax=lambda x: x.log_softmax(1)),
        **at(FINITE_TIES, cross_entropy=lambda x: F.cross_entropy(x, torch.tensor([0, 3, 1, 2]))),
    },
}  # fmt: skip
