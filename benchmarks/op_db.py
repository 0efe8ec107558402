"""PyTorch's own samples of every operator it describes (torch.testing), through REE.

    python benchmarks/op_db.py [NAME ...] [--samples N] [-o benchmarks/results/op_db.json] [--resume]

All samples, some 30,000, take half an hour on one thread. The file is written after every operator; --resume
goes on where it ends, and runs again what failed and what is from an earlier build: the file's `earlier` names
those, and `missing` what has no result yet. An operator of which --samples left some out has `first`: N.

passed: shape and dtype equal, values within the bound (of half precision also those of float32, rounded).
random: another result of eager mode with another seed; shape and dtype equal.
refused: one of REE's errors, with its reason.
failed: anything else.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import re
import sys
import warnings
from pathlib import Path

import torch
from torch.utils import _pytree

import ree
from ree.compiler.frontend.torch_types import to_torch
from ree.errors import ReeError, UnsupportedError

DTYPES = (torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.float16, torch.int32)
ALL = 1 << 30
TOGETHER = 32  # samples in one program
HALVES = (torch.bfloat16, torch.float16)
# relative to the greatest magnitude of the result; torch itself accumulates in another order
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
_NAMES = """
abs acos acosh add addbmm addcdiv addcmul addmm addmv addr all amax amin aminmax angle any arange argmax
argmin argsort as_strided asin asinh atan atan2 atanh atleast_1d atleast_2d baddbmm bitwise_and
bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor block_diag bmm broadcast_tensors
broadcast_to bucketize cartesian_prod cat cdist ceil chunk clamp clamp_max clamp_min clone column_stack
constant_pad_nd contiguous copysign cos cosh count_nonzero cross cummax cummin cumprod cumsum
cumulative_trapezoid deg2rad diag diag_embed diagflat diagonal diagonal_copy diff digamma dist div dot dsplit
dstack einsum empty_like eq erf erfc erfinv exp exp2 expand expand_as expm1 eye flatten flip fliplr flipud
floor floor_divide fmax fmin fmod frac full full_like gather ge gradient grid_sampler_2d grid_sampler_3d gt
heaviside hsplit hstack hypot index_add index_copy index_fill index_put index_reduce.amax index_reduce.amin
index_reduce.mean index_reduce.prod index_select inner isclose isfinite isin isinf isnan isneginf isposinf
isreal kron kthvalue ldexp le lerp lgamma linalg.cross linalg.diagonal linalg.matrix_norm linalg.matrix_power
linalg.multi_dot linalg.norm linalg.vander linalg.vecdot linalg.vector_norm linspace linspace.tensor_overload
log log10 log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp logical_and logical_not logical_or
logical_xor logit logspace logsumexp lt masked_fill masked_scatter matmul max max_pool2d_with_indices_backward
maximum mean median meshgrid.list_of_tensors meshgrid.variadic_tensors min minimum mm mode movedim msort mul
mv nan_to_num nanmean nanmedian nanquantile nansum narrow ne neg nn.functional.adaptive_avg_pool1d
nn.functional.adaptive_avg_pool2d nn.functional.adaptive_avg_pool3d nn.functional.adaptive_max_pool1d
nn.functional.adaptive_max_pool2d nn.functional.adaptive_max_pool3d nn.functional.avg_pool1d
nn.functional.avg_pool2d nn.functional.avg_pool3d nn.functional.batch_norm nn.functional.bilinear
nn.functional.binary_cross_entropy nn.functional.binary_cross_entropy_with_logits nn.functional.celu
nn.functional.channel_shuffle nn.functional.conv1d nn.functional.conv2d nn.functional.conv_transpose1d
nn.functional.conv_transpose2d nn.functional.cosine_embedding_loss nn.functional.cosine_similarity
nn.functional.cross_entropy nn.functional.elu nn.functional.embedding nn.functional.embedding_bag
nn.functional.gelu nn.functional.glu nn.functional.grid_sample nn.functional.group_norm
nn.functional.hardshrink nn.functional.hardsigmoid nn.functional.hardswish nn.functional.hardtanh
nn.functional.hinge_embedding_loss nn.functional.huber_loss nn.functional.instance_norm
nn.functional.interpolate nn.functional.kl_div nn.functional.l1_loss nn.functional.layer_norm
nn.functional.leaky_relu nn.functional.linear nn.functional.local_response_norm nn.functional.logsigmoid
nn.functional.margin_ranking_loss nn.functional.max_pool1d nn.functional.max_pool2d nn.functional.max_pool3d
nn.functional.max_unpool1d nn.functional.max_unpool2d nn.functional.mish nn.functional.mse_loss
nn.functional.multi_margin_loss nn.functional.multilabel_margin_loss nn.functional.multilabel_soft_margin_loss
nn.functional.nll_loss nn.functional.normalize nn.functional.one_hot nn.functional.pad
nn.functional.pairwise_distance nn.functional.pdist nn.functional.pixel_shuffle nn.functional.pixel_unshuffle
nn.functional.poisson_nll_loss nn.functional.prelu nn.functional.relu nn.functional.relu6
nn.functional.rms_norm nn.functional.rrelu nn.functional.scaled_dot_product_attention nn.functional.selu
nn.functional.silu nn.functional.smooth_l1_loss nn.functional.soft_margin_loss nn.functional.softmin
nn.functional.softplus nn.functional.softshrink nn.functional.softsign nn.functional.tanhshrink
nn.functional.threshold nn.functional.triplet_margin_loss nn.functional.triplet_margin_with_distance_loss
nn.functional.unfold nn.functional.upsample_bilinear nn.functional.upsample_nearest norm ones_like outer
permute positive pow prod put quantile rad2deg ravel reciprocal remainder renorm repeat repeat_interleave
reshape roll rot90 round rsqrt rsub scatter scatter_add scatter_reduce.amax scatter_reduce.amin
scatter_reduce.mean scatter_reduce.prod scatter_reduce.sum searchsorted select select_scatter sgn sigmoid sign
signal.windows.bartlett signbit sin sinc sinh slice slice_scatter softmax sort special.entr special.ndtr
special.xlog1py split split_with_sizes sqrt square squeeze stack std std_mean sub sum t take take_along_dim
tan tanh tensor_split tensordot tile topk trace transpose trapezoid trapz tril tril_indices triu triu_indices
true_divide trunc unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze var var_mean vdot view vsplit
vstack where xlogy zeros_like
"""
NAMES = _NAMES.split()


class Call:
    """An operator applied to a sample, its tensors as inputs."""

    def __init__(self, op, sample, at):
        everything = (sample.input, sample.args, sample.kwargs)
        self.leaves, self.spec = _pytree.tree_flatten(everything)
        self.random = False
        self.sample, self.at = sample, [i for i, x in enumerate(self.leaves) if _is_tensor(x)]
        self.inputs = tuple(self.leaves[i].detach().clone() for i in self.at)
        self.name, scope = (
            f"sample{at}",
            {"op": op},
        )  # REE's errors tell a call by its place in the source
        text = "def forward(first, args, kwargs):\n    return op(first, *args, **kwargs)"
        exec(compile(text, self.name, "exec"), scope)
        self.op = scope["forward"]

    def in_float32(self):
        """The results with float32 for half precision, of the inputs and as the dtype asked for."""
        asked = [torch.float32 if _is_half(x) else x for x in self.leaves]
        return self(*(x.float() if x.dtype in HALVES else x for x in self.inputs), leaves=asked)

    def __call__(self, *tensors, leaves=None):
        leaves = list(leaves or self.leaves)
        for i, x in zip(self.at, tensors, strict=True):
            leaves[i] = x
        out = self.op(*_pytree.tree_unflatten(leaves, self.spec))
        return tuple(x for x in _pytree.tree_leaves(out) if _is_tensor(x))


class Together(torch.nn.Module):
    """Calls side by side: a program takes a third of a second to capture, whatever it holds."""

    def __init__(self, calls):
        super().__init__()
        self.calls = tuple(calls)
        self.inputs = tuple(x for call in calls for x in call.inputs)

    def forward(self, *tensors):
        rest = iter(tensors)
        return tuple(x for c in self.calls for x in c(*(next(rest) for _ in c.inputs)))


def _is_half(x):
    return isinstance(x, torch.dtype) and x in HALVES


def _is_tensor(x):
    return isinstance(x, torch.Tensor)


def results_of(calls):
    """Each call's results, or the error it ends in."""
    together = Together([call for call, _ in calls])
    try:
        have = ree.compile(together, together.inputs).run(*together.inputs).outputs
        rest = iter(x if _is_tensor(x) else to_torch(x) for x in have)
        if len(have) != sum(len(want) for _, want in calls):
            raise ValueError(f"{len(have)} results")
        return [[next(rest) for _ in want] for _, want in calls]
    except Exception as e:
        items = getattr(e, "items", ())
        refused = {}
        for at, (call, _) in enumerate(calls):
            place = re.compile(rf" at (sample\d+:2, )*{call.name}:2(, sample\d+:2)*")
            mine = [place.sub("", x) for x in items if place.search(x)]
            if mine:
                mine = [x if ": " in x else f"no operator {x}" for x in mine]
                refused[at] = UnsupportedError("; ".join(mine), ())
        if not refused and len(calls) == 1:
            return [e]
        if not refused:
            half = len(calls) // 2
            return results_of(calls[:half]) + results_of(calls[half:])
        rest = [call for at, call in enumerate(calls) if at not in refused]
        others = iter(results_of(rest) if rest else [])
        return [refused[at] if at in refused else next(others) for at in range(len(calls))]


