"""What is not honoured is refused with the user's line, and nothing else than what was written is computed."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ree
from ree.errors import CaptureError
from ree.optim import SGD

X = torch.rand(3, 4)
OPEN = ({0: torch.export.Dim("n")},)


class Apply(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *x):
        return self.f(*x)


def refused(module, inputs, line, message="", **how):
    with pytest.raises(CaptureError) as e:
        ree.compile(module, inputs, **how)
    assert f"test_refusals.py:{line}" in str(e.value), str(e.value)
    assert message in str(e.value), str(e.value)


def line_of(f, after=1):
    return f.__code__.co_firstlineno + after


def linearized(x):
    return torch.func.linearize(torch.sin, x)[1](x)


def differentiated(x):
    return torch.func.vjp(torch.sin, x)[1](x)[0]


def jacobian(x):
    return torch.func.jacfwd(torch.sin)(x)


def backward(x):
    (x * 2).sum().backward()
    return x


def on_meta(x):
    return x, torch.empty(3, device="meta")


def drawn(x):
    return x + torch.rand(4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (linearized, "does not see it"),
        (differentiated, "torch.func"),
        (jacobian, "torch.func"),
        (backward, "no gradients in inference"),
        (on_meta, "meta device"),
        (drawn, "is used at"),
    ],
)
def test_the_line_and_what_to_do(f, message):
    refused(Apply(f), (X,), line_of(f), message)


@pytest.mark.filterwarnings("ignore")
def test_layers_that_torch_quantised():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x)

    module = torch.ao.quantization.quantize_dynamic(Net().eval())
    refused(module, (X,), line_of(Net.forward), "float model, then ree quantise")


class InThread(nn.Module):
    def forward(self, x):
        found = []
        worker = threading.Thread(target=lambda: found.append(x.sin()))
        worker.start()
        worker.join()
        return found[0]


class SizeOut(nn.Module):
    def forward(self, x):
        return x.shape[0] * 2


class TextOut(nn.Module):
    def forward(self, x):
        return "text"


class ObjectOut(nn.Module):
    def forward(self, x):
        return x, object()


def test_results_are_refused_where_they_are_returned():
    refused(InThread(), (X,), line_of(InThread.forward, 5), "another thread")
    refused(SizeOut(), (X,), line_of(SizeOut.forward), "depends on a size", dynamic_shapes=OPEN)
    refused(TextOut(), (X,), line_of(TextOut.forward), "no tensor")
    refused(ObjectOut(), (X,), line_of(ObjectOut.forward), "not a known type")


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(2))

    def forward(self, x):
        return self.layers(x)


def test_lazy_modules():
    line, name = line_of(Lazy.__init__, 2), "'layers.0.weight' of LazyLinear"
    refused(Lazy(), (X,), line, name)
    with pytest.raises(CaptureError, match=f"{name}.*:{line}"):
        ree.train(Lazy(), lambda m, b: m(*b).sum(), SGD(0.1), lambda s: (X,), 1, history=False)
    model = Lazy()
    model(X)
    torch.testing.assert_close(ree.compile(model, (X,))(X), model(X))


def double_by_default(x):
    torch.set_default_dtype(torch.float64)
    try:
        return x + torch.zeros(4)
    finally:
        torch.set_default_dtype(torch.float32)


def left_double(x):
    y = x + 1
    torch.set_default_dtype(torch.float64)
    return y


def test_the_default_dtype_is_one():
    refused(Apply(double_by_default), (X,), line_of(double_by_default, 3), "default dtype")
    try:
        refused(Apply(left_double), (X,), line_of(left_double, 2), "default dtype")
    finally:
        torch.set_default_dtype(torch.float32)


class ByFlag(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.v = nn.Parameter(X[0]), nn.Parameter(X[1], requires_grad=False)

    def forward(self, x):
        x = x * 2 if self.w.requires_grad else x
        return x * 3 if self.v.requires_grad or x.requires_grad else x


def test_parameters_say_whether_they_require_a_gradient():
    assert torch.equal(ree.compile(ByFlag(), (X,))(X), X * 2)


class Exchange(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.zeros(4))
        self.register_buffer("b", torch.ones(4))

    def forward(self, x):
        self.a, self.b = self.b, self.a + x[0]
        return x + self.a


class ThroughData(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))

    def forward(self, x):
        self.w.data.mul_(2)
        return x + self.w.data


@pytest.mark.parametrize("kind", [Exchange, ThroughData])
def test_states_that_are_exchanged_or_changed_through_data(kind):
    session, model = ree.Session(ree.compile(kind(), (X,), states=True)), kind()
    for _ in range(4):
        assert torch.equal(session(X), model(X))
    refused(kind(), (X,), line_of(kind.forward), "compile with states=True")


def test_a_batch_norm_that_counts_its_batches_is_a_state():
    norm = nn.BatchNorm1d(4, momentum=None)
    session = ree.Session(ree.compile(norm, (X,), states=True))
    for i in range(4):
        torch.testing.assert_close(session((i + 1) * X), norm((i + 1) * X))
    names = {k: torch.from_numpy(v) for k, v in session.states.items()}
    torch.testing.assert_close(names, dict(norm.named_buffers()), check_dtype=False)


def test_a_forward_that_one_norm_was_given_is_run_and_kept():
    norm = nn.BatchNorm1d(4, momentum=None)
    norm.forward = lambda x: x * 2
    given = norm.forward
    assert torch.equal(ree.compile(norm, (X,))(X), X * 2)
    assert norm.forward is given


I64 = torch.tensor([[1, 2, 3, 4]])
BOOL, HALF, F32, AT = I64 > 2, torch.rand(4, 4).half(), torch.rand(4, 4), torch.arange(4)
LACKING = {
    "logaddexp": (torch.logaddexp, I64, I64),
    "logaddexp2": (torch.logaddexp2, I64, I64),
    "smooth_l1": (F.smooth_l1_loss, I64, I64),
    "huber": (F.huber_loss, I64, F32),
    "cdist": (torch.cdist, HALF, HALF),
    "pdist": (torch.pdist, HALF),
    "glu": (F.glu, I64),
    "hardshrink": (F.hardshrink, I64),
    "sub": (torch.sub, F32, BOOL),
    "rsub": (lambda x: 1 - x, BOOL),
    "unpool": (lambda x, i: F.max_unpool1d(x[None], i[None, None], 2), I64, AT),
    "nll": (F.nll_loss, I64, AT[:1]),
    "target": (F.cross_entropy, F32, AT.int()),
    "one_hot": (lambda x: F.one_hot(x, 5), AT.int()),
    "topk": (lambda x: x.topk(2).values, BOOL),
    "round": (torch.round, BOOL),
    "trunc": (torch.trunc, BOOL),
    "fix": (torch.fix, BOOL),
    "floor": (torch.floor, BOOL),
    "ceil": (torch.ceil, BOOL),
    "trace": (torch.trace, BOOL),
    "bucketize": (torch.bucketize, BOOL, BOOL[0]),
    "searchsorted": (torch.searchsorted, BOOL, BOOL),
    "dot": (lambda x: torch.dot(x[0], x[0]), BOOL),
    "inner": (lambda x: torch.inner(x[0], x[0]), BOOL),
    "vdot": (lambda x: torch.vdot(x[0], x[0]), BOOL),
    "mv": (lambda x: x.mv(x[0]), BOOL),
    "argmax": (torch.argmax, BOOL),
    "argmin": (torch.argmin, BOOL),
    "median": (torch.median, BOOL),
    "kthvalue": (lambda x: x.kthvalue(1).values, BOOL),
    "prelu": (lambda x: F.prelu(x, x[0, :1]), I64),
    "frac": (torch.frac, I64),
    "im2col": (lambda x: F.unfold(x.view(1, 1, 2, 2), 1), I64),
    "put": (lambda x, i: x.put(i, x[0]), F32, AT.int()),
    "nearest": (lambda x: F.interpolate(x[None], scale_factor=2), I64),
    "reflect": (lambda x: F.pad(x, (1, 1), "reflect"), BOOL),
    "mean": (lambda x, i: x.scatter_reduce(1, i[None], x, "mean"), BOOL, AT),
    "matmul": (torch.matmul, F32, HALF),
    "linear": (F.linear, F32, HALF),
    "conv": (lambda x, w: F.conv1d(x[None], w[None]), F32, HALF),
    "layer_norm": (lambda x, w: F.layer_norm(x, (4,), w[0]), F32, HALF),
    "index_add": (lambda x, i, y: x.index_add(0, i[:1], y), F32, AT, I64),
    "index_put": (lambda x, i, y: x.index_put((i[:1],), y), F32, AT, I64),
    "bce": (F.binary_cross_entropy, F32, HALF),
    "grid": (lambda x, g: F.grid_sample(x[None, None], g.view(1, 4, 2, 2)), F32, HALF),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LACKING)
def test_types_that_torch_refuses(name):
    f, *inputs = LACKING[name]
    with pytest.raises((RuntimeError, NotImplementedError)):
        f(*inputs)
    with pytest.raises(
        CaptureError,
        match=r"test_refusals\.py:\d+.* (for which torch has no kernel|expects one type)",
    ):
        ree.compile(Apply(f), tuple(inputs))


def test_types_that_torch_takes_together():
    both = [(torch.logaddexp, (I64, F32)), (F.smooth_l1_loss, (I64.expand(4, 4), F32)),
            (lambda x, w: F.layer_norm(x, (4,), w[0]), (HALF, F32)),
            (lambda x, i: x.scatter_reduce(1, i[None], x, "amax"), (BOOL, AT))]  # fmt: skip
    for f, inputs in both:
        torch.testing.assert_close(ree.compile(Apply(f), inputs)(*inputs), f(*inputs))


def flat(x):
    return x.view(-1)


def test_a_view_is_of_values_not_of_memory():
    """Eager mode raises for a transposed input; a program has its values, however they lie in memory."""
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        flat(X.t())
    for example in (X.t(), X.t().contiguous()):
        assert torch.equal(ree.compile(Apply(flat), (example,))(X.t()), X.t().reshape(-1))


def under_autocast(x, w):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = F.linear(F.linear(x, w), w)
        return y, torch.cdist(y, y)


def test_autocast_converts_what_it_calls():
    have, want = ree.compile(Apply(under_autocast), (F32, F32))(F32, F32), under_autocast(F32, F32)
    for a, b in zip(have, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
