# ruff: noqa: E501
"""A random training program as Python source: a module, a loss, an optimizer."""

import linecache
import random
import types
from contextlib import contextmanager
from dataclasses import dataclass

import torch

CONSTRUCTS = {}  # name -> (how often, writer); constructs.py fills it

PRELUDE = """
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class Plain(nn.Module):
    def forward(self, w):
        return torch.tanh(w)


class Stopped(nn.Module):
    def forward(self, w):
        with torch.no_grad():
            scale = w.abs().mean() + 1
        return w / scale


class Centred(nn.Module):
    @torch.no_grad()
    def mean(self, w):
        return w.mean()

    def forward(self, w):
        return w - self.mean(w) + w.detach().amax(1, keepdim=True) * 0.1


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 4))

    def forward(self, w):
        with torch.no_grad():
            self.seen.mul_(0.5).add_(w, alpha=0.5)
        return w + 0.1 * self.seen


def without_gradients(cls):
    old = cls.forward

    def forward(self, *args):
        with torch.no_grad():
            return old(self, *args)

    cls.forward = forward
    return cls


"""


@dataclass
class Refusal:
    """What this program may be refused for: a pattern of the message, and what the line named must hold."""

    message: str
    line: str


@dataclass
class Program:
    seed: int
    source: str
    constructs: set
    refusals: list
    optimizer: tuple  # (name, settings)
    accumulate: int
    attempts: int = 0

    @property
    def file(self):
        return f"program_{self.seed}.py"

    def module(self):
        """The source, executed; tracebacks and inspect find its lines."""
        linecache.cache[self.file] = (
            len(self.source),
            None,
            self.source.splitlines(True),
            self.file,
        )
        found = types.ModuleType(f"program_{self.seed}")
        exec(compile(self.source, self.file, "exec"), found.__dict__)
        torch.manual_seed(self.seed)
        return found

    def line(self, n):
        return self.source.splitlines()[n - 1]


def construct(often=2):
    def register(f):
        CONSTRUCTS[f.__name__] = (often, f)
        return f

    return register


class Writer:
    """The text of a module's forward pass in the making."""

    def __init__(self, rng, parent=None):
        self.rng, self.root = rng, parent.root if parent else self
        self.init, self.body, self.values = [], [], ["x"]
        self.depth, self.gradients = 2, parent.gradients if parent else True
        self.linears, self.level = [], parent.level + 1 if parent else 0
        if parent is None:
            self.classes, self.constructs, self.refusals, self.n = [], set(), [], 0
        self.again = parent.again if parent else False  # inside a checkpoint

    def new(self, stem):
        self.root.n += 1
        return f"{stem}{self.root.n}"

    def say(self, line):
        self.body.append("    " * self.depth + line)

    def may(self, message, line):
        self.root.refusals.append(Refusal(message, line))

    def any(self):
        return self.rng.choice(self.values[-4:])

    def own(self, value, stem="m"):
        name = self.new(stem)
        self.init.append(f"self.{name} = {value}")
        return f"self.{name}"

    def buffer(self, value="torch.zeros(4)"):
        name = self.new("buffer")
        self.init.append(f'self.register_buffer("{name}", {value})')
        return f"self.{name}"

    def linear(self):
        """A layer, often one that is used elsewhere too."""
        if not self.linears or self.rng.random() < 0.5:
            self.linears.append(self.own("nn.Linear(4, 4)", "linear"))
        return self.rng.choice(self.linears)

    @contextmanager
    def block(self, header, gradients=None):
        if header:
            self.say(header)
        old, self.gradients = self.gradients, self.gradients if gradients is None else gradients
        self.depth += 1 if header else 0
        yield
        self.depth -= 1 if header else 0
        self.gradients = old

    def statements(self, n):
        """The name of the last of n new values."""
        names = list(CONSTRUCTS)
        weights = [CONSTRUCTS[k][0] if self.level + self.depth < 6 or not getattr(CONSTRUCTS[k][1], "deep", 0)
                   else 0 for k in names]  # fmt: skip
        for _ in range(n):
            (kind,) = self.rng.choices(names, weights)
            self.root.constructs.add(kind)
            text = CONSTRUCTS[kind][1](self)
            v = self.new("v")
            self.say(f"{v} = {text}")
            self.values.append(v)
        return self.values[-1]

    def function(self, decorators=(), gradients=None, n=None):
        """A helper of one argument, defined here."""
        name, kept = self.new("part"), list(self.values)
        for d in decorators:
            self.say(d)
        with self.block(f"def {name}(a):", gradients):
            self.values = [*kept, "a"]
            self.say(f"return {self.statements(n or self.rng.randint(1, 2))}")
        self.values = kept
        return name


