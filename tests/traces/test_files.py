"""Trace files: round trips, hostile bytes, and writing that never leaves a half."""

import contextlib
import errno
import json
import os
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ree.traces import files, format, sidecar
from ree.traces.encoding import ZERO, sha256
from ree.traces.format import HEADER_BYTES, TraceFormatError, encode_file, parse_file, parse_header
from ree.traces.tensor import tensor_hash
from ree.traces.trace import Trace, ValueInfo, make_trace

ARRAYS = {
    ("input", 0): np.array([1, -2, 3], np.float32),
    ("output", 0): np.array([[2, 0, 4]], np.float32),
    ("value", 0): np.array([True, False]),
    ("value", 2): np.arange(5, dtype=np.uint16),  # bfloat16 bits
    ("value", 3): np.zeros((0, 2), np.float32),
    ("value", 4): np.array(7, np.int64),
}
VALUES = [ARRAYS.get(("value", i)) for i in range(5)]


def sample(beside: bool = True) -> Trace:
    return make_trace(
        numeric_id=sha256(b"n"), program=sha256(b"p"), instance=sha256(b"i"), weights_root=ZERO,
        inputs=[tensor_hash(ARRAYS["input", 0])], outputs=[tensor_hash(ARRAYS["output", 0])],
        values=[ZERO if v is None else tensor_hash(v) for v in VALUES],
        infos=[ValueInfo(f"op{i}", "f32[3]", seconds=0.5 * i) for i in range(5)] if beside else (),
        input_names=["x"] if beside else (), environment=[("device", "cpu")] if beside else (),
    )  # fmt: skip


def encoded(trace: Trace, tensors: dict | None = None) -> bytes:
    return b"".join(encode_file(trace, tensors))


def resealed(raw: bytes, changed: bytes) -> bytes:
    """`changed` with a fitting checksum, as an adversary would write it."""
    layout = parse_header(raw[:HEADER_BYTES], len(raw))
    end = layout.head_bytes - 32
    covered = changed[:HEADER_BYTES] + changed[HEADER_BYTES + layout.trace : end]
    return changed[:end] + sha256(covered) + changed[end + 32 :]


def same(a: format.TraceFile, b: format.TraceFile) -> bool:
    return (
        a.trace == b.trace
        and a.trace.sidecar == b.trace.sidecar
        and a.tensors.entries == b.tensors.entries
        and all(a.tensors[k].tobytes() == b.tensors[k].tobytes() for k in a.tensors)
    )


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    files.write_trace(path, sample(), ARRAYS)
    read = files.read_trace(path)
    assert read.trace == sample()
    assert read.trace.sidecar == sample().sidecar
    assert read.trace.root == sample().root
    assert list(read.tensors) == list(ARRAYS)
    for key, array in ARRAYS.items():
        assert read.tensors[key].dtype == array.dtype
        assert read.tensors[key].shape == array.shape
        assert read.tensors[key].tobytes() == array.tobytes()
        assert not read.tensors[key].flags.writeable
    files.check_values(read)
    assert same(read, parse_file(path.read_bytes()))
    assert os.listdir(tmp_path) == ["run.trace"]