def difference(have, want):
    """None, or what differs."""
    if have.shape != want.shape or have.dtype != want.dtype:
        return f"{have.dtype}{list(have.shape)} for {want.dtype}{list(want.shape)}"
    if not want.is_floating_point():
        return None if torch.equal(have, want) else "values differ"
    a, b = have.double(), want.double()
    same = (a == b) | (a.isnan() & b.isnan())
    finite = b[b.isfinite()]
    scale = max(finite.abs().max().item() if finite.numel() else 0.0, 1.0)
    off = (a - b).abs()[~same]
    worst = off.max().item() if off.numel() else 0.0
    return None if worst <= TOLERANCE[want.dtype] * scale else f"off by {worst:.3g} of {scale:.3g}"


@contextlib.contextmanager
def other_seeds():
    """Seeds that are set, by op_db too, are others."""
    seed = torch.manual_seed
    torch.manual_seed = lambda x: seed(x + 1)
    try:
        yield seed(1)
    finally:
        torch.manual_seed = seed


def differ(some, others):
    return not all(
        a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
        for a, b in zip(some, others, strict=True)
    )


def _ties(name, sample, have, want):
    """Which of equal elements comes first is not specified: accept indices that give the right values."""
    at = 1 if name in ("topk", "kthvalue") else 0
    dim = sample.kwargs.get("dim", sample.args[at] if len(sample.args) > at else -1)
    x, index = sample.input, have[-1]
    if not x.dim() or index.dtype is not torch.int64 or index.shape != want[-1].shape:
        return want
    both = [i if i.dim() == x.dim() else i.unsqueeze(dim) for i in (index, want[-1])]
    right = torch.equal(*(torch.nan_to_num(x.gather(dim, i).double(), 1e9) for i in both))
    return (*want[:-1], index) if right else want


