# ruff: noqa: E501
"""Random small training programs, each trained here and by torch.

A program is Python source made from a seed: statements, blocks and helper functions out of the constructs below,
which can all change a gradient or a state. `compare` trains it by ree.train and by a plain loop of torch in
float64. Every value has shape (rows, 4).
"""

import linecache
import random
import re
import types
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import ree
from ree import optim
from ree.compiler import interp
from ree.errors import CaptureError, UnsupportedError
from ree.kernels import opdef
from ree.random import Generator
from ree.step import compile_step

STEPS, ROWS = 3, 6
CONSTRUCTS = {}  # name -> (how often, writer)

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


# layers and arithmetic


@construct(6)
def layer(w):
    return f"torch.tanh({w.linear()}({w.any()}))"


@construct(3)
def pointwise(w):
    f = w.rng.choice(["torch.sigmoid({})", "F.gelu({})", "F.silu({})", "F.relu({})", "F.softplus({})", "({}).sin()",
                      "F.layer_norm({}, (4,))", "torch.softmax({}, 1)", "({}).clamp(-1, 1)", "({}).abs()"])  # fmt: skip
    return f.format(w.any())


@construct(3)
def mixed(w):
    f = w.rng.choice(["{} + {}", "{} * {}", "{} - 0.5 * {}", "torch.where({0} > 0, {0}, {1})", "torch.maximum({}, {})",
                      "torch.cat(({}[:, :2], {}[:, 2:]), 1)"])  # fmt: skip
    return f.format(w.any(), w.any())


@construct()
def weights_read(w):
    layer = w.linear()
    f = w.rng.choice(["F.linear({1}, {0}.weight.detach())", "{1} @ {0}.weight.data", "{1} + {0}.bias", "{1} @ {0}.weight.T",
                      "{1} * {0}.weight[...][0]"])  # fmt: skip
    return f.format(layer, w.any())


@construct()
def tied_weights(w):
    first, second = w.linear(), w.own("nn.Linear(4, 4)")
    w.init.append(f"{second}.weight = {first}.weight")
    return f"{second}({first}({w.any()}).sin())"


@construct()
def frozen_parameter(w):
    name = w.own("nn.Linear(4, 4)", "frozen")
    w.init.append(f"{name}.requires_grad_(False)")
    return f"{name}({w.any()})"


@construct(3)
def batch_norm(w):
    how = w.rng.choice(
        [
            "",
            ", momentum=None",
            ", momentum=0.3",
            ", affine=False",
            ", track_running_stats=False",
            ", eps=0.1",
        ]
    )
    name = w.own(f"nn.BatchNorm1d(4{how})", "norm")
    if w.again:
        w.may("changes inside a checkpoint", "norm")
    return f"{name}({w.any()})"


@construct()
def group_norm(w):
    return f"{w.own('nn.GroupNorm(2, 4)', 'norm')}({w.any()})"


@construct()
def evaluated_norm(w):
    name = w.own("nn.BatchNorm1d(4).eval()", "norm")
    return f"{name}({w.any()})"


@construct()
def dropout(w):
    if w.again:
        return f"F.dropout({w.any()}, 0.5, training=False)"
    p = round(0.2 + 0.001 * len(w.root.body) + 0.01 * w.root.n, 3)  # another one for each call
    form = w.rng.choice(["F.dropout({1}, {0})", "{2}({1})"])
    return form.format(p, w.any(), w.own(f"nn.Dropout({p})") if form[0] == "{" else "")


@construct(0.7)
def recurrent(w):
    return f"{w.own('nn.GRUCell(4, 4)')}({w.any()}, {w.any()})"


# where gradients stop


@construct(3)
def detached(w):
    f = w.rng.choice(["{}.detach() * {}", "{0} + ({1} - {0}).detach()", "{0} + ({0}.round() - {0}).detach()", "{}.data + {}",
                      "{} / ({}.detach().norm() + 1)", "torch.Tensor.detach({}) * {}"])  # fmt: skip
    return f.format(w.any(), w.any())


@construct(4)
@deep
def no_grad(w):
    mode = w.rng.choice(["torch.no_grad()", "torch.no_grad()", "torch.inference_mode()", "torch.set_grad_enabled(False)",
                         "torch.autograd.set_grad_enabled(self.training and False)"])  # fmt: skip
    with w.block(f"with {mode}:", False):
        inner = w.statements(w.rng.randint(1, 2))
    if "inference" in mode:
        w.values = [v for v in w.values if v != inner]
        return f"{w.any()} * 2 + {inner}"
    return f"{w.any()} * {inner}"