def deep(f):
    f.deep = True
    return f


LOSSES = [
    "F.mse_loss(y, x.roll(1, 1))", "F.cross_entropy(y, t)", "F.cross_entropy(y, t, ignore_index=2)",
    "F.cross_entropy(y, t, label_smoothing=0.1, reduction='sum') / 6", "F.smooth_l1_loss(y, x)",
    "F.cross_entropy(y, t, weight=torch.arange(1, 5).to(y.dtype))", "(y.square() * (t > 0)[:, None]).sum() / (t > 0).sum().clamp(min=1)",
    "F.nll_loss(F.log_softmax(y, 1), t, ignore_index=0)", "(y - y.detach().mean(0)).square().mean() + y.mean()",
    "(y.square().sum() / (1 + y.detach().square().sum()))", "F.kl_div(F.log_softmax(y, 1), F.softmax(y, 1).detach().roll(1, 1), reduction='batchmean')",
    "F.binary_cross_entropy_with_logits(y, (x > 0).to(y.dtype))",
]  # fmt: skip


def as_class(name, w, result):
    init = "\n".join("        " + line for line in ["super().__init__()", *w.init])
    body = "\n".join(w.body)
    rest = [v for v in w.values if v != result][-2:]
    out = " + 0.3 * ".join([result, *rest])
    return (f"class {name}(nn.Module):\n    def __init__(self):\n{init}\n\n    def forward(self, x):\n{body}\n"
            f"        return {out}\n\n\n")  # fmt: skip


def optimizer(rng):
    """(name, arguments): those of ree.optim, which the comparison translates to torch's."""
    how = {"lr": rng.choice([0.05, 0.1, 0.02])}
    name = rng.choice(["SGD", "SGD", "Adam", "AdamW"])
    if name == "SGD":
        how |= rng.choice(
            [
                {},
                {"momentum": 0.9},
                {"momentum": 0.8, "nesterov": True},
                {"momentum": 0.5, "dampening": 0.3},
            ]
        )
    else:
        how |= {"eps": 1e-3, "betas": rng.choice([(0.9, 0.999), (0.5, 0.9)])}
    how |= rng.choice([{}, {"weight_decay": 0.1}])
    how |= rng.choice([{}, {}, {"clip_norm": 0.3}, {"clip_norm": 5.0}])
    how |= rng.choice(
        [
            {},
            {},
            {"schedule": ("Linear", 1, 4, 0.1)},
            {"schedule": ("Cosine", 2, 5, 0.0)},
            {"schedule": ("Constant", 2)},
        ]
    )
    how |= rng.choice(
        [
            {},
            {},
            {
                "groups": [
                    ("bias", {"lr": 0.01, "weight_decay": 0.0}),
                    (r"^parameter\.last", {"lr": 0.03}),
                ]
            },
        ]
    )
    return name, how


def write(seed, attempt):
    rng = random.Random(f"{seed}.{attempt}")
    w = Writer(rng)
    result = w.statements(rng.randint(2, 5))
    decay = rng.random() < 0.9
    w.init.append("self.last = nn.Linear(4, 4)")
    out = as_class("Model", w, f"self.last({result})")
    loss = (
        "def loss(model, batch):\n    x, t = batch\n    y = model(x)\n    value = "
        + rng.choice(LOSSES)
        + "\n"
    )
    if decay:  # so that parameters of what is never differentiated have a gradient
        loss += "    trained = [p.flatten() for p in model.parameters() if p.requires_grad]\n"
        loss += "    value = value + 0.01 * torch.cat(trained).square().sum()\n"
    source = PRELUDE + "".join(w.classes) + out + loss + "    return value\n"
    return Program(
        seed, source, w.constructs, w.refusals, optimizer(rng), rng.choice([1, 1, 1, 2]), attempt
    )
