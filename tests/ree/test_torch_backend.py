"""torch.compile with backend ree: the bits of ree.compile, for every shape and weight update."""

import pytest
import torch
from torch.nn import functional as F

import ree
from ree import errors
from ree.integrations import torch_backend


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def captures(monkeypatch):
    """The open dimensions of each capture, as they happen."""
    seen = []

    def counted(*args):
        seen.append(args[3])
        return whole(*args)

    whole = torch_backend.capture
    monkeypatch.setattr(torch_backend, "capture", counted)
    return seen


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.norm, self.down = (
            torch.nn.Linear(24, 40), torch.nn.LayerNorm(40), torch.nn.Linear(40, 24),
        )  # fmt: skip
        self.register_buffer("shift", torch.randn(24))
        self.scale = torch.randn(24)  # neither parameter nor buffer

    def forward(self, x):
        return x * self.scale + self.down(F.gelu(self.norm(self.up(x)))) + self.shift


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(32, 96), torch.nn.Linear(32, 32)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))


def compiled(module, **kwargs):
    return torch.compile(module, backend=torch_backend.ree, fullgraph=True, **kwargs)


def equal(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype is torch.float32:
        a, b = a.contiguous().view(torch.int32), b.contiguous().view(torch.int32)
    assert torch.equal(a, b)


@pytest.mark.parametrize(("make", "shape"), [(Mlp, (3, 24)), (Attention, (2, 140, 32))])
@torch.no_grad()
def test_bits_equal_the_exported_program(make, shape):
    module = make().eval()
    x = torch.randn(shape)
    equal(compiled(module)(x), ree.compile(module, x)(x))


@torch.no_grad()
def test_bert_has_the_exported_bits():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, return_dict=False,
    )  # fmt: skip
    module = transformers.BertModel(config).eval()
    fast = compiled(module)
    for batch, tokens in ((2, 9), (3, 17)):
        ids = torch.randint(0, 99, (batch, tokens))
        mask = torch.ones_like(ids)
        mask[0, 4:] = 0
        given = {"input_ids": ids, "attention_mask": mask}
        for have, want in zip(fast(**given), ree.compile(module, given)(**given), strict=True):
            equal(have, want)


@pytest.mark.parametrize("dynamic", [None, True, False])
@torch.no_grad()
def test_other_shapes(dynamic, captures):
    """The second shape makes dimensions open; shapes after it need no capture."""
    module = Attention().eval()
    fast = compiled(module, dynamic=dynamic)
    for shape in ((2, 9, 32), (3, 17, 32), (5, 130, 32), (4, 9, 32)):
        x = torch.randn(shape)
        equal(fast(x), ree.compile(module, x)(x))
    opened = [s is not None for s in captures]
    assert opened == {None: [False, True], True: [True], False: [False] * 4}[dynamic]


@torch.no_grad()
def test_sizes_that_cannot_stay_open_are_compiled_one_by_one(monkeypatch, captures):
    whole = torch_backend.capture

    def closed_only(module, args, kwargs, shapes):
        if shapes is not None:
            raise errors.CaptureError("no open dimensions")
        return whole(module, args, kwargs, shapes)

    monkeypatch.setattr(torch_backend, "capture", closed_only)
    monkeypatch.setattr(torch_backend, "PROGRAMS", 2)
    module = Mlp().eval()
    fast = compiled(module, dynamic=True)
    for rows in (2, 3, 4, 4, 2):
        x = torch.randn(rows, 24)
        equal(fast(x), ree.compile(module, x)(x))
    assert len(captures) == 4  # the first shape was dropped for the third


def _sgd(module):
    for p in module.parameters():
        p.add_(torch.randn_like(p), alpha=0.1)


def _through_data(module):
    module.down.weight.data.mul_(1.5)


def _assigned(module):
    module.down.weight = torch.nn.Parameter(torch.randn(24, 40))


def _swapped(module):
    module.double().float()
    module.up.weight.data = torch.randn(40, 24)


def _buffers(module):
    module.shift.neg_()
    module.scale.mul_(2)


@pytest.mark.parametrize("change", [_sgd, _through_data, _assigned, _swapped, _buffers])
@torch.no_grad()
def test_changed_weights_are_seen(change):
    module = Mlp().eval()
    fast = compiled(module)
    x = torch.randn(3, 24)
    before = fast(x)
    for _ in range(2):
        change(module)
        after = fast(x)
        equal(after, ree.compile(module, x)(x))
        assert not torch.equal(before, after)


@torch.no_grad()
def test_unchanged_weights_are_kept():
    backend = []

    def spy(gm, inputs):
        backend.append(torch_backend.ree(gm, inputs))
        return backend[-1]

    fast = torch.compile(Mlp().eval(), backend=spy)
    fast(torch.randn(3, 24))
    (one,) = backend
    (program,) = one.programs.values()
    fast(torch.randn(3, 24))
    assert list(one.programs.values()) == [program]
    assert len(program.graph.inputs) == 1
    assert len(program.weights) == 8