@construct()
@deep
def enable_grad(w):
    with w.block("with torch.enable_grad():", True):
        inner = w.statements(1)
    return f"{w.any()} + {inner}"


@construct()
@deep
def switched(w):
    before = w.gradients
    w.say("torch.set_grad_enabled(False)")
    with w.block("", False):
        inner = w.statements(1)
    w.say(f"torch.set_grad_enabled({before})")
    return f"{w.any()} + {inner}"


@construct(2)
@deep
def decorated(w):
    how = w.rng.choice(
        [
            "@torch.no_grad()",
            "@torch.inference_mode()",
            "@torch.enable_grad()",
            "@torch.set_grad_enabled(False)",
        ]
    )
    f = w.function((how,), "enable" in how)
    return f"{w.any()} + {f}({w.any()})"


@construct()
def called_without_gradients(w):
    f = w.rng.choice(["torch.no_grad()(F.linear)({1}, {0}.weight)", "torch.no_grad()({0})({1})",
                      "torch.no_grad()(torch.tanh)({1})"])  # fmt: skip
    return f"{w.any()} * " + f.format(w.linear(), w.any())


@construct(3)
@deep
def checkpointed(w):
    old, w.again = w.again, True
    f = w.function()
    w.again = old
    return f"checkpoint({f}, {w.any()}, use_reentrant=False)"


@construct(2)
@deep
def submodule(w):
    name = w.new("Block")
    decorator = w.rng.choice(["", "", "@without_gradients\n"])
    inner = Writer(w.rng, w)
    inner.gradients = w.gradients and not decorator
    result = inner.statements(w.rng.randint(1, 3))
    w.root.classes.append(decorator + as_class(name, inner, result))
    return f"{w.any()} + {w.own(name + '()', 'block')}({w.any()})"


@construct()
@deep
def forward_hook(w):
    name, kept = w.own("nn.Linear(4, 4)"), w.values
    hook = w.rng.choice(
        [
            "lambda m, i, o: o.detach() + i[0]",
            "lambda m, i, o: o * 2",
            "lambda m, i, o: (o, None)[0]",
        ]
    )
    w.init.append(f"{name}.register_forward_hook({hook})")
    if w.rng.random() < 0.5:
        w.init.append(f"{name}.register_forward_pre_hook(lambda m, i: (i[0].sin(),))")
    w.values = kept
    return f"{name}({w.any()})"


@construct()
@deep
def mapped(w):
    layer = w.linear()
    f = w.rng.choice(["torch.vmap({0})({1})", "torch.vmap(lambda r: torch.tanh(r) * r.detach().sum())({1})",
                      "torch.vmap(lambda r, s: r * s + 1)({1}, {1}.detach())"])  # fmt: skip
    return f.format(layer, w.any())


@construct()
def functional(w):
    layer = w.linear()
    f = w.rng.choice(["p.detach() * 0.5", "p * 2", "p.data"])
    return (
        f"functional_call({layer}, {{k: {f} for k, p in {layer}.named_parameters()}}, ({w.any()},))"
    )


@construct()
def custom_function(w):
    if w.rng.random() < 0.4 or not w.gradients:
        return f"{w.any()} + torch.no_grad()(Reverse.apply)({w.any()})"
    w.may("autograd function Reverse has a backward pass of its own", "Reverse.apply")
    return f"Reverse.apply({w.any()})"


@construct(0.7)
def hooked_tensor(w):
    v = w.new("v")
    w.say(f"{v} = {w.linear()}({w.any()})")
    with w.block(f"if {v}.requires_grad:"):
        w.say(f"{v}.register_hook(lambda g: g * 3)")
    w.may("a hook on the gradient of a tensor", "register_hook")
    return v


@construct(0.7)
def hooked_module(w):
    name = w.own("nn.Linear(4, 4)", "hooked")
    how = w.rng.choice(["weight.register_hook(lambda g: g * 2)", "register_full_backward_hook(lambda m, i, o: (i[0] * 2,))",
                        "weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))"])  # fmt: skip
    w.init.append(f"{name}.{how}")
    w.may(r"hooked\d+(\.weight)?' has a (backward )?hook", "")
    return f"{name}({w.any()})"


# states


