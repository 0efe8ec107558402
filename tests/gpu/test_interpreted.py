"""Every Triton kernel, interpreted with exact arithmetic: the same bytes as the reference."""

import os

import numpy as np
import pytest
import torch

import ree
from ree.compiler.audit import exact_triton as interpreter
from ree.compiler.ir import Builder, Kind, Ref
from ree.compiler.plan.planner import plan
from ree.conformance import cases, graph_of, program_of
from ree.errors import InputError, PlatformError
from ree.kernels import macro, opdef, registry
from ree.kernels.gpu import contraction as contraction_triton
from ree.kernels.gpu.launch import PANEL, SCRATCH, Ptr, kernel_call, table
from ree.kernels.opdef import Sample
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.runtime.gpu_device import find_device
from ree.runtime.gpu_executable import typed
from ree.traces.tensor import body_root

find_device("interpret")


def same(a, b, where):
    assert a.dtype == b.dtype, where
    assert a.shape == b.shape, where
    assert a.tobytes() == b.tobytes(), where


EVERY = "REE_EVERY_SAMPLE" in os.environ  # of `make exhaustive`: minutes more
PATTERNS = ("gaussian", "wide", "subnormal", "signed-zero", "infinity", "special", "nan",
            "any", "ends", "least", "opposite")  # fmt: skip
LARGE = 4096  # elements: special values are interpreted one by one


def chosen(samples):
    """Which samples are interpreted: all of the first shape, of the others one pattern of values, and where
    they are small another, which has every special value. What becomes of a value hangs on no shape, nor
    where is read on values."""
    first = next((n.rpartition("/")[0] for n in samples if n.endswith(PATTERNS)), "")

    def is_chosen(n, elements):
        return (
            not n.endswith(PATTERNS)
            or n.rpartition("/")[0] == first
            or n.endswith(("gaussian", "least"))
            or (n.endswith("special") and elements <= LARGE)
        )

    return {n for n, elements in samples.items() if EVERY or is_chosen(n, elements)}


def test_samples_that_are_chosen():
    names = ["0/gaussian", "0/nan", "1/gaussian", "1/nan", "1/special", "1/wide", "ties"]
    got = chosen(dict.fromkeys(names, 9) | {"2/special": 9999, "2/any": 9, "2/least": 9999})
    left = {"1/nan", "1/wide", "2/special", "2/any"}
    assert got - left == {"0/gaussian", "0/nan", "1/gaussian", "1/special", "ties", "2/least"}
    assert EVERY or got.isdisjoint(left)


@pytest.mark.parametrize("op", registry.names())
def test_operators(op):
    wanted = chosen({s.name: sum(x.size for x in s.inputs) for s in opdef.get(op).samples()})
    for sample in opdef.get(op).samples():
        if sample.name in wanted:
            got = program_of(graph_of(op, sample)).run(*sample.inputs, device="interpret").outputs
            expected = opdef.apply(op, sample.inputs, sample.attrs)
            for x, want in zip(got, expected, strict=True):
                same(x, want, (op, sample.name))


def drawn(sample):
    program = program_of(graph_of("sample", sample))
    got = program.run(*sample.inputs, device="interpret").outputs
    same(got[0], program.run(*sample.inputs).outputs[0], sample.name)
    return program


@pytest.mark.parametrize(
    "name", ["18x1", "18x129", "ties", "masked", "NaN", "+inf", "subnormal", "no rows"]
)
def test_a_drawn_token(name):
    drawn(next(s for s in macro.get("sample").samples() if s.name == name))


@pytest.mark.parametrize("seed", range(4))
def test_a_token_drawn_of_several_blocks(seed):
    rng = np.random.default_rng(seed)
    logits = [rng.standard_normal((2, 2500)) * 3, rng.integers(-3, 3, (2, 1025))][seed % 2]
    few, share = rng.integers(2, 1000, 2), rng.random(2, np.float32)
    given = (np.full(2, 0.8, np.float32), share, np.zeros(2, np.float32), few)
    numbers = rng.integers(0, 2**40, (3, 2))
    program = drawn(Sample("blocks", (logits.astype(np.float32), *given, *numbers)))
    (executable,) = program._devices["interpret"].executables.values()
    assert [c.kernel for c in executable.recipe.calls] == ["sample"]