def test_a_file_without_tensors_has_no_data(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    for trace in (sample(), sample(beside=False), sample().at_io_level()):
        files.write_trace(path, trace)
        read = files.read_trace(path)
        assert read.trace == trace
        assert read.trace.sidecar == trace.sidecar
        assert len(read.tensors) == 0


digests = st.binary(min_size=32, max_size=32)
text = st.text(max_size=20).map(sidecar.clean)
infos = st.builds(ValueInfo, text, text, text, text, text, text, st.none() | st.floats(0, 1e9))


@st.composite
def runs(draw: st.DrawFn) -> tuple[Trace, dict]:
    arrays = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(["input", "output", "value"]), st.integers(0, 3)),
            st.builds(
                lambda dtype, shape, seed: np.random.default_rng(seed)
                .integers(0, 2, shape).astype(dtype),
                st.sampled_from(["<f4", "<f2", "<u2", "<i8", "<i4", "<i2", "i1", "u1", "?"]),
                st.lists(st.integers(0, 5), max_size=4), st.integers(0, 9),
            ),
            max_size=6,
        )
    )  # fmt: skip

    def hashes(kind: str) -> list[bytes]:
        n = max([i + 1 for k, i in arrays if k == kind], default=0)
        given_ = [arrays.get((kind, i)) for i in range(n)]
        return [draw(digests) if a is None else tensor_hash(a) for a in given_] + draw(
            st.lists(digests, max_size=2)
        )

    values = hashes("value")
    trace = make_trace(
        **{k: draw(digests) for k in ("numeric_id", "program", "instance", "weights_root")},
        inputs=hashes("input"), outputs=hashes("output"), values=values,
        infos=draw(st.lists(infos, min_size=len(values), max_size=len(values)) | st.just([])),
        environment=draw(st.dictionaries(text, text, max_size=3)).items(),
    )  # fmt: skip
    return trace, arrays


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs())
def test_any_run_round_trips(run: tuple[Trace, dict]) -> None:
    trace, arrays = run
    raw = encoded(trace, arrays)
    read = parse_file(raw)
    assert read.trace == trace
    assert read.trace.sidecar == trace.sidecar
    assert {k: v.tobytes() for k, v in read.tensors.items()} == {
        k: v.tobytes() for k, v in arrays.items()
    }
    assert encoded(read.trace, dict(read.tensors)) == raw
    format.check_values(read)


def test_every_length_but_the_right_one_is_malformed(tmp_path: Path) -> None:
    raw = encoded(sample(), ARRAYS)
    path = tmp_path / "cut.trace"
    for n in [*range(len(raw)), len(raw) + 1, 2 * len(raw)]:
        cut = (raw + raw)[:n]
        with pytest.raises(TraceFormatError):
            parse_file(cut)
        if n % 16 in (0, 1):
            path.write_bytes(cut)
            with pytest.raises(TraceFormatError):
                files.read_trace(path)


def test_every_flipped_bit_is_noticed() -> None:
    raw = encoded(sample(), ARRAYS)
    layout = parse_header(raw[:HEADER_BYTES], len(raw))
    claims = range(HEADER_BYTES, HEADER_BYTES + layout.trace)  # another run, or malformed
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        if bit // 8 in claims:
            with contextlib.suppress(TraceFormatError):
                assert parse_file(bytes(changed)).trace.root != sample().root
        elif bit // 8 < layout.data_start:
            with pytest.raises(TraceFormatError):
                parse_file(bytes(changed))
        else:  # padding is checked at once, tensors against their hashes
            with pytest.raises(TraceFormatError, match=r"zeros|hash|bool"):
                format.check_values(parse_file(bytes(changed)))


