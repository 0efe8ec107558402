"""A program trained here and by torch, and what differs."""

import re
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
from ree.training.step import compile_step

from .writer import PRELUDE, Program, write

STEPS, ROWS = 3, 6


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
    """How far a float32 result may be from the float64 one, by name: 30 times as far as torch's own, which
    rounds in another order, and 1e-4 of the greatest element. A wrong gradient or state changes more."""
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
    """(losses, state by torch's names) of p as ree.train has them; or by the interpreter, whose bits are those
    of the compiled program and which needs no compilation."""
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
