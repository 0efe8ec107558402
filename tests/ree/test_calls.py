"""Calls without Python between their ends: the bytes of the ordinary run, and what goes the ordinary way."""

import gc
import os
import threading
import weakref

import numpy as np
import pytest
import torch

import ree
from ree import _core
from ree.errors import InputError
from ree.runtime import settings


class Two(torch.nn.Module):
    """Results of two types and shapes, from an input that is scanned, one that is not, and integers."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 5)

    def forward(self, x, y, i):
        return {"a": torch.softmax(x, -1) + y.T, "b": (self.layer(x) > i, i + 1)}


def inputs(n=4):
    g = torch.Generator().manual_seed(n)
    return torch.randn(n, 6, generator=g), torch.randn(6, n, generator=g), torch.arange(5)


def flat(value):
    return [value["a"], *value["b"]]


def raw(tensors):
    return [(t.dtype, t.shape, t.numpy(force=True).tobytes()) for t in tensors]


def make():
    torch.manual_seed(0)
    n = torch.export.Dim("n", min=2, max=40)
    return ree.compile(Two().eval(), inputs(), ({0: n}, {1: n}, {}))


@pytest.fixture
def program():
    return make()


def taken(program, *values):
    """Whether the call alone serves these values."""
    return program.cpu.quick is not None and program.cpu.quick(list(values)) is not None


def test_the_bytes_of_an_ordinary_run(program):
    for n in (4, 4, 9, 9, 4, 4):
        values = inputs(n)
        want = raw(program.run(*values).outputs)
        assert raw(flat(program(*values))) == want
        assert taken(program, *values)
        assert raw(flat(program(*values))) == want
    assert not taken(program, *inputs(9))  # the call is of the last shape


def test_outputs_are_memory_of_their_own(program):
    x, y, i = inputs()
    program(x, y, i)
    first = program(x, y, i)
    before = raw(flat(first))
    second = program(x + 1, y, i)
    assert raw(flat(first)) == before
    second["a"].fill_(0)
    assert raw(flat(program(x, y, i))) == before
    del first, program
    gc.collect()
    assert second["a"].sum() == 0
    assert second["a"].data_ptr() % 64 == 0


def test_what_lies_or_reads_otherwise_goes_the_ordinary_way(program):
    x, y, i = inputs()
    want = raw(flat(program(x, y, i)))
    assert taken(program, x, y, i)
    wide = torch.zeros(4, 12)
    wide[:, ::2] = x
    negated = torch.complex(x, -x).conj().imag
    assert negated.is_neg()
    assert negated.is_contiguous() is False
    dense = torch.complex(torch.zeros(()), -x[0, 0]).conj().imag.reshape(1, 1)
    assert dense.is_neg()
    others = {
        "strided": (wide[:, ::2], y, i), "negated": (negated, y, i),
        "an array": (x.numpy(), y, i), "a list": (x.tolist(), y, i),
        "transposed": (x, y.T.contiguous().T, i), "a parameter": (torch.nn.Parameter(x), y, i),
    }  # fmt: skip
    for name, values in others.items():
        assert not taken(program, *values), name
        assert raw(flat(program(*values))) == want, name
    assert taken(program, x.clone().requires_grad_(), y, i)
    for bad in ((x.double(), y, i), (x, y, i.int()), (x[:3], y, i), (x, y), (x, y, i[None]),
                (x.to("meta"), y, i), (x.to_sparse(), y, i), (None, y, i)):  # fmt: skip
        assert not taken(program, *bad)
        with pytest.raises(InputError):
            program(*bad)


def test_a_negative_view_of_contiguous_memory():
    class Double(torch.nn.Module):
        def forward(self, x):
            return x * 2

    x = torch.ones(1, 1)
    program = ree.compile(Double(), (x,))
    program(x)
    negated = torch.complex(torch.zeros(1, 1), -x).conj().imag
    assert negated.is_neg()
    assert not taken(program, negated)
    assert program(negated).item() == 2.0 * negated.item() == 2.0


def test_tensors_that_have_no_memory():
    x, program = torch.ones(2, 3), ree.compile(torch.nn.ReLU(), (torch.ones(2, 3),))
    program(x)
    assert taken(program, x)
    zeros = torch._efficientzerotensor(2, 3)
    assert not taken(program, zeros)
    assert raw([program(zeros)]) == raw([torch.zeros(2, 3)])
    for transformed in (torch.func.functionalize(program), torch.func.functionalize(program.run),
                        torch.vmap(program), torch.func.grad(lambda x: program(x).sum())):  # fmt: skip
        program(x)
        with pytest.raises(InputError, match="a tensor without data"):
            transformed(x)
    assert raw([program(x)]) == raw([x])


def test_nans_of_a_scanned_input_are_canonical():
    class Turned(torch.nn.Module):
        def forward(self, x):
            return x.flip(0)

    bits = torch.tensor([0x7FC00001, -0x400000, 0x3F800000, 0], dtype=torch.int32)
    x = torch.ones(4)
    program = ree.compile(Turned(), (x,))
    program(x)
    assert taken(program, x)
    assert not taken(program, bits.view(torch.float32))
    got = program(bits.view(torch.float32)).view(torch.int32)
    assert got.tolist() == [0, 0x3F800000, 0x7FC00000, 0x7FC00000]


def test_an_index_out_of_range_is_said_as_ever():
    class Rows(torch.nn.Module):
        def forward(self, x, i):
            return x[i]

    x, i = torch.randn(5, 3), torch.tensor([0, 4])
    program = ree.compile(Rows(), (x, i))
    program(x, i)
    assert taken(program, x, i)
    with pytest.raises(InputError) as quick:
        program(x, i + 1)
    with pytest.raises(InputError) as usual:
        program.run(x, i + 1)
    assert str(quick.value) == str(usual.value)
    assert torch.equal(program(x, i), x[i])


def test_settings_are_read_at_every_call(program, monkeypatch):
    values = inputs()
    want = raw(flat(program(*values)))
    assert taken(program, *values)
    for name, value in (("REE_FORCE_ISA", "portable"), ("REE_NUM_THREADS", "3")):
        with monkeypatch.context() as m:
            m.setenv(name, value)
            assert not taken(program, *values)
            assert raw(flat(program(*values))) == want
            assert taken(program, *values)
        assert not taken(program, *values)
        assert raw(flat(program(*values))) == want
    with monkeypatch.context() as m:
        m.setenv("REE_FORCE_ISA", "none")
        with pytest.raises(ree.ReeError, match="REE_FORCE_ISA"):
            program(*values)


def test_several_threads_at_once(program, monkeypatch):
    values = inputs(30)
    want = raw(flat(program(*values)))
    wrong = []

    def work():
        for _ in range(200):
            if raw(flat(program(*values))) != want:
                wrong.append(1)

    for n in ("1", "2"):
        monkeypatch.setenv("REE_NUM_THREADS", n)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(program, monkeypatch):
    monkeypatch.setenv("REE_NUM_THREADS", "2")
    values = inputs()
    want = raw(flat(program(*values)))
    assert taken(program, *values)
    pid = os.fork()
    if pid == 0:
        same = not taken(program, *values) and raw(flat(program(*values))) == want
        os._exit(0 if same else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert taken(program, *values)


def test_a_call_goes_with_its_program():
    program, values = make(), inputs()
    program(*values)
    executable = weakref.ref(next(iter(program.cpu.executables.values())))
    assert program.cpu.quick is not None
    del program
    gc.collect()
    assert executable() is None


def test_slots_that_are_not_there_are_refused():
    plan, pool, end = _core.Plan("portable"), settings.pool(1), (2, 32, False, (4,), [(0, 0)])
    for bad in ([(1, 0)], [(-1, 0)], [(0, -4)]):
        with pytest.raises(ValueError, match="slot"):
            _core.Call(plan, pool, torch.Tensor, [(*end[:4], bad)], [], [0], [], False, ())
    with pytest.raises(AttributeError):
        _core.Call(plan, pool, np.ndarray, [end], [], [0], [], False, ())
