"""Programs: fusion, threads, batches, sequences and traces never change a bit."""

import numpy as np
import pytest
import torch

import ree
import ree.errors
from ree import _core
from ree.compiler import interp
from ree.kernels.numerics import canonical_nan
from ree.program import Program
from ree.runtime.cpu import scanned

ISAS = _core.isa_names()


class LlamaBlock(torch.nn.Module):
    """Rotary phases, RMS norm, SwiGLU, grouped heads."""

    def __init__(self, width=48, heads=4, kv_heads=2, hidden=80):
        super().__init__()
        self.heads, self.kv_heads, self.head = heads, kv_heads, width // heads
        self.norm1 = torch.nn.Parameter(torch.rand(width) + 0.5)
        self.norm2 = torch.nn.Parameter(torch.rand(width) + 0.5)
        self.q = torch.nn.Linear(width, width, bias=False)
        self.kv = torch.nn.Linear(width, 2 * kv_heads * self.head, bias=False)
        self.o = torch.nn.Linear(width, width, bias=False)
        self.gate = torch.nn.Linear(width, hidden, bias=False)
        self.up = torch.nn.Linear(width, hidden, bias=False)
        self.down = torch.nn.Linear(hidden, width, bias=False)
        freq = 1.0 / 10000 ** (torch.arange(0, self.head, 2).float() / self.head)
        self.register_buffer("freq", freq)

    def rms(self, x, w):
        return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def rotate(self, x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-b, a), dim=-1) * sin

    def forward(self, x):
        batch, tokens, width = x.shape
        angles = torch.arange(tokens)[:, None].float() * self.freq[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        h = self.rms(x, self.norm1)
        q = self.q(h).view(batch, tokens, self.heads, self.head).transpose(1, 2)
        k, v = (
            self.kv(h).view(batch, tokens, 2 * self.kv_heads, self.head).transpose(1, 2).chunk(2, 1)
        )
        y = torch.nn.functional.scaled_dot_product_attention(
            self.rotate(q, cos, sin), self.rotate(k, cos, sin), v, is_causal=True, enable_gqa=True
        )
        x = x + self.o(y.transpose(1, 2).reshape(batch, tokens, width))
        h = self.rms(x, self.norm2)
        return x + self.down(torch.nn.functional.silu(self.gate(h)) * self.up(h))


def dynamic():
    batch, tokens = torch.export.Dim("b", min=1, max=64), torch.export.Dim("t", min=1, max=1024)
    return {"x": {0: batch, 1: tokens}}


@pytest.fixture(scope="module")
def block() -> tuple[LlamaBlock, Program]:
    torch.manual_seed(0)
    module = LlamaBlock().eval()
    return module, ree.compile(module, {"x": torch.randn(2, 9, 48)}, dynamic())


def equal(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def test_norms_are_recognised_and_close_to_torch(block):
    module, program = block
    ops = [n.op for n in program.graph.nodes]
    assert ops.count("rms_norm") == 2
    assert ops.count("attention") == 1
    x = torch.randn(3, 140, 48)
    with torch.no_grad():
        want = module(x)
    np.testing.assert_allclose(program(x).numpy(), want.numpy(), atol=2e-5)


def test_every_route_has_the_same_bits_and_root(block):
    """Interpreter, instruction sets, threads, fused and unfused; T = 140 crosses a segment."""
    _, program = block
    x = np.random.default_rng(1).standard_normal((2, 140, 48)).astype(np.float32)
    env = program.bind_symbols([x])
    (want,) = interp.outputs(program.instance(env).graph, [x], program.weights)
    roots = set()
    for isa in ISAS:
        for threads in (1, 2, 7):
            for fuse in (True, False):
                for level in ("io", "ops"):
                    r = program.run(x, isa=isa, threads=threads, fuse=fuse, trace=level)
                    equal(r.outputs[0], want)
                    roots.add((level, r.trace.root))
    assert len(roots) == 2


def test_a_batch_equals_its_rows(block):
    _, program = block
    x = np.random.default_rng(2).standard_normal((5, 133, 48)).astype(np.float32)
    whole = program(x)
    for i in range(5):
        equal(program(x[i : i + 1])[0], whole[i])


def test_a_longer_sequence_does_not_change_earlier_positions(block):
    """Causal: position t sees the same keys however many follow."""
    _, program = block
    x = np.random.default_rng(3).standard_normal((1, 150, 48)).astype(np.float32)
    whole = program(x)
    for t in (1, 2, 127, 128, 129, 149):
        equal(program(x[:, :t]), whole[:, :t])


def test_bits_do_not_depend_on_which_dimensions_are_dynamic(block):
    module, program = block
    x = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(4))
    fixed = ree.compile(module, {"x": x})
    assert not fixed.graph.symbols
    equal(fixed(x), program(x))


def test_compiling_twice_gives_the_same_program(block):
    module, program = block
    again = ree.compile(module, {"x": torch.randn(4, 21, 48)}, dynamic())
    assert again.program_hash == program.program_hash
    assert again.weights_root == program.weights_root


class Attend(torch.nn.Module):
    def forward(self, q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def test_attention_position_by_position_with_a_cache():
    """One query at a time over a growing cache equals the causal whole."""
    d = 16
    q, k, v = (
        torch.randn(1, 2, 140, d, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )

    class Causal(torch.nn.Module):
        def forward(self, q, k, v):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    whole = ree.compile(Causal(), (q, k, v))(q, k, v)
    keys = torch.export.Dim("keys", min=1, max=512)
    step = ree.compile(Attend(), {"q": q[:, :, :1], "k": k[:, :, :5], "v": v[:, :, :5]},
                       {"q": None, "k": {2: keys}, "v": {2: keys}})  # fmt: skip
    for t in (0, 1, 126, 127, 128, 139):
        one = step(q=q[:, :, t : t + 1], k=k[:, :, : t + 1], v=v[:, :, : t + 1])
        equal(one, whole[:, :, t : t + 1])


class Masked(torch.nn.Module):
    def forward(self, q, k, v, mask):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def masked(q, k, v, mask):
    args = (q, k, v, mask[None, None])
    return ree.compile(Masked(), args)(*args)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(128, 0, True), (0, 70, True), (256, 3, True), (64, 0, False), (129, 0, False)],
)
def test_padding_keeps_bits_if_it_moves_no_key_within_its_segment(left, right, same):
    n = 150
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(1, 2, n, 16, generator=generator) for _ in range(3))
    causal = torch.ones(n, n).bool().tril()
    alone = masked(q, k, v, causal)
    pads = [torch.randn(1, 2, p, 16, generator=generator) for p in (left, right)]
    q, k, v = (torch.cat([pads[0], t, pads[1]], 2) for t in (q, k, v))
    mask = torch.zeros(left + n + right, left + n + right).bool()
    mask[left : left + n, left : left + n] = causal
    padded = masked(q, k, v, mask)[:, :, left : left + n]
    torch.testing.assert_close(padded, alone)
    assert torch.equal(padded, alone) is same