@construct(4)
def running_mean(w):
    name, v = w.buffer(), w.any()
    form = w.rng.choice([
        "{0}.mul_(0.9).add_({1}.detach().mean(0), alpha=0.1)", "{0} = 0.9 * {0} + 0.1 * {1}.detach().mean(0)",
        "{0}.copy_({0} * 0.5 + {1}.detach()[0])", "{0}[1:3] = {1}.detach()[0, 1:3]", "{0} += {1}.data.sum(0) * 0.1",
        "{0}.lerp_({1}.detach().mean(0), 0.3)", "setattr(self, '{2}', {0} + {1}.detach().amax(0))", "NO_GRAD", "NO_GRAD",
    ])  # fmt: skip
    if form == "NO_GRAD":
        with w.block("with torch.no_grad():"):
            w.say(f"{name}.mul_(0.8).add_({v}.mean(0), alpha=0.2)")
    else:
        w.say(form.format(name, v, name.removeprefix("self.")))
    if w.again:
        w.may("changes inside a checkpoint", "buffer")
    return w.rng.choice(["{0} - {1}", "{0} * ({1} + 1)", "{0} + 0 * {1}"]).format(w.any(), name)


@construct()
def counter(w):
    name = w.buffer("torch.tensor(0)")
    w.say(w.rng.choice([f"{name} += 1", f"{name}.add_(2)", f"{name} = {name} + 1"]))
    if w.again:
        w.may("changes inside a checkpoint", "buffer")
    return f"{w.any()} / (1 + {name})"


@construct()
def averaged_teacher(w):
    student, teacher = w.linear(), w.own("nn.Linear(4, 4)", "frozen")
    w.init.append(f"{teacher}.requires_grad_(False)")
    w.say("with torch.no_grad():")
    w.say(f"    for p, q in zip({teacher}.parameters(), {student}.parameters()):")
    w.say("        p.mul_(0.5).add_(q, alpha=0.5)")
    if w.again:
        w.may("changes inside a checkpoint", "p.mul_")
    return f"{student}({w.any()}) - {teacher}({w.any()}).detach()"


@construct()
def in_place(w):
    v = w.new("v")
    w.say(f"{v} = {w.any()} * 1")
    w.say(w.rng.choice(["{0}.mul_({1})", "{0} += {1}", "{0}[:, 1] = {1}[:, 0]", "{0}[0] = {1}[1].detach()", "F.relu({0}, inplace=True)",
                        "{0}.add_({1}.detach())", "torch.add({0}, {1}, out={0}) if not {0}.requires_grad else None"])
          .format(v, w.any()))  # fmt: skip
    return v


@construct(0.7)
def unseen_in_place(w):
    v = w.new("v")
    w.say(f"{v} = {w.any()} * 1")
    with w.block("with torch.no_grad():"):
        w.say(f"{v}.mul_(2)")
    w.may("a value that carries a gradient is changed in place, unseen", ".mul_(2)")
    return v


@construct(2)
def filled_without_gradients(w):
    v = w.new("v")
    w.say(f"{v} = torch.zeros_like({w.any()})")
    with w.block("with torch.no_grad():"):
        w.say(
            w.rng.choice(
                ["{0}.copy_({1})", "{0}[1] = {1}[0]", "torch.mul({1}, {1}, out={0})"]
            ).format(v, w.any())
        )
    return f"{w.any()} + {v}"


@construct(3)
def parametrized(w):
    name = w.own("nn.Linear(4, 4)", "normed")
    how = w.rng.choice([
        "parametrizations.weight_norm", "parametrizations.spectral_norm", "nn.utils.weight_norm", "nn.utils.spectral_norm",
        "PLAIN", "PLAIN",
    ])  # fmt: skip
    if how == "PLAIN":
        cls = w.rng.choice(["Plain", "Stopped", "Centred", "Counting"])
        w.init.append(f'parametrize.register_parametrization({name}, "weight", {cls}())')
    else:
        w.init.append(f"{name} = {how}({name})")
    if w.again:
        w.may("changes inside a checkpoint", "")
    call = f"{name}({w.any()})"
    if w.rng.random() < 0.3:
        with w.block("with parametrize.cached():"):
            v = w.new("v")
            w.say(f"{v} = {call} + {name}({w.any()})")
        return v
    return call


@construct(0.4)
@deep
def branches(w):
    f, g = w.function(n=1), w.function(n=1)
    w.may("torch.cond in training", "torch.cond")
    return f"torch.cond({w.any()}.sum() > 0, {f}, {g}, ({w.any()},))"


