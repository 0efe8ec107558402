"""Operators in float64, and gradients by central differences of them."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from ree.compiler import interp
from ree.compiler.frontend.importer import Importer
from ree.compiler.gradients import rules  # noqa: F401  (registers them)
from ree.compiler.gradients.engine import FLOATS, backward
from ree.compiler.ir import Kind, Ref
from ree.kernels.types import DType, TensorType


def attention(a, q, k, v, mask=None):
    shared = q.shape[1] // k.shape[1]
    k, v = (torch.repeat_interleave(x, shared, 1) for x in (k, v))
    s = (q @ k.mT) * a["scale"]
    at, key = torch.arange(q.shape[2])[:, None] + a["q_offset"], torch.arange(k.shape[2])
    valid = torch.ones(s.shape[2:], dtype=torch.bool)
    if a["causal"]:
        valid = valid & (key <= at)
    if a["window"]:
        valid = valid & (at - key < a["window"])
    if mask is not None and mask.dtype is torch.bool:
        valid = valid & mask
    elif mask is not None:
        s = s + mask
    s = torch.where(valid, s, -math.inf)
    p = torch.softmax(s, 3)
    return torch.where((s == -math.inf).all(3, keepdim=True), 0.0, p) @ v


def convolution(a, x, w):
    f = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.dim()]
    return f(x, w, None, a["stride"], a["padding"], a["dilation"], a["groups"])


def window(a, x):
    dim, out = a["dim"], (x.shape[a["dim"]] - a["dilation"] * (a["size"] - 1) - 1) // a["step"] + 1
    at = torch.arange(out)[:, None] * a["step"] + torch.arange(a["size"]) * a["dilation"]
    return torch.movedim(x.index_select(dim, at.reshape(-1)).unflatten(dim, at.shape), dim + 1, -1)


def pad(a, x):
    for dim, (low, high) in enumerate(zip(a["low"], a["high"], strict=True)):
        sides = []
        for n in (low, high):
            shape = list(x.shape)
            shape[dim] = max(n, 0)
            sides.append(torch.full(shape, float(a["value"]), dtype=x.dtype))
        size = x.shape[dim] + low + high
        x = torch.cat((sides[0], x, sides[1]), dim).narrow(dim, max(-low, 0), size)
    return x


def slice_(a, x):
    at = torch.arange(a["start"], a["stop"], a["step"])
    return x.index_select(a["dim"], at)


def along(a, x, i):
    """One index vector for an axis, negative from the end, as an index of every element."""
    shape = [1] * x.dim()
    shape[a["dim"]] = -1
    full = list(x.shape)
    full[a["dim"]] = i.numel()
    return (i % x.shape[a["dim"]]).reshape(shape).expand(full)


def written(a, x, i, src):
    """The last update of an element is its value."""
    dim = a["dim"]
    x, i, src = (torch.movedim(t, dim, 0) for t in (x, i, src))
    out = list(x.reshape(x.shape[0], -1).T.reshape(-1))
    width = math.prod(x.shape[1:])
    flat_i, flat_s = (t.reshape(t.shape[0], width) for t in (i, src))
    for r in range(i.shape[0]):
        for c in range(width):
            out[c * x.shape[0] + int(flat_i[r, c])] = flat_s[r, c]
    y = torch.stack(out).reshape(width, x.shape[0]).T.reshape(x.shape)
    return torch.movedim(y, 0, dim)


def norm(a, x, rest, centre):
    rest = list(rest)
    d = x - x.mean(-1, keepdim=True) if centre else x
    y = d / torch.sqrt((d * d).mean(-1, keepdim=True) + a["eps"])
    if a["weight"]:
        y = y * rest.pop(0)
    return y + rest.pop(0) if a.get("bias") else y


def along_axis(f):
    return lambda a, x: f(x, a["dim"], a["keepdim"])


def plain(f):
    return lambda a, *xs: f(*xs)


F64 = {
    "add": plain(torch.add), "sub": plain(torch.sub), "mul": plain(torch.mul), "div": plain(torch.div),
    "fma": plain(lambda a, b, c: a * b + c), "neg": plain(torch.neg), "abs": plain(torch.abs),
    "sqrt": plain(torch.sqrt), "minimum": plain(torch.minimum), "maximum": plain(torch.maximum),
    "remainder": plain(torch.remainder), "pow": plain(torch.pow), "where": plain(torch.where),
    **{n: plain(getattr(torch, n)) for n in (
        "exp", "log", "tanh", "erf", "sin", "cos", "rsqrt", "sigmoid", "relu", "exp2", "expm1", "log2",
        "log1p", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erfc", "erfinv",
        "lgamma")},
    "atan2": plain(torch.atan2), "hypot": plain(torch.hypot), "copysign": plain(torch.copysign),
    "silu": plain(F.silu), "gelu": plain(F.gelu), "softplus": plain(lambda x: F.softplus(x, 1, 1e9)),
    "gelu_tanh": plain(lambda x: F.gelu(x, approximate="tanh")),
    "linear": plain(F.linear), "matmul": plain(torch.matmul), "convolution": convolution,
    "sum": along_axis(torch.sum), "mean": along_axis(torch.mean), "amax": along_axis(torch.amax),
    "amin": along_axis(torch.amin), "cumsum": lambda a, x: torch.cumsum(x, a["dim"]),
    "sort": lambda a, x: torch.sort(x, a["dim"], a["descending"])[0],
    "view": lambda a, x: x.reshape(a["shape"]), "permute": lambda a, x: x.permute(a["dims"]),
    "expand": lambda a, x: x.expand(a["shape"]), "slice": slice_,
    "cat": lambda a, *xs: torch.cat(xs, a["dim"]), "window": window, "pad": pad,
    "flip": lambda a, x: torch.flip(x, (a["dim"],)), "embedding": plain(lambda x, i: x[i]),
    "index": plain(lambda x, *i: x[tuple(i)]), "gather": lambda a, x, i: torch.gather(x, a["dim"], i),
    "scatter": written, "scatter_add": lambda a, x, i, s: torch.scatter_add(x, a["dim"], i, s),
    "index_put": lambda a, x, i, s: written(a, x, along(a, x, i), s),
    "index_add": lambda a, x, i, s: torch.scatter_add(x, a["dim"], along(a, x, i), s),
    "softmax": lambda a, x: torch.softmax(x, a["dim"]),
    "layer_norm": lambda a, x, *rest: norm(a, x, rest, True),
    "rms_norm": lambda a, x, *rest: norm(a, x, rest, False), "attention": attention,
}  # fmt: skip


def weighted(m, refs, rng):
    """sum(weights * value) over floating-point values, and the weights; loss None without any."""
    loss, weights = None, []
    for ref in refs:
        t = m.type(ref)
        if t.dtype not in FLOATS:
            weights.append(None)
            continue
        w = rng.standard_normal(t.dims).astype(np.float32)
        weights.append(w)
        part = m.reduce("sum", m.add("mul", m.as_float(ref), m.builder.const(w)), (), False)
        loss = part if loss is None else m.add("add", loss, part)
    return loss, weights


def run(m, outputs, inputs):
    g = m.builder.finish(tuple(outputs))
    return interp.outputs(g, [np.ascontiguousarray(x).reshape(x.shape) for x in inputs], ())


def gradients_of(op, inputs, attrs, rng):
    """(gradient of sum(weights * op(inputs)) by source, None where it has none; weights by result)."""
    m = Importer()
    sources = [m.builder.input(TensorType(DType.of(x.dtype), x.shape)) for x in inputs]
    node = m.builder.add_node(op, tuple(sources), attrs)
    loss, weights = weighted(
        m, [Ref(Kind.VALUE, node.first + i) for i in range(len(node.results))], rng
    )
    wanted = [s for s in sources if m.type(s).dtype in FLOATS]
    found = backward(m, loss, wanted) if loss is not None else [None] * len(wanted)
    have = dict(zip(wanted, found, strict=True))
    there = [g for g in found if g is not None]
    values = iter(run(m, there, inputs) if there else ())
    return [next(values) if have.get(s) is not None else None for s in sources], weights


def differences(op, inputs, attrs, weights, source, elements):
    """d sum(weights * op) / d inputs[source][element] for each element, by central differences."""

    def f(x):
        args = [torch.from_numpy(np.asarray(v, np.float64 if v.dtype == np.float32 else v.dtype))
                for v in inputs]  # fmt: skip
        args[source] = torch.from_numpy(x)
        return F64[op](attrs, *args).numpy()

    base = np.asarray(inputs[source], np.float64)
    w = np.asarray(weights[0], np.float64)
    out = []
    for e in elements:
        size = abs(base.flat[e])
        h = 1e-5 * max(size if np.isfinite(size) else 1.0, 1e-4)
        low, high = base.copy(), base.copy()
        low.flat[e] -= h
        high.flat[e] += h
        with np.errstate(invalid="ignore"):
            out.append(
                np.sum(w * (f(high) - f(low)))
                / (high.flat[e] - low.flat[e] if size < np.inf else 1)
            )
    return np.array(out)