def test_every_kernel_name_has_a_gpu_form():
    used = set()
    for op in registry.names():
        for case in cases(op):
            graph = case.program.instance(case.program.bind_symbols(case.sample.inputs)).graph
            used |= {c.kernel for c in plan(graph, panel=PANEL, hash_values=True).calls}
    packed = linear_gelu(2, 3, 4, packed=True)[0].graph
    used |= {c.kernel for c in plan(packed, panel=PANEL).calls}
    assert used <= set(table())
    assert used >= {"gemm", "bmm", "tile", "softmax", "attention", "tree_hash"}


def linear_gelu(m, k, n, packed, seed=1):
    """x W + b, gelu, + x2, and its inputs: a contraction with an epilogue that reads a row, a vector and
    a matrix. W is a weight, packed at load, or an input."""
    rng = np.random.default_rng(seed)
    b = Builder()
    x, bias, more = (b.input(TensorType(DType.F32, s)) for s in ((m, k), (n,), (m, n)))
    arrays = [rng.standard_normal(s, np.float32) for s in ((m, k), (n,), (m, n), (n, k))]
    w = (b.weight if packed else b.input)(TensorType(DType.F32, (n, k)))
    y = b.add("linear", x, w)
    y = b.add("add", b.add("gelu", b.add("add", y, bias)), more)
    graph, inputs = b.finish((y,)), ("x", "bias", "more", "w")[: 3 + (not packed)]
    names = Names(inputs, ("y",), ("w",) if packed else ())
    return Program(graph, names, arrays[3:] if packed else ()), arrays[: len(inputs)]


# gemv, split segments, whole chains with clamped edges, a K that ends in the middle of a segment
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 300, 150), (7, 256, 40), (40, 400, 130), (65, 72, 129)]
)
def test_contraction_schedules_with_epilogue(m, k, n, packed):
    program, inputs = linear_gelu(m, k, n, packed, seed=m)
    for fuse in (True, False):
        (want,) = program.run(*inputs, fuse=fuse).outputs
        (got,) = program.run(*inputs, fuse=fuse, device="interpret").outputs
        same(got, want, (m, k, n, fuse))


@pytest.mark.parametrize("size", [(128, 128, 8), (128, 64, 8), (64, 64, 4), (16, 32, 4)])
def test_tile_sizes_do_not_change_bits(size, monkeypatch):
    monkeypatch.setattr(contraction_triton, "tile_size", lambda m, n, count: size)
    monkeypatch.setattr(contraction_triton, "FILL", 0)
    program, inputs = linear_gelu(33, 200, 70, packed=True)
    (want,) = program.run(*inputs).outputs
    (got,) = program.run(*inputs, device="interpret").outputs
    same(got, want, size)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 300, 150), (40, 130, 33), (65, 72, 129)])
def test_a_contraction_of_bytes_with_epilogue(m, k, n, packed):
    """Scales and a bias on totals that only the group reads, or that are an output as well."""
    rng = np.random.default_rng(m)
    for kept in (True, False):
        b = Builder()
        x, step, scale = (
            b.input(t) for t in (TensorType(DType.I8, (m, k)), TensorType(DType.F32, (m, 1)),
                                 TensorType(DType.F32, (n,)))
        )  # fmt: skip
        w = (b.weight if packed else b.input)(TensorType(DType.I8, (n, k)))
        total = b.add("linear_i8", x, w)
        y = b.add("mul", b.add("mul", b.add("cast", total, dtype=DType.F32), step), scale)
        arrays = [rng.integers(-128, 128, s).astype(np.int8) for s in ((m, k), (n, k))]
        rest = [rng.standard_normal(s, np.float32) for s in ((m, 1), (n,))]
        graph, names = b.finish((y, total) if kept else (y,)), ("x", "step", "scale", "w")
        program = Program(graph, Names(names[: 4 - packed], ("y", "t")[: 1 + kept], names[3:] * packed),
                          arrays[1:] * packed)  # fmt: skip
        inputs = [arrays[0], *rest, *arrays[1:]][: 4 - packed]
        for fuse in (True, False):
            want = program.run(*inputs, fuse=fuse).outputs
            got = program.run(*inputs, fuse=fuse, device="interpret").outputs
            for a, c in zip(got, want, strict=True):
                same(a, c, (m, k, n, kept, fuse))