@construct(0.7)
def state_of_python(w):
    name = w.own("0", "count")
    w.say(f"{name} += 1")
    w.may(
        f"'({name.removeprefix('self.')}|[a-z0-9.]*{name.removeprefix('self.')})' changes in the forward pass",
        "+= 1",
    )
    return f"{w.any()} / {name}"


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


# training it


def batch(step):
    g = Generator(7, step)
    return g.normal((ROWS, 4)), g.randint(0, 4, (ROWS,))


class Masks(TorchFunctionMode):
    """F.dropout with the numbers of a training step: each call of it has its own p."""

    def __init__(self):
        super().__init__()
        self.begin(0)

    def begin(self, step):
        self.step, self.sites, self.part = step, 0, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.dropout:
            given = {
                **dict(zip(("input", "p", "training", "inplace"), args, strict=False)),
                **kwargs,
            }
            if given.get("training", True):
                x, p = given["input"], given["p"]
                index = np.arange(x.numel(), dtype=np.int64)
                u = opdef.apply(
                    "uniform", [index, np.int64(0), np.int64(self.step)], {"site": self.sites}
                )[0]
                self.sites += 1
                keep = torch.from_numpy(u >= np.float32(p)).view(x.shape)
                return torch.where(keep, x * (1 / (1 - p)), 0.0)
        return func(*args, **kwargs)


def factor(schedule):
    """The factor of the learning rate by step, from 0, as docs/training.md has it."""
    kind, warmup, *rest = schedule or ("Constant", 0)

    def at(t):
        rise = min((t + 1) / warmup, 1) if warmup else 1
        if kind == "Constant":
            return rise
        steps, final = rest
        left = 1 - min(max((t - warmup) / (steps - warmup), 0), 1)
        return rise * (
            final
            + (1 - final) * (left if kind == "Linear" else 0.5 * (1 + np.cos(np.pi * (1 - left))))
        )

    return at


def torchs(p, dtype):
    """(losses, tensors before, tensors after, names of what is trained) of a plain loop of torch."""
    code = p.module()
    model = code.Model().to(dtype)
    before = {k: v.detach().clone() for k, v in model.state_dict().items()}
    name, how = p.optimizer
    how = dict(how)
    groups, limit, at = (
        how.pop("groups", []),
        how.pop("clip_norm", None),
        factor(how.pop("schedule", None)),
    )
    trained = {k: v for k, v in model.named_parameters() if v.requires_grad}
    each = []
    for k, v in trained.items():
        own = {}
        for pattern, change in groups:
            if re.search(pattern, f"parameter.{k}"):
                own = {**change, **own}
        each.append({"params": [v], **own})
    torch_optimizer = getattr(torch.optim, name)(each, **how)
    schedule = torch.optim.lr_scheduler.LambdaLR(torch_optimizer, at)
    masks, losses = Masks(), []
    for step in range(1, STEPS + 1):
        torch_optimizer.zero_grad()
        masks.begin(step - 1)
        total = 0.0
        x, t = batch(step)
        n = ROWS // p.accumulate
        for j in range(p.accumulate):
            part = x[j * n : (j + 1) * n].to(dtype), t[j * n : (j + 1) * n]
            with masks:
                value = code.loss(model, part) / p.accumulate
            value.backward()
            total += value.item()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(trained.values(), limit)
        torch_optimizer.step()
        schedule.step()
        losses.append(total)
    after = {k: v.detach().clone() for k, v in model.state_dict().items()}
    unused = [k for k, v in trained.items() if v.grad is None or not v.grad.any()]
    return losses, before, after, unused


@contextmanager
def default(dtype):
    old = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(old)


def program(seed):
    """(program, torch's result in float64, its allowed differences by name): the first of this seed that torch
    trains without an error and whose float32 result is near the float64 one."""
    for attempt in range(50):
        p = write(seed, attempt)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                near = torchs(p, torch.float32)
                exact = torchs(p, torch.float64)
        except Exception:
            continue
        far = allowed(exact, near)
        if all(np.isfinite(exact[0])) and max(far.values()) < 1e-2:
            return p, exact, far
    raise AssertionError(f"seed {seed}: torch trains none of 50 programs")