@pytest.mark.parametrize(("dropped", "same"), [(128, True), (127, False), (200, False)])  # fmt: skip
def test_a_sliding_cache_keeps_bits_if_it_drops_whole_segments(dropped, same):
    """The last query of 300 sees 100 keys, over a cut at 256; a cache may still have others."""
    n, window = 300, 100
    q, k, v = (
        torch.randn(1, 2, n, 16, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    seen = torch.arange(n)[None] >= n - window
    whole = masked(q[:, :, -1:], k, v, seen)
    step = masked(q[:, :, -1:], k[:, :, dropped:], v[:, :, dropped:], seen[:, dropped:])
    torch.testing.assert_close(step, whole)
    assert torch.equal(step, whole) is same


class Special(torch.nn.Module):
    def forward(self, x, y):
        z = (x * y + x).exp() - y.abs().sqrt()
        return (
            torch.where(z > x, z, -x) * torch.nn.functional.gelu(x),
            x.amax(-1),
            (x / y).softmax(-1),
        )


PATTERNS = ("gaussian", "wide", "subnormal", "signed-zero", "infinity", "special", "nan")


@pytest.mark.parametrize("name", PATTERNS)
def test_fusion_on_hostile_values(name):
    from ree.kernels.samples import patterns

    x = dict(patterns((7, 131), 1))[name]
    y = dict(patterns((7, 131), 2))[name]
    program = ree.compile(Special(), (torch.zeros(7, 131), torch.zeros(7, 131)))
    runs = [program.run(x, y, isa=i, fuse=f).outputs for i in ISAS for f in (True, False)]
    want = interp.outputs(program.instance({}).graph, [x, y], ())
    for run in runs:
        for a, b in zip(run, want, strict=True):
            equal(a, b)


def set_flush(on: bool) -> None:
    """Set or clear FTZ and DAZ of this thread, as a library built with fast-math does on load."""
    assert torch.set_flush_denormal(on)


def test_a_thread_that_flushes_subnormals_is_corrected():
    class Scale(torch.nn.Module):
        def forward(self, x):
            return x * 0.5, x.sum(-1)

    program = ree.compile(Scale(), (torch.zeros(4, 100),))
    x = np.full((4, 100), 1e-39, np.float32)
    want = [np.asarray(o).copy() for o in program.run(x).outputs]
    assert want[0][0, 0] != 0
    try:
        set_flush(True)
        assert not _core.float_mode_is_clean()
        got = program.run(x, threads=2).outputs
        assert not _core.float_mode_is_clean()  # the caller's mode is the caller's
        for a, b in zip(got, want, strict=True):
            equal(a, b)
    finally:
        set_flush(False)


def test_a_program_compiled_where_subnormals_are_flushed():
    """Constants are folded with subnormals kept."""

    class Folded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("tiny", torch.tensor([3e-39, 1e-30]))

        def forward(self, x):
            return x + self.tiny * 0.5, torch.full((2,), 1e-30) * torch.full((2,), 1e-10)

    x, module = np.zeros(2, np.float32), Folded()
    program = ree.compile(module, (torch.zeros(2),))
    want = [np.asarray(o).copy() for o in program.run(x).outputs]
    assert want[0][0] != 0
    assert want[1][0] != 0
    try:
        set_flush(True)
        again = ree.compile(module, (torch.zeros(2),))
        assert again.program_hash == program.program_hash
        assert again.weights_root == program.weights_root
        for a, b in zip(again.run(x).outputs, want, strict=True):
            equal(a, b)
    finally:
        set_flush(False)


def test_inputs_with_the_negative_bit():
    """The imaginary part of a conjugate is a view of its negative."""

    class Double(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("shift", torch.complex(torch.ones(3), torch.ones(3)).conj().imag)

        def forward(self, x):
            return x + x + self.shift

    x = torch.complex(torch.zeros(3), torch.arange(3.0)).conj().imag
    assert x.is_neg()
    program = ree.compile(Double(), (x,))
    want = np.array([-1, -3, -5], np.float32)
    for given in (x, x.resolve_neg()):
        equal(np.asarray(program(given)), want)


def test_non_contiguous_and_torch_inputs():
    class Double(torch.nn.Module):
        def forward(self, x):
            return x + x

    program = ree.compile(Double(), (torch.zeros(3, 4),))
    x = torch.arange(24.0).view(4, 6)[:, ::2].t()
    assert not x.is_contiguous()
    out = program(x)
    assert isinstance(out, torch.Tensor)
    equal(out, (x + x).numpy())
    equal(program(np.asfortranarray(x.numpy())), (x + x).numpy())


def test_inputs_are_not_changed_and_nans_are_canonical():
    class Same(torch.nn.Module):
        def forward(self, x):
            return x.view(4), -x

    program = ree.compile(Same(), (torch.zeros(2, 2),))
    bits = np.array([0x7FC00001, 0xFFC00000, 0x3F800000, 0x80000000], np.uint32)
    x = bits.view(np.float32).reshape(2, 2)
    moved, negated = program(x)
    assert x.view(np.uint32).reshape(-1).tolist() == bits.tolist()
    assert moved.view(np.uint32).tolist() == [0x7FC00000, 0x7FC00000, 0x3F800000, 0x80000000]
    assert negated.view(np.uint32).reshape(-1).tolist() == [0x7FC00000, 0x7FC00000, 0xBF800000, 0]


def test_an_index_out_of_range_is_an_error_that_names_it():
    table = torch.nn.Embedding(10, 4)
    program = ree.compile(table, (torch.tensor([[1, 2]]),))
    for bad in (10, -1, 2**40):
        with pytest.raises(ree.errors.InputError, match=str(bad)):
            program(torch.tensor([[1, bad]]))
    program(torch.tensor([[0, 9]]))


def test_public_names_are_functions_whatever_was_imported_first():
    import ree.cli.commands  # imports submodules
    import ree.compilation
    import ree.verification

    for name in ree.__all__:
        assert callable(getattr(ree, name)) or name in ("optim", "random", "sampling"), name


def test_a_swapped_order_would_be_seen():
    """The comparison these tests make can fail: summing the other way round gives other bits."""
    from ree.kernels.numerics import contract

    a, b = np.random.default_rng(0).standard_normal((2, 8, 200)).astype(np.float32)
    assert contract(a, b).tobytes() != contract(a[:, ::-1], b[:, ::-1]).tobytes()


def test_what_follows_from_weights_alone_is_made_once():
    """Widened weights are no part of a run, and the bits are those of a traced run, which makes them."""
    model = torch.nn.Sequential(
        torch.nn.Linear(40, 30), torch.nn.GELU(), torch.nn.Linear(30, 5)
    ).bfloat16()
    x = torch.randn(3, 40).bfloat16()
    program = ree.compile(model, (x,))
    y = program(x)
    (executable,) = program.cpu.executables.values()
    origins = [o for c in executable.recipe.calls for o in c.origins if o.startswith("cast")]
    before, made = program.cpu._prelude(program)
    assert (
        len(before.values) == len(made) == len(before.stored) == 2
    )  # biases, and matrices, which are not made
    assert len(origins) < sum(n.op == "cast" for n in program.graph.nodes)
    traced = program.run(x, trace="ops").outputs[0]
    assert y.view(torch.int16).equal(traced.view(torch.int16))
    program = ree.compile(model, (x,))
    assert (
        program.run(x, fuse=False, isa="portable")
        .outputs[0]
        .view(torch.int16)
        .equal(y.view(torch.int16))
    )


NANS = np.array([0x7FC00001, 0xFFC00000, 0x7F800001, 0xFF812345], np.uint32).view(np.float32)
SHAPES = {  # the layer, its input
    "one row": (lambda: torch.nn.Linear(300, 40), (1, 300)),
    "rows": (lambda: torch.nn.Linear(150, 70), (33, 150)),
    "few channels": (lambda: torch.nn.Conv2d(4, 3, 3, padding=1), (2, 4, 9, 9)),
    "tiles": (lambda: torch.nn.Conv2d(5, 40, 3, padding=1), (2, 5, 9, 17)),
    "one by one": (lambda: torch.nn.Conv2d(5, 20, 1), (2, 5, 4, 9)),
    "depthwise": (lambda: torch.nn.Conv2d(20, 20, 3, groups=20), (2, 20, 9, 9)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("isa", ISAS)
def test_payloads_of_nans_do_not_pass_a_contraction(name, isa):
    """Inputs that only contractions read are not scanned for NaNs; traces hash the canonical ones."""
    make, shape = SHAPES[name]
    torch.manual_seed(0)
    x = torch.randn(shape)
    program = ree.compile(make().eval(), (x,))
    assert not scanned(program.graph)
    odd = x.numpy().copy()
    odd.reshape(-1)[np.random.default_rng(0).choice(odd.size, 4, replace=False)] = NANS
    usual = canonical_nan(odd)
    assert odd.tobytes() != usual.tobytes()
    want = program.run(usual, isa=isa, trace="io")
    for fuse in (True, False):
        assert (
            program.run(odd, isa=isa, fuse=fuse).outputs[0].tobytes() == want.outputs[0].tobytes()
        )
    assert program.run(odd, isa=isa, trace="io").trace.root == want.trace.root