def test_gradients_are_refused():
    module = Mlp()
    fast = compiled(module)
    x = torch.randn(3, 24)
    with pytest.raises(errors.InputError, match="computes no gradients"):
        fast(x)
    with torch.no_grad():
        want = ree.compile(module, x)(x)
        equal(fast(x), want)
    with torch.inference_mode():
        equal(fast(x), want)
    module.requires_grad_(False)
    equal(fast(x), want)
    with pytest.raises(errors.InputError, match="computes no gradients"):
        fast(x.requires_grad_())


def test_a_models_own_no_grad():
    class Own(Mlp):
        def forward(self, x):
            with torch.no_grad():
                y = super().forward(x)
            return y.tanh()

    module = Own()
    x = torch.randn(3, 24)
    y = compiled(module)(x)
    assert not y.requires_grad
    equal(y, ree.compile(module, x)(x))


@torch.no_grad()
def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        module = Mlp().eval()
        x = torch.randn(3, 24)
        fast = compiled(module)
        before = fast(x)
        module.down.weight.mul_(2)
        after = fast(x)
        assert not torch.equal(before, after)
    module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True)
    equal(after, ree.compile(module, x.clone())(x))


@pytest.mark.parametrize("dynamic", [False, True])
@torch.no_grad()
def test_every_kind_of_output(dynamic):
    def f(x, n, w):
        y = F.gelu(x) + n
        return {
            "y": y, "again": y, "x": x, "view": x.view(-1)[2:], "none": None, "n": n + 1,
            "size": x.shape[0] * 3, "moved": y.transpose(0, 1), "w": w, "more": w * 2,
            "bool": y > 0, "index": y.argmax(1), "sum": y.sum(),
        }  # fmt: skip

    fast = compiled(f, dynamic=dynamic)
    w = torch.nn.Parameter(torch.randn(4), requires_grad=False)
    for rows, n in ((3, 2), (5, 2), (6, 7)):
        x = torch.randn(rows, 4)
        have, want = fast(x, n, w), f(x, n, w)
        assert have.keys() == want.keys()
        assert have["again"] is have["y"]
        assert have["x"] is x
        assert have["w"] is w
        assert have["view"].data_ptr() == want["view"].data_ptr()
        for name, value in want.items():
            if isinstance(value, torch.Tensor):
                assert have[name].dtype == value.dtype
                torch.testing.assert_close(have[name], value)
            else:
                assert have[name] == value
                assert type(have[name]) is type(value)


@torch.no_grad()
def test_floats_are_part_of_the_program():
    fast = compiled(lambda x, a: (x * a, a + 1), dynamic=True)
    x = torch.ones(3)
    for a in (0.5, 0.0, -0.0, 0.1):
        y, b = fast(x, a)
        equal(y, x * a)
        assert b == a + 1


@torch.no_grad()
def test_outputs_that_need_no_computing():
    x = torch.randn(3, 4)
    y = compiled(lambda x: (x.t(), x[1:]))(x)
    assert [t.data_ptr() for t in y] == [x.data_ptr(), x[1:].data_ptr()]


@torch.no_grad()
def test_strided_inputs():
    module = Mlp().eval()
    x = torch.randn(24, 3).t()
    equal(compiled(module)(x), ree.compile(module, x)(x))


@torch.no_grad()
def test_mutation_is_refused():
    def f(x):
        x.add_(1)

    with pytest.raises(errors.CaptureError, match="changes"):
        compiled(f)(torch.ones(3))
    norm = torch.nn.BatchNorm1d(4).train()
    with pytest.raises(errors.CaptureError):
        compiled(norm)(torch.randn(5, 4))


@torch._dynamo.config.patch(capture_scalar_outputs=True)
@torch.no_grad()
def test_numbers_read_from_tensors_are_refused():
    with pytest.raises(errors.CaptureError, match="reads a number"):
        compiled(lambda x: (x + 1, x.sum().item() * 2))(torch.ones(3))


@torch.no_grad()
def test_unsupported_operators_are_named_with_their_lines():
    def f(x):
        return torch.linalg.qr(x)[0]

    with pytest.raises(errors.UnsupportedError, match="linalg_qr") as e:
        compiled(f)(torch.randn(3, 3))
    assert "test_torch_backend.py:" in e.value.items[0]


@torch.no_grad()
def test_other_dtypes_are_refused():
    with pytest.raises(errors.UnsupportedError, match="float64"):
        compiled(F.gelu)(torch.randn(3, dtype=torch.float64))


class Mixed(torch.nn.Module):
    """A region in half precision inside another without."""

    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(24, 40), torch.nn.Linear(40, 24)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.up(x)
            with torch.autocast("cpu", enabled=False):
                z = self.down(y.float())
        return y, z


@torch.no_grad()
def test_autocast_regions():
    module, x = Mixed().eval(), torch.randn(5, 24)
    y, z = compiled(module)(x)
    want_y, want_z = module(x)
    assert (y.dtype, z.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y, want_y, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(z, module.down(y.float()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(z, want_z, rtol=1e-2, atol=1e-2)
    for have, want in zip((y, z), ree.compile(module, (x,))(x), strict=True):
        assert torch.equal(have, want)