def check(op, samples):
    """("passed" | "random" | "refused" | "failed" | "skipped", why) of each."""
    outcomes, calls = {}, {}
    for at, sample in enumerate(samples):
        call = Call(op, sample, at)
        try:
            with torch.no_grad():
                want = call(*call.inputs)
                with other_seeds():
                    call.random = op.__name__ != "empty_like" and differ(call(*call.inputs), want)
            if want:
                calls[at] = (call, want)
            else:
                outcomes[at] = "skipped", "no tensor"
        except Exception as e:  # the sample itself is an error in eager mode
            outcomes[at] = "skipped", str(e)[:80]
    for first in range(0, len(calls), TOGETHER):
        part = dict(list(calls.items())[first : first + TOGETHER])
        for (at, (call, want)), have in zip(
            part.items(), results_of([*part.values()]), strict=True
        ):
            outcomes[at] = compare(op, call, have, want)
    return [outcomes[at] for at in range(len(samples))]


def compare(op, call, have, want):
    if isinstance(have, ReeError):
        return "refused", "; ".join([str(have), *getattr(have, "items", ())])[:300]
    if isinstance(have, Exception):
        return "failed", f"{type(have).__name__}: {have}"[:300]
    if op.__name__ == "empty_like" or call.random:
        # eager mode's numbers are whatever the memory held, or were drawn
        have, want = (tuple(x.new_zeros(x.shape) for x in xs) for xs in (have, want))
    several = op.__name__ in ("topk", "sort", "kthvalue", "median", "nanmedian", "mode")
    if op.__name__ == "argsort" or (several and len(have) == 2):
        want = _ties(op.__name__, call.sample, have, want)
    problems = [d for a, b in zip(have, want, strict=True) if (d := difference(a, b))]
    if problems and (
        any(x.dtype in HALVES for x in call.inputs) or any(map(_is_half, call.leaves))
    ):
        # eager mode rounds a quotient to half precision before it cuts it, and an exponent before it raises to
        # it; ours are as they are
        with torch.no_grad():
            want32 = call.in_float32()
        want32 = [b.to(a.dtype) for a, b in zip(want, want32, strict=True)]
        problems = [d for a, b in zip(have, want32, strict=True) if (d := difference(a, b))]
    if problems:
        return "failed", problems[0]
    return ("random" if call.random else "passed"), ""