def test_every_bit_flipped_by_an_adversary_is_refused_or_another_trace() -> None:
    # Only the sidecar is not bound by the root: there a flip may go unnoticed in all but the text.
    raw = encoded(sample(), ARRAYS)
    layout, honest = parse_header(raw[:HEADER_BYTES], len(raw)), parse_file(raw)
    first = HEADER_BYTES + layout.trace
    beside = range(first, first + layout.sidecar)
    index = range(beside.stop, beside.stop + layout.index)
    for bit in range(8 * (layout.head_bytes - 32)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            got = parse_file(resealed(raw, bytes(changed)))
        except TraceFormatError:
            continue
        if bit // 8 in beside:
            assert got.trace.root == honest.trace.root
            assert got.trace.sidecar != honest.trace.sidecar
        elif bit // 8 in index:  # another dtype or shape for a tensor's bytes
            with pytest.raises(TraceFormatError, match="hash"):
                format.check_values(got)
        else:
            assert got.trace != honest.trace
            assert got.trace.root != honest.trace.root


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_malformed(garbage: bytes, with_magic: bool) -> None:
    with pytest.raises(TraceFormatError):
        parse_file(format.MAGIC + struct.pack(">I", 1) + garbage if with_magic else garbage)


@pytest.mark.parametrize("section", range(4))
@pytest.mark.parametrize("length", [2**31, 2**40, 2**64 - 1])
def test_false_lengths_take_no_memory(tmp_path: Path, section: int, length: int) -> None:
    raw = bytearray(encoded(sample()))
    raw[12 + 8 * section : 20 + 8 * section] = struct.pack(">Q", length)
    path = tmp_path / "big.trace"
    path.write_bytes(raw)
    with pytest.raises(TraceFormatError, match="expected"):
        files.read_trace(path)


def with_index(entries: list[tuple[int, int, int, list[int], int]]) -> bytes:
    """`sample()` with this index (kind, index, dtype, dims, offset) and a body of 12 bytes."""
    plain = encoded(sample(beside=False))
    core = parse_header(plain[:HEADER_BYTES], len(plain)).trace
    trace = plain[HEADER_BYTES : HEADER_BYTES + core]
    index = struct.pack(">I", len(entries))
    for kind, at, code, dims, offset in entries:
        index += struct.pack(f">BIBB{len(dims)}QQ", kind, at, code, len(dims), *dims, offset)
    front = format.MAGIC + struct.pack(">I4Q", 1, core, 0, len(index), 12)
    head = front + trace + index
    return (head + sha256(front, index)).ljust(
        -(len(head) + 32) % 64 + len(head) + 32, b"\0"
    ) + bytes(12)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(0, 0, 0, [3], 0)], None),
        ([(0, 0, 0, [4], 0)], "data: expected 16 bytes, got 12"),
        ([(0, 0, 0, [3], 64)], "expected offset 0, got 64"),
        ([(0, 0, 0, [3], 2**64 - 1)], "expected offset 0"),
        ([(0, 0, 0, [2**63, 2], 0)], "dimension or rank too large"),
        ([(0, 0, 0, [0, 2**63], 0)], "dimension or rank too large"),
        ([(0, 0, 0, [2**30, 2**30], 0)], "expected at most 2147483647 elements"),
        ([(0, 0, 0, [1] * 9, 0)], "expected kind, dtype code and rank"),
        ([(3, 0, 0, [3], 0)], "expected kind"),
        ([(0, 0, 9, [3], 0)], "expected kind"),
        ([(0, 1, 0, [3], 0)], "input: expected index below 1, got 1"),
        ([(2, 1, 0, [3], 0)], "only moved"),
        ([(0, 0, 0, [3], 0)] * 2, "ascending"),
        ([(1, 0, 0, [0], 0), (0, 0, 0, [3], 0)], "ascending"),
        ([], "data: expected 0 bytes, got 12"),
    ],
    ids=range(15),
)
def test_hostile_indexes(entries: list, message: str | None) -> None:
    if message is None:
        assert list(parse_file(with_index(entries)).tensors) == [("input", 0)]
    else:
        with pytest.raises(TraceFormatError, match=message):
            parse_file(with_index(entries))


def test_an_index_ends_where_its_count_says() -> None:
    raw = with_index([(0, 0, 0, [3], 0), (0, 0, 0, [3], 0)])
    layout = parse_header(raw[:HEADER_BYTES], len(raw))
    at = HEADER_BYTES + layout.trace
    fewer = raw[:at] + struct.pack(">I", 1) + raw[at + 4 :]
    with pytest.raises(TraceFormatError, match="expected 1 entries, got 23 further bytes"):
        parse_file(resealed(raw, fewer))


@pytest.mark.parametrize("at", [133 + 4 * i for i in range(3)])
def test_false_counts_take_no_memory(at: int) -> None:
    raw = bytearray(encoded(sample(beside=False)))
    raw[HEADER_BYTES + at : HEADER_BYTES + at + 4] = b"\xff" * 4
    with pytest.raises(TraceFormatError, match="tensor hashes: expected"):
        parse_file(resealed(encoded(sample(beside=False)), bytes(raw)))


