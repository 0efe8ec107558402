"""What only a real GPU can show. Elsewhere these are reported as skipped, with the reason."""

import numpy as np
import pytest
import torch

import ree
from ree.compiler.ir import Builder
from ree.conformance import model_program, program_of
from ree.errors import InputError, PlatformError
from ree.kernels.types import DType, TensorType

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="not run: no CUDA device here"
)


def linear(m, k, n):
    b = Builder()
    x, w = (b.input(TensorType(DType.F32, s)) for s in ((m, k), (n, k)))
    return program_of(b.finish((b.add_node("linear", (x, w), {}).value,)))


@pytest.mark.parametrize(("m", "k", "n"), [(1, 4096, 512), (1000, 300, 777), (2048, 1024, 1024)])
def test_large_contractions(m, k, n):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s, np.float32) for s in ((m, k), (n, k)))
    program = linear(m, k, n)
    assert (
        program.run(x, w, device="cuda").outputs[0].tobytes()
        == program.run(x, w).outputs[0].tobytes()
    )


def test_traces_and_recorded_graphs():
    """The second and third run replay a CUDA graph: same root, and new inputs are seen."""
    program = model_program()
    for level in ("io", "ops"):
        want = program.run(**program.examples, trace=level).trace.root
        for _ in range(3):
            assert program.run(**program.examples, trace=level, device="cuda").trace.root == want
    other = {**program.examples, "input_ids": program.examples["input_ids"][:, ::-1].copy()}
    want = program.run(**other).outputs[0]
    assert program.run(**other, device="cuda").outputs[0].tobytes() == want.tobytes()


def test_cuda_tensors_stay_on_the_device():
    program = linear(4, 8, 3)
    x, w = torch.randn(4, 8), torch.randn(3, 8)
    out = program.run(x.cuda(), w.cuda()).outputs[0]
    assert out.is_cuda
    assert torch.equal(out.cpu().view(torch.int32), program.run(x, w).outputs[0].view(torch.int32))


def test_torch_compile_on_cuda():
    from ree.integrations.torch_backend import ree as backend

    torch.manual_seed(0)
    m = torch.nn.Sequential(torch.nn.Linear(40, 24), torch.nn.GELU(), torch.nn.LayerNorm(24)).eval()
    x = torch.randn(3, 40)
    want = ree.compile(m, (x,))(x)
    with torch.no_grad():
        got = torch.compile(m.cuda(), backend=backend)(x.cuda())
    assert torch.equal(got.cpu().view(torch.int32), want.view(torch.int32))


def test_errors():
    program = model_program()
    with pytest.raises(PlatformError, match="expected an index below"):
        program.run(**program.examples, device="cuda:99")
    bad = {**program.examples, "input_ids": program.examples["input_ids"] + 10**6}
    with pytest.raises(InputError, match="out of range"):
        program.run(**bad, device="cuda")