def run(names, samples, say=lambda name, result: None, done=()):
    """Counts by operator and dtype, and reasons, of the operators that are not done."""
    from torch.testing._internal.common_methods_invocations import op_db

    results = {}
    for info in op_db:
        name = info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")
        if not {info.name, name} & set(names) or name in done:
            continue
        counts, reasons = collections.Counter(), {}
        for dtype in DTYPES:
            if dtype not in info.dtypes:
                continue
            torch.manual_seed(0)
            some = itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=False), samples)
            for i, (outcome, why) in enumerate(check(info.op, list(some))):
                counts[outcome] += 1
                if why and outcome != "skipped":
                    reasons.setdefault(outcome, {}).setdefault(why, f"{dtype} sample {i}")
        limit = {} if samples >= ALL else {"first": samples}
        results[name] = {**counts, **limit, "reasons": reasons}
        say(name, results[name])
    return results


def report(results, earlier=()):
    total = {
        k: sum(r.get(k, 0) for r in results.values())
        for k in ("passed", "random", "refused", "failed")
    }
    families = {x for name in results for x in (name, name.rsplit(".", 1)[0])}
    return {
        "torch": torch.__version__,
        **total,
        "earlier": sorted(earlier),
        "missing": sorted(set(NAMES) - families),
        "operators": dict(sorted(results.items())),
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--samples", type=int, default=ALL)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep what OUTPUT holds and passed")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    results, earlier = {}, set()
    if args.resume and args.output.exists():
        before = json.loads(args.output.read_text())
        results, earlier = before["operators"], set(before.get("earlier", ()))
    done = {name for name, r in results.items() if not (r.get("failed") or "first" in r)} - earlier

    def say(name, result):
        print(f"{name:40} {json.dumps(result)[:700]}", flush=True)
        results[name] = result
        earlier.discard(name)
        if args.output:
            args.output.write_text(json.dumps(report(results, earlier), indent=1) + "\n")

    run(args.names or NAMES, args.samples, say, done)
    total = report(results, earlier)
    del total["operators"], total["earlier"], total["missing"]
    print(total, file=sys.stderr)
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
