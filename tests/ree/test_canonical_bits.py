"""Every NaN has one pattern, and every bool is 0 or 1, before anything hashes or uses it."""

import json

import numpy as np
import pytest

from ree import _core
from ree.artifact import load, save
from ree.compiler import legal
from ree.compiler.interp import outputs
from ree.compiler.ir import Builder, Const
from ree.conformance import cases
from ree.errors import ArtifactError, RunError
from ree.files.safetensors import read_tensors, write_tensors
from ree.kernels import opdef, registry
from ree.kernels.canonical import canonical, is_canonical
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.runtime.cpu import scanned
from ree.verde.party import run_of
from ree.verde.scope import INPUTS
from ree.verde.service import make_service

# bits with a payload or a sign, and the pattern that stands for them
ODD = {
    DType.F32: (np.uint32, [0x7FC12345, 0xFFC00000, 0x7F800001], 0x7FC00000),
    DType.F16: (np.uint16, [0x7E01, 0xFE00, 0x7C01], 0x7E00),
    DType.BF16: (np.uint16, [0x7FC1, 0xFFC0, 0x7F81], 0x7FC0),
    DType.BOOL: (np.uint8, [2, 255, 3], 1),
}


def _odd(d):
    bits, odd, _ = ODD[d]
    return np.array([*odd, 0], bits).view(d.numpy)


def _flipped(d):
    b = Builder()
    x = b.input(TensorType(d, (4,)))
    return Program(b.finish((b.add("flip", x, dim=0),)), Names(("x",), ("y",), ()), ())


@pytest.mark.parametrize("d", ODD)
def test_one_pattern(d):
    bits, odd, one = ODD[d]
    x = _odd(d)
    y = canonical(x)
    assert y.dtype == d.numpy
    assert y.view(bits).tolist() == [one] * len(odd) + [0]
    assert canonical(y) is y
    assert is_canonical(y)
    assert not is_canonical(x)
    assert is_canonical(canonical(x.reshape(2, 2)[:, ::-1]))
    infinite = np.array([np.inf, -np.inf, 0, -0.0], np.float32)
    assert canonical(infinite) is infinite


@pytest.mark.parametrize("d", ODD)
def test_runs_parties_and_facts_have_the_same_inputs(d):
    p, x = _flipped(d), _odd(d)
    bits, _, one = ODD[d]
    assert p.run(x).outputs[0].view(bits).tolist() == [0, one, one, one]
    run, _ = run_of(p, [x])
    assert is_canonical(run.arrays[INPUTS][0])
    clean = canonical(x)
    assert run.arrays[INPUTS][0].tobytes() == clean.tobytes()
    given = make_service(p, {"x": x}).terms, make_service(p, {"x": clean}).terms
    assert given[0] == given[1]
    settlement = pytest.importorskip("ree.settlement.work")
    facts, want = (settlement.call_facts(p, {"x": v}) for v in (x, clean))
    assert facts == want
    assert {c() for c in settlement.independent(p, {"x": x})} == {
        c() for c in settlement.independent(p, {"x": clean})
    }


@pytest.mark.parametrize("d", ODD)
@pytest.mark.parametrize("copies", [1, 40])  # in the graph's text; in a file beside it
def test_constants_of_other_bits_are_refused(d, copies, tmp_path):
    raw = np.tile(_odd(d), copies)
    t = TensorType(d, raw.shape)
    for c in (Const(t, raw.tobytes()), raw):
        b = Builder()
        g = b.finish((b.add("flip", b.const(c), dim=0),))
        if not isinstance(c, Const):
            assert is_canonical(g.consts[0].array())
            legal.check(g)
            continue
        with pytest.raises(legal.IllegalGraph, match="constant @c0: its bits are not canonical"):
            legal.check(g)
        if d is DType.BOOL and copies > 1:
            with pytest.raises(ValueError, match="bool: expected bytes 0 or 1"):
                g.program_hash()
            continue
        save(Program(g, Names((), ("y",), ()), ()), tmp_path / "a.ree")
        with pytest.raises(ArtifactError, match="constant @c0: its bits are not canonical"):
            load(tmp_path / "a.ree")