class Block(torch.nn.Module):
    """Embedding, norm, attention, MLP, softmax head."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.qkv = torch.nn.Linear(32, 96)
        self.up, self.down = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)

    def forward(self, ids):
        x = self.table(ids)
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, 2, 16).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + y.transpose(1, 2).reshape(b, t, 32)
        x = x + self.down(torch.nn.functional.gelu(self.up(x)))
        return torch.softmax(x @ self.table.weight.T, -1)


def block_of(length):
    torch.manual_seed(0)
    return ree.compile(Block().eval(), {"ids": torch.arange(length).view(1, length) % 50})


@pytest.fixture(scope="module")
def block():
    return block_of(5)


def test_a_model_has_the_same_bits():
    block = block_of(132)  # more than a segment of keys
    got = block.run(**block.examples, device="interpret")
    same(got.outputs[0], block.run(**block.examples).outputs[0], "output")


def test_a_model_has_the_same_io_root(block):
    roots = {
        d: block.run(**block.examples, trace="io", device=d).trace.root
        for d in ("cpu", "interpret")
    }
    assert roots["cpu"] == roots["interpret"]


def test_an_ops_trace_is_verified():
    """Of one operator: a hash that is interpreted takes seconds."""
    b = Builder()
    x = b.input(TensorType(DType.F32, (2, 3)))
    program = Program(b.finish((b.add("softmax", x, dim=1),)), Names(("x",), ("y",), ()), ())
    inputs = [np.arange(6, dtype=np.float32).reshape(2, 3)]
    want = program.run(*inputs, trace="ops")
    assert ree.verify(program, want.trace, inputs, device="interpret").same


def test_torch_tensors_come_back_as_torch(block):
    ids = torch.from_numpy(block.examples["ids"])
    out = block.run(ids, device="interpret").outputs[0]
    assert isinstance(out, torch.Tensor)


def test_an_index_out_of_range_is_an_error(block):
    for bad in (-1, 50):
        ids = block.examples["ids"].copy()
        ids[0, 3] = bad
        with pytest.raises(InputError, match="out of range"):
            block.run(ids, device="interpret")
    block.run(**block.examples, device="interpret")  # and the flag is cleared


class Writes(torch.nn.Module):
    """All ways of writing at an index."""

    def forward(self, x, i):
        rows = x.index_put((i,), x[0]).index_add(0, i.abs(), x[:2])
        return rows.scatter(0, i[:, None], x[:2, :1]).scatter_add(1, i[None], x[:1, :2])


def test_a_write_out_of_range_is_an_error():
    good = torch.tensor([0, 2])
    x = torch.arange(12.0).view(3, 4)
    program = ree.compile(Writes().eval(), (x, good))
    want = program.run(x, good).outputs[0]
    same(program.run(x, good, device="interpret").outputs[0].numpy(), want.numpy(), "writes")
    for bad in (torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([-4, 0])):
        for device in ("cpu", "interpret"):
            with pytest.raises(InputError, match=r"out of range|not in \["):
                program.run(x, bad, device=device)


@pytest.mark.parametrize("n", [0, 3, 512, 513, 5 * 512 - 1, 40 * 512 + 77])
def test_tree_hash(n):
    x = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)
    call = kernel_call("tree_hash", data=0, root=1, bytes=n)
    table()["tree_hash"](call)
    # what lies behind the data must not be read
    memory = {0: torch.from_numpy(np.concatenate([x, np.full(64, 7, np.uint8)])),
              1: torch.full((32,), 9, dtype=torch.uint8),
              SCRATCH: torch.full((max(call.scratch, 64),), 5, dtype=torch.uint8)}  # fmt: skip
    with np.errstate(all="ignore"):
        for launch in call.launches:
            args = [typed(memory[a.slot], a) if isinstance(a, Ptr) else a for a in launch.args]
            launch.kernel[launch.grid](*args, **launch.options())
    assert bytes(memory[1].numpy()) == body_root(x)


def test_a_dot_in_another_order_is_seen(monkeypatch):
    """The check can fail: np.matmul's order, and two roundings for an fma, change bytes."""
    program, inputs = linear_gelu(12, 200, 9, packed=True)
    (want,) = program.run(*inputs).outputs

    def run():
        return program.run(*inputs, device="interpret").outputs[0]

    assert run().tobytes() == want.tobytes()
    with monkeypatch.context() as m:
        m.setattr(interpreter, "dot", lambda a, b, c: np.matmul(a, b) + c)
        assert run().tobytes() != want.tobytes()
    b = Builder()
    gelu = program_of(
        b.finish((b.add_node("gelu", (b.input(TensorType(DType.F32, (4096,))),), {}).value,))
    )
    x = np.random.default_rng(3).standard_normal(4096, np.float32)
    with monkeypatch.context() as m:
        m.setattr(interpreter, "fma", lambda a, b, c: np.float32(a) * np.float32(b) + c)
        rounded_twice = gelu.run(x, device="interpret").outputs[0]
    assert rounded_twice.tobytes() != gelu.run(x).outputs[0].tobytes()


