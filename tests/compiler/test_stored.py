"""Matrices that a program keeps narrow: which are recognised, and that reading them so changes no bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ree
from ree import _core
from ree.compiler.plan.stored import stored_matrices
from ree.kernels.constants import STORED_BF16, STORED_F16, STORED_I8

N, BLOCKS, BLOCK = 70, 3, 32


class Product(torch.nn.Module):
    """x times a matrix in blocks; `write` says how it is written."""

    def __init__(self, write, block=BLOCK, dtype=torch.int8):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        whole = torch.randint(-128, 128, (N, BLOCKS, block), generator=g).to(dtype)
        self.q = torch.nn.Parameter(whole, requires_grad=False)
        self.scale = torch.nn.Parameter(torch.randn(N, BLOCKS, 1, generator=g))
        self.offset = torch.nn.Parameter(torch.randn(N, BLOCKS, 1, generator=g))
        self.write = write

    def forward(self, x):
        return torch.nn.functional.linear(x, self.write(self).reshape(N, -1))


def compiled(module, width=BLOCKS * BLOCK, rows=3):
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(1))
    return ree.compile(module.eval(), (x,)), x


def same_on_all(program, x):
    """A traced run, which makes the matrix, and runs that read it as it is kept."""
    want = program.run(x, trace="ops").outputs[0].numpy()
    for isa in _core.isa_names():
        got = program.run(x, isa=isa).outputs[0].numpy()
        assert got.tobytes() == want.tobytes(), isa
    return want


@pytest.mark.parametrize("has_offset", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 30])
def test_blocks_are_read_as_they_are_kept(has_offset, rows):
    program, x = compiled(Product(lambda m: m.q.float() * m.scale + m.offset if has_offset
                                  else m.q.float() * m.scale), rows=rows)  # fmt: skip
    (stored,) = stored_matrices(program.graph).values()
    assert (stored.storage, stored.block, stored.offset is not None) == (
        STORED_I8,
        BLOCK,
        has_offset,
    )
    y = same_on_all(program, x)
    m = Product(None)
    w = m.q.double() * m.scale.double() + (m.offset.double() if has_offset else 0)
    close = x.double() @ w.reshape(N, -1).T
    assert np.abs(y - close.detach().numpy()).max() < 0.05
    # nothing of float32 size was made of the elements
    executable = program.cpu.executable(program, {}, _core.isa_names()[0])
    assert {p.element_bytes for p in executable.recipe.packings} == {1, 4}
    assert sum(p.bytes(1) for p in executable.recipe.packings) < N * BLOCKS * BLOCK * 2


@pytest.mark.parametrize(
    ("dtype", "storage"), [(torch.bfloat16, STORED_BF16), (torch.float16, STORED_F16)]
)
def test_half_precision_is_read_as_it_is_kept(dtype, storage):
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            bits = torch.arange(-32768, 32768, dtype=torch.int16)[::7][: 90 * 100].reshape(90, 100)
            self.w = torch.nn.Parameter(
                bits.view(dtype), requires_grad=False
            )  # NaN and infinities too

        def forward(self, x):
            return torch.nn.functional.linear(x, self.w.float())

    program, x = compiled(Half(), 100)
    (stored,) = stored_matrices(program.graph).values()
    assert stored.storage == storage
    same_on_all(program, x)


@pytest.mark.parametrize("write", [
    lambda m: m.offset + m.q.float() * m.scale,  # the same sum, but not written so
    lambda m: (m.q.float() + m.offset) * m.scale,
    lambda m: m.q.float() * m.scale - m.offset,
    lambda m: m.q.float() * m.scale * 2,
    lambda m: (m.q.float() * m.scale).permute(1, 0, 2),
    lambda m: m.q.bool().float() * m.scale,
    lambda m: m.q.float() * (m.scale + 1),
    lambda m: m.q.float() * m.scale[:1],
])  # fmt: skip
def test_what_is_written_otherwise_is_made_at_load(write):
    program, x = compiled(Product(write))
    assert not stored_matrices(program.graph)
    same_on_all(program, x)


def test_a_matrix_that_is_read_otherwise_too_is_made():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Product(lambda m: m.q.float() * m.scale)

        def forward(self, x):
            w = (self.inner.q.float() * self.inner.scale).reshape(N, -1)
            return torch.nn.functional.linear(x, w) + w.sum()

    program, x = compiled(Twice())
    assert not stored_matrices(program.graph)
    same_on_all(program, x)


@pytest.mark.parametrize("block", [5, 48, 256])
def test_blocks_that_do_not_divide_a_segment_are_made_at_load(block):
    program, x = compiled(Product(lambda m: m.q.float() * m.scale, block), BLOCKS * block)
    assert not stored_matrices(program.graph)
    same_on_all(program, x)


def test_a_table_that_is_multiplied_by_is_kept_once():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = Product(lambda m: m.q.float() * m.scale)

        def forward(self, tokens):
            q = torch.nn.functional.embedding(tokens, self.p.q.reshape(N, -1)).float()
            scale = torch.nn.functional.embedding(tokens, self.p.scale.reshape(N, -1))
            x = q.reshape(*tokens.shape, BLOCKS, BLOCK) * scale[..., None]
            return self.p(x.reshape(*tokens.shape, -1))

    tokens = torch.tensor([[0, 5, N - 1]])
    program = ree.compile(Tied().eval(), (tokens,))
    want = program.run(tokens, trace="ops").outputs[0]
    sibling = program.sibling(program.graph, program.names)
    assert sibling.run(tokens).outputs[0].equal(want)
    executable = next(iter(sibling.cpu.executables.values()))
    assert not executable._weights  # every weight that is read lies in panels
    assert program.weights_root == ree.compile(Tied().eval(), (tokens,)).weights_root


@pytest.mark.parametrize("rows", [1, 3, 12])
@pytest.mark.parametrize("form", ["i8", "offset", "bf16", "f16"])
def test_a_gpu_reads_what_is_kept(rows, form):
    pytest.importorskip("triton")

    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            w = torch.randn(40, 272, generator=torch.Generator().manual_seed(0))
            self.w = torch.nn.Parameter(
                w.to({"bf16": torch.bfloat16, "f16": torch.float16}[form]), False
            )

        def forward(self, x):
            return torch.nn.functional.linear(x, self.w.float())

    if form in ("i8", "offset"):
        module, width = (
            Product(lambda m: m.q.float() * m.scale + (m.offset if form == "offset" else 0), 128),
            384,
        )
        if form == "i8":
            module.write = lambda m: m.q.float() * m.scale
    else:
        module, width = Half(), 272
    program, x = compiled(module, width, rows)
    want = program.run(x, isa="portable").outputs[0].numpy()
    got = program.run(x, device="interpret").outputs[0].numpy()
    assert got.tobytes() == want.tobytes()
    (executable,) = program._devices["interpret"].executables.values()
    assert {p.element_bytes for p in executable.recipe.packings} <= {1, 2, 4}
    assert {c.kernel for c in executable.recipe.calls} == {"gemm"}  # nothing was widened before