def allowed(exact, near):
    """How far a float32 result may be from the float64 one, by name: 30 times as far as torch's own, which rounds in
    another order, and 1e-4 of the greatest element. What a wrong gradient or state changes is above that."""
    far = {
        "loss": 1e-4 * max(1, max(map(abs, exact[0])))
        + 30 * max(abs(a - b) for a, b in zip(exact[0], near[0], strict=True))
    }
    for k, v in exact[2].items():
        if v.is_floating_point():
            far[k] = float(1e-4 * max(1, v.abs().max()) + 30 * (v - near[2][k]).abs().max())
    return far


@dataclass
class Outcome:
    program: Program
    refused: str = ""
    wrong: list = field(default_factory=list)

    def __str__(self):
        p = self.program
        text = "\n".join(
            f"{n:4} {line}"
            for n, line in enumerate(p.source.splitlines(), 1)
            if n > PRELUDE.count("\n")
        )
        return "\n".join(
            [f"seed {p.seed}: {p.optimizer}, accumulate={p.accumulate}", text, *self.wrong]
        )


def ours(p, compiled):
    """(losses, state by torch's names) of p as ree.train has them; or by the interpreter, whose bits are those of
    the compiled program and which needs no compilation."""
    name, how = p.optimizer
    how = dict(how)
    if "schedule" in how:
        kind, *rest = how["schedule"]
        how["schedule"] = getattr(optim, kind)(*rest)
    code = p.module()
    model = code.Model()
    before = {k: v.detach().clone() for k, v in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rule = getattr(optim, name)(**how)
        if compiled:
            run = ree.train(
                model, code.loss, rule, batch, STEPS, accumulate=p.accumulate, history=False
            )
            losses, state = run.losses, run.state
        else:
            step = compile_step(model, code.loss, rule, batch(1), accumulate=p.accumulate)
            values, losses = list(step.initial), []
            for s in range(1, STEPS + 1):
                arrays = [x.numpy() for x in batch(s)]
                *values, loss = interp.outputs(step.instance.graph, arrays, step.weights, values)
                losses.append(float(loss))
            state = dict(zip(step.names.states, values, strict=True))
    for k, v in model.state_dict().items():
        assert torch.equal(v, before[k]), f"training changed {k} of the module"
    named = {k.split(".", 1)[1]: torch.from_numpy(np.array(v)) for k, v in state.items()
             if k.startswith(("parameter.", "buffer."))}  # fmt: skip
    first = {}
    for k, v in model.state_dict(
        keep_vars=True
    ).items():  # tied tensors have the first of their names
        home = first.setdefault(id(v), k)
        if home in named:
            named[k] = named[home]
    return losses, named


def compare(seed, compiled=True):
    """What came of the program of a seed: trained as torch does it, refused as expected, or wrong."""
    p, exact, far = program(seed)
    losses, before, after, unused = exact
    out = Outcome(p)
    try:
        found, state = ours(p, compiled)
    except (CaptureError, UnsupportedError) as e:
        out.refused = f"{e.message} {' '.join(e.items)}"
        expected(out, unused)
        return out
    except Exception as e:
        out.wrong.append(f"{type(e).__name__}: {e}")
        return out
    for step, (have, want) in enumerate(zip(found, losses, strict=True), 1):
        if not abs(have - want) <= far["loss"]:
            out.wrong.append(f"step {step}: loss {have}, torch {want}")
    for k, v in after.items():
        have = state.get(k, before[k])
        if v.is_floating_point():
            d = float((have - v).abs().max())
            if not d <= far[k]:
                out.wrong.append(
                    f"{k}: {d:.3g} from torch's, at most {far[k]:.3g}"
                    + ("" if k in state else " (unchanged here)")
                )
        elif not torch.equal(have, v):
            out.wrong.append(f"{k}: {have}, torch {v}")
    return out


def expected(out, unused):
    """Note a refusal that its program gives no reason for, or that names no line of the construct."""
    p, text = out.program, out.refused
    lines = [p.line(int(n)) for n in re.findall(rf"{re.escape(p.file)}:(\d+)", text)]
    found = re.search(r"parameter '([\w.]+)' has no gradient", text)
    if found:
        if found[1] not in unused:
            out.wrong.append(f"refused though torch has a gradient: {text}")
        return
    for r in p.refusals:
        if re.search(r.message, text) and (not r.line or any(r.line in line for line in lines)):
            return
    out.wrong.append(f"refused, unexpected: {text}\n" + "\n".join(lines))