def test_exact_fma_is_exact():
    """Against integers: a product and a sum of small integers scaled so that float32 must round."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-(2**24), 2**24, 1000) for _ in range(2))
    c = rng.integers(-(2**50), 2**50, 1000) >> rng.integers(0, 50, 1000)
    c = (c.astype(np.float32)).astype(np.float64).astype(np.int64)
    got = interpreter.fma(*(x.astype(np.float32) for x in (a, b, c)))
    for x, y, z, r in zip(a.tolist(), b.tolist(), c.tolist(), got.tolist(), strict=True):
        assert r == nearest(x * y + z), (x, y, z)


def nearest(n):
    """float32 nearest to an integer, half to even."""
    drop = max(abs(n).bit_length() - 24, 0)
    q, r = divmod(abs(n), 1 << drop)
    half = (1 << drop) / 2
    q += r > half or (r == half and drop > 0 and q % 2 == 1)
    return float(q << drop) * (1 if n >= 0 else -1)


def test_no_device():
    if not torch.cuda.is_available():
        with pytest.raises(PlatformError, match="no CUDA device"):
            find_device("cuda")
    with pytest.raises(PlatformError, match="expected cpu, cuda"):
        find_device("tpu")


@pytest.mark.filterwarnings(
    "ignore:Sparse CSR:UserWarning", "ignore:The PyTorch API of nested:UserWarning"
)
@pytest.mark.parametrize("given", ["meta", "coo", "csr", "nested", "vmap", "float64"])
def test_tensors_without_dense_data_are_refused_as_on_the_cpu(given):
    x = torch.ones(3, 4)
    made = {"meta": lambda: x.to("meta"), "coo": x.to_sparse, "csr": x.to_sparse_csr, "vmap": lambda: x[None],
            "nested": lambda: torch.nested.nested_tensor([*x]), "float64": x.double}[given]()  # fmt: skip
    program = ree.compile(torch.nn.Tanh(), (x,))
    for device in ("cpu", "interpret"):

        def run(v, device=device):
            return program.run(v, device=device).value

        with pytest.raises(InputError, match="input 'input': expected "):
            torch.func.vmap(run)(made) if given == "vmap" else run(made)


def test_graph_of_is_one_node():
    case = next(iter(opdef.get("add").samples()))
    graph = graph_of("add", case)
    assert [n.op for n in graph.nodes] == ["add"]
    assert graph.outputs == (Ref(Kind.VALUE, 0),)