@pytest.mark.parametrize("d", ODD)
def test_weights_and_files_of_other_bits(d, tmp_path):
    b = Builder()
    w = b.weight(TensorType(d, (4,)))
    g = b.finish((b.add("flip", w, dim=0),))
    p, names = Program(g, Names((), ("y",), ("w",)), (_odd(d),)), Names((), ("y",), ("w",))
    assert is_canonical(p.weights[0])
    assert p.weights_root == Program(g, names, (canonical(_odd(d)),)).weights_root
    assert p.run().outputs[0].tobytes() == outputs(g, [], p.weights)[0].tobytes()
    write_tensors(tmp_path / "s.safetensors", {"w": _odd(d)})
    with pytest.raises(RunError, match="tensor 'w': its bits are not canonical"):
        read_tensors(tmp_path / "s.safetensors", {"w": TensorType(d, (4,))})
    p.weights._held[0] = _odd(d)
    save(p, tmp_path / "a.ree")
    assert json.loads((tmp_path / "a.ree" / "manifest.json").read_text())["weights"] == ["w"]
    with pytest.raises(ArtifactError, match="weight 'w': its bits are not canonical"):
        load(tmp_path / "a.ree")


def _payloads(x):
    """x with NaNs of every kind in the place of some elements of float32."""
    if x.dtype != np.float32 or not x.size:
        return x
    bits, odd, _ = ODD[DType.F32]
    y = x.copy()
    places = np.arange(0, x.size, max(1, x.size // 40))
    y.reshape(-1)[places] = np.resize(np.array(odd, bits), places.size).view(np.float32)
    return y


POINTWISE = [op for op in registry.names() if opdef.form_of(op) is opdef.Form.POINTWISE]


@pytest.mark.parametrize("op", POINTWISE)
def test_payloads_of_nans_do_not_pass_a_pointwise_operator(op):
    """Inputs that only these read are not scanned: no result may depend on what a NaN carries."""
    seen = set()
    for case in cases(op):
        assert not scanned(case.program.graph)
        kind = (*(x.dtype for x in case.sample.inputs), str(case.sample.attrs))
        if np.float32 not in kind or kind in seen or not case.expected[0].size:
            continue
        seen.add(kind)
        odd = [_payloads(np.ascontiguousarray(x).reshape(x.shape)) for x in case.sample.inputs]
        for isa in _core.isa_names():
            got = case.program.run(*odd, isa=isa).outputs[0]
            want = case.program.run(*map(canonical, odd), isa=isa).outputs[0]
            assert got.tobytes() == want.tobytes(), (case.sample.name, isa)


def test_inputs_that_something_else_reads_are_scanned():
    def asked(*ops, more=()):
        b = Builder()
        x = y = b.input(TensorType(DType.F32, (4, 4)))
        for op, attrs in ops:
            y = b.add(op, y, **attrs)
        return scanned(b.finish((y, *(x for _ in more))))

    exp, turn, total = (
        ("exp", {}),
        ("permute", {"dims": (1, 0)}),
        ("sum", {"dim": 1, "keepdim": False}),
    )
    assert not asked(exp)
    assert not asked(turn, exp)
    assert not asked(turn, exp, total)
    assert asked(turn)  # an output is its own bits
    assert asked(total)
    assert asked(turn, total)
    assert asked(exp, more="x")


@pytest.mark.parametrize("fuse", [True, False])
def test_the_bits_of_a_nan_that_was_computed(fuse):
    b = Builder()
    x = b.input(TensorType(DType.F32, (40,)))
    y = b.add("bitcast", b.add("sub", x, x), dtype=DType.I32)
    p = Program(b.finish((y,)), Names(("x",), ("y",), ()), ())
    for isa in _core.isa_names():
        got = p.run(np.full(40, np.inf, np.float32), isa=isa, fuse=fuse).outputs[0]
        assert (got == 0x7FC00000).all(), isa