SIDE = {"values": [], "inputs": [], "outputs": [], "environment": {}}


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{}", "null", "1", '"x"', "{", "", " ", "[" * 100_000, '{"a":' * 100_000,
        "\ud800", "NaN", "1" * 5000,
        json.dumps({**SIDE, "extra": 1}),
        json.dumps(SIDE)[:-1] + ',"inputs":[]}',
        json.dumps({**SIDE, "values": {}}),
        json.dumps({**SIDE, "values": [{}] * 2}),
        json.dumps({**SIDE, "values": [[]] * 5}),
        json.dumps({**SIDE, "values": [{"op": 1}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{"opp": "x"}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{"op": "x" * 2001}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{"op": "\x1b[2J"}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{"op": "\ud800"}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{"seconds": -1.0}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{"seconds": True}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{"seconds": float("inf")}] + [{}] * 4}),
        json.dumps({**SIDE, "values": [{}] * 5}).replace("{}", '{"seconds":1e999}', 1),
        json.dumps({**SIDE, "inputs": ["x", "y"]}),
        json.dumps({**SIDE, "environment": []}),
        json.dumps({**SIDE, "environment": {"a": 1}}),
        json.dumps({**SIDE, "environment": {str(i): "" for i in range(101)}}),
    ],
    ids=range(31),
)  # fmt: skip
def test_hostile_sidecars(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    if raw:
        with pytest.raises(sidecar.SidecarError):
            sidecar.decode_sidecar(raw, 1, 1, 5)
    else:
        assert sidecar.decode_sidecar(raw, 1, 1, 5).values == ()


def test_text_is_cleaned_when_written() -> None:
    trace = make_trace(
        numeric_id=ZERO, program=ZERO, instance=ZERO, weights_root=ZERO, inputs=[], outputs=[],
        values=[ZERO], infos=[ValueInfo("a\tb\x1b[2J\u202e", code="é" * 3000)],
    )  # fmt: skip
    info = parse_file(encoded(trace)).trace.sidecar.values[0]
    assert info.op == "a b [2J "
    assert info.code == "é" * 2000


def test_tensors_that_do_not_belong() -> None:
    one = np.zeros(1, np.float32)
    for key, message in [
        (("value", 1), "only moved"),
        (("value", 5), "index below 5, got 5"),
        (("input", 1), "index below 1, got 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            encoded(sample(), {key: one})
    with pytest.raises(ValueError, match="unsupported dtype"):
        encoded(sample(), {("value", 0): np.zeros(1)})
    wrong = parse_file(encoded(sample(), {("value", 0): one}))
    with pytest.raises(TraceFormatError, match="value 0: expected bytes with hash"):
        format.check_values(wrong)


def test_names_that_do_not_fit_are_not_written() -> None:
    trace = make_trace(
        numeric_id=ZERO, program=ZERO, instance=ZERO, weights_root=ZERO, inputs=[], outputs=[],
        input_names=["x"],
    )  # fmt: skip
    with pytest.raises(TraceFormatError, match="inputs: expected a list of 0 or 0, got 1 entries"):
        encoded(trace)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    files.write_trace(path, sample())
    before = path.read_bytes()
    big = np.zeros(1 << 20, np.uint8)
    trace = make_trace(
        numeric_id=ZERO, program=ZERO, instance=ZERO, weights_root=ZERO, inputs=[sha256(b"")],
        outputs=[],
    )  # fmt: skip
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            files.write_trace(path, trace, {("input", 0): big})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.trace"]


def test_a_bad_tensor_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    files.write_trace(path, sample())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="index below"):
        files.write_trace(path, sample(), {("value", 99): np.zeros(1, np.float32)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.trace"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_trace(tmp_path / "absent.trace")
    empty = tmp_path / "empty.trace"
    empty.touch()
    with pytest.raises(TraceFormatError, match="expected at least 44 bytes, got 0"):
        files.read_trace(empty)
