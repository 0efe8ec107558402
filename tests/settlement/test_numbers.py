"""The numbers of the contracts are those of kernels, rules and layouts."""

import collections

import pytest

from ree.compiler.layout import INSTANCE, RECORD, Layout
from ree.kernels import opdef, registry
from ree.kernels.forms import Form, Variant
from ree.settlement import generated, layout, numbers
from ree.settlement.compile import CONTRACTS, source

FILES = generated.FILES


@pytest.mark.parametrize("file", FILES)
def test_contracts_have_the_numbers_of_python(file):
    assert source(file).read_text() == FILES[file](), "run python -P -m ree.settlement.generated"


def test_no_contract_says_them_again():
    constants = [x for text in FILES.values() for x in text().splitlines() if ": constant(" in x]
    named = {x.split(":")[0] for x in constants} - {f.name for f in Form}
    for path in CONTRACTS.rglob("*.vy"):
        if path.name not in FILES:
            lines = path.read_text().splitlines()
            assert not named & {x.split(":")[0] for x in lines if ": constant(" in x}, path


def test_no_two_contracts_say_the_same():
    found = collections.Counter()
    for path in sorted(p for p in CONTRACTS.rglob("*.vy") if p.parent.name != "testing"):
        found.update(
            {x.split("#")[0].strip() for x in path.read_text().splitlines() if ": constant(" in x}
        )
    again = [x for x, times in found.items() if times > 1]
    assert again == ["BIT: constant(uint256) = 1"]  # of hashes and of floats


@pytest.mark.parametrize("name", ["STATE", "STATEMENT", "RUN", "CLOCKS", "TRAINING"])
def test_a_field_that_moves_in_python_alone_is_found(monkeypatch, name):
    fields = list(getattr(layout, name).sizes.items())
    at = 1 if name != "CLOCKS" else 2
    fields[at : at + 2] = fields[at : at + 2][::-1]
    if name == "TRAINING":  # its fields behind the instance
        fields[-4:] = fields[-4:][::-1]
    monkeypatch.setattr(layout, name, Layout(**dict(fields)))
    assert source("protocol.vy").read_text() != generated.protocol()


def test_layouts_keep_their_sizes():
    sizes = {
        n: getattr(layout, n).size
        for n in ("STATE", "STATEMENT", "RUN", "ONE_RUN", "TRAINING", "CLOCKS")
    }
    assert sizes == {
        "STATE": 384,
        "STATEMENT": 284,
        "RUN": 104,
        "ONE_RUN": 220,
        "TRAINING": 228,
        "CLOCKS": 32,
    }
    assert (INSTANCE.size, RECORD.size) == (124, 240)
    head = layout.TRAINING["initial"].offset
    for f in ("initial", "steps", "batches"):  # what a run begins with stands there as it is
        assert layout.TRAINING[f].offset - head == layout.RUN[f].offset
    values = {f.name: (7 if f.is_number else bytes([9]) * f.size) for f in layout.STATE}
    assert layout.STATE.unpack(layout.STATE.pack(**values)) == values
    with pytest.raises(ValueError, match="step: 4294967296 does not fit into 4 bytes"):
        layout.STATE.pack(**values | {"step": 1 << 32})
    with pytest.raises(ValueError, match="leaf: expected 32 bytes, got 31"):
        layout.STATE.pack(**values | {"leaf": bytes(31)})
    with pytest.raises(ValueError, match="expected 384 bytes, got 383"):
        layout.STATE.unpack(bytes(383))


def test_contracts_read_variants_off_the_codes():
    """operations.vy: by the distance from the first of a kind, the lowest bit, the first whose indices wrap."""
    code = {n: opdef.get(n).opcode for n in numbers.OPERATORS}
    for op in map(opdef.get, registry.names()):
        least, adds, wraps = (x in op.variant for x in (Variant.LEAST, Variant.ADDS, Variant.WRAPS))
        match op.form:
            case Form.EXTREME:
                assert op.opcode - code["amax"] == least
            case Form.ARGUMENT:
                assert op.opcode - code["argmax"] == least
            case Form.SCATTER:
                assert (op.opcode & 1, op.opcode >= code["index_put"]) == (adds, wraps)
            case Form.CREATE:
                assert (op.opcode == code["full"]) == ("value" in op.closed_schema)
            case _:
                assert op.variant is Variant.PLAIN


def test_ranges_of_codes_have_the_forms_of_the_registry():
    ranges = generated._ranges()
    for name in registry.names():
        op = opdef.get(name)
        assert [f for first, f in ranges if first <= op.opcode][-1] == op.form.name
    assert [f for first, f in ranges if first <= 219][-1] == "0"
    assert ranges[-1][1] == "0"
