"""A training run on disk.

    RUN/manifest.json                   what is fixed before the first step
    RUN/program/                        the step's program
    RUN/history.bin                     a record per step: state root, batch digest, loss, check
    RUN/tensors.bin                     per step, the tensor hashes under its state root
    RUN/checkpoints/STEP.safetensors    S0, every K-th and the last state
    RUN/batches/STEP.safetensors        the batches
    RUN/commitment.json                 steps and roots up to the last checkpoint
    RUN/metrics.csv                     learning rate, gradient norm, validation loss; not committed to
    RUN/lock                            held by the one writer

Nothing in it is executed. A reader checks schema, sizes and digests; a record whose check fails is
damage, a sound record that replay does not give is a false claim, which verification names.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.errors import ReeError, RunError
from ree.files.safetensors import read_tensors
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.runtime.hashing import hash_array
from ree.traces.encoding import DIGEST, sha256, u32, u64
from ree.traces.history import History, RunHeader, StepRecord, batch_digest, state_root
from ree.traces.strict_json import strict_json

if TYPE_CHECKING:
    from ree.training.step import Step

MAGIC = "ree.run"
VERSION = 1
MANIFEST, PROGRAM, HISTORY, TENSORS = "manifest.json", "program", "history.bin", "tensors.bin"
CHECKPOINTS, BATCHES, COMMITMENT, LOCK = "checkpoints", "batches", "commitment.json", "lock"
LOSSES = "losses.csv"
SEED = "seed"  # the state that holds it
MAX_MANIFEST, MAX_HISTORY = 16 << 20, 1 << 30
MAX_TEXT = 500
_RECORD = struct.Struct(f">{DIGEST}s{DIGEST}sI4s")
RECORD_BYTES = _RECORD.size
_DIGESTS = ("program", "numeric_id", "instance", "weights_root", "initial_root")


@dataclass(frozen=True)
class DataFile:
    """A file that batches are made from, as it was when the run began."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What is fixed before the first step; digests in hexadecimal."""

    contract: str
    program: str
    numeric_id: str
    instance: str
    weights_root: str
    initial_root: str
    seed: int
    checkpoint_every: int
    keep_batches: bool
    data: tuple[DataFile, ...] = ()
    magic: str = MAGIC
    version: int = VERSION

    def header(self) -> RunHeader:
        """The part that the commitment contains."""
        digest = bytes.fromhex
        return RunHeader(
            digest(self.numeric_id), digest(self.instance), digest(self.weights_root),
            digest(self.initial_root), self.seed,
        )  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def manifest_of(
    step: Step, checkpoint_every: int, keep_batches: bool, data: Sequence[DataFile]
) -> Manifest:
    """The manifest of a new run of a step."""
    seed = int(step.initial[list(step.names.states).index("seed")])
    initial = state_root([hash_array(x) for x in step.initial])
    return Manifest(
        step.graph.contract, step.program_hash.hex(), step.instance.numeric_id.hex(),
        step.instance.digest.hex(), step.weights_root.hex(), initial.hex(), seed,
        checkpoint_every, keep_batches, tuple(data),
    )  # fmt: skip


def is_run(path: str | Path) -> bool:
    """Whether a path is meant as a run: a directory whose manifest says so, or with a history."""
    d = Path(path)
    if not d.is_dir():
        return False
    if (d / HISTORY).exists() or (d / CHECKPOINTS).exists():
        return True
    try:
        return f'"{MAGIC}"' in (d / MANIFEST).read_bytes()[:MAX_MANIFEST].decode("utf-8", "replace")
    except OSError:
        return False


def encode_record(step: int, r: StepRecord) -> bytes:
    """Bytes of a step's record: state root, batch digest, bits of the loss, check."""
    return _RECORD.pack(r.state_root, r.batch, r.loss, _check(step, r))


def _check(step: int, r: StepRecord) -> bytes:
    """Shows damage, such as a record that was written in part; it authenticates nothing."""
    return sha256(u64(step), r.state_root, r.batch, u32(r.loss))[:4]


def decode_records(raw: bytes) -> tuple[list[StepRecord], int]:
    """(records up to the first one that is damaged, bytes after them)."""
    out: list[StepRecord] = []
    for i in range(len(raw) // RECORD_BYTES):
        root, batch, loss, check = _RECORD.unpack_from(raw, i * RECORD_BYTES)
        record = StepRecord(root, loss, batch)
        if check != _check(i + 1, record):
            break
        out.append(record)
    return out, len(raw) - len(out) * RECORD_BYTES


def step_file(directory: Path, step: int) -> Path:
    """File of a step's checkpoint or batch."""
    return directory / f"{step:08d}.safetensors"


@dataclass
class RunReader:
    """A run as it is on disk; RunError where it is not as it must be.

    A tail that a killed writer left in part is ignored and told in `notes`.
    """

    path: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        self.manifest = read_manifest(self.path)
        seal = self._seal()  # before the history: a writer may add to both
        self.records = self._records()
        self._check_seal(seal)

    # parts

    @property
    def steps(self) -> int:
        return len(self.records)

    @cached_property
    def history(self) -> History:
        return History(self.manifest.header(), self.records)

    @cached_property
    def checkpoints(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        d = self.path / CHECKPOINTS
        names = [p.stem for p in d.iterdir() if p.suffix == ".safetensors"] if d.is_dir() else []
        return sorted(s for s in (int(n) for n in names if n.isascii() and n.isdecimal() and len(n) < 16)
                      if s <= self.steps)  # fmt: skip

    @cached_property
    def step(self) -> Step:
        """The step's program, checked against the manifest."""
        step = load_step(self.path / PROGRAM)
        m = self.manifest
        if m.contract != step.graph.contract:
            raise RunError(f"run '{self.path}': contract: the manifest has {m.contract}, "
                           f"its program {step.graph.contract}")  # fmt: skip
        got = {"numeric_id": step.instance.numeric_id, "program": step.program_hash,
               "weights_root": step.weights_root, "instance": step.instance.digest}  # fmt: skip
        for name, digest in got.items():
            want = getattr(m, name)
            if digest.hex() != want:
                what = name.replace("_", " ")
                hint = "it was made by other numeric rules" if name == "numeric_id" else ""
                raise RunError(f"run '{self.path}': {what}: the manifest has {want[:16]}..., "
                               f"its program {digest.hex()[:16]}...", hint)  # fmt: skip
        types = dict(zip(step.names.states, step.graph.states, strict=True))
        if types.get(SEED) != TensorType(DType.I64, ()):
            raise RunError(f"run '{self.path}': its program has no state '{SEED}', an i64")
        return step

    def root_after(self, step: int) -> bytes:
        """State root after a step, 0 for S0, as the run claims it."""
        header = self.manifest.header()
        return header.initial_root if step == 0 else self.records[step - 1].state_root

    def state(self, step: int) -> list[Array]:
        """A checkpoint's state; RunError if it is missing, damaged or of another program."""
        path = step_file(self.path / CHECKPOINTS, step)
        names = self.step.names.states
        types = dict(zip(names, self.step.graph.states, strict=True))
        tensors, metadata = read_tensors(path, types)
        program = metadata.get("program", "none")
        if program != self.manifest.program:
            raise RunError(f"'{path}' is from another program: {program[:16]!r}...")
        if metadata.get("step") != str(step):
            raise RunError(
                f"'{path}' says that it is of step {metadata.get('step', 'none')[:20]!r}"
            )
        state = [tensors[n] for n in names]
        if state_root([hash_array(x) for x in state]) != self.root_after(step):
            raise RunError(
                f"'{path}' does not have the state root of step {step}",
                "the checkpoint or the history was altered after it was written",
            )
        if int(tensors[SEED]) != self.manifest.seed:
            raise RunError(f"run '{self.path}': the manifest's seed is not that of '{path.name}'")
        return state

    def nearest(self, step: int) -> int:
        """The last checkpoint at or before a step."""
        found = [c for c in self.checkpoints if c <= step]
        if not found:
            raise RunError(f"run '{self.path}' has no checkpoint at or before step {step}")
        return found[-1]

    def batch(self, step: int) -> list[Array]:
        """A kept batch; RunError if it is missing or not the one that the run commits to."""
        path = step_file(self.path / BATCHES, step)
        if not path.exists():
            raise RunError(f"run '{self.path}' keeps no batch of step {step}",
                           "give the script that makes the batches: --script TRAIN.py")  # fmt: skip
        types = dict(zip(self.step.names.inputs, self.step.instance.graph.inputs, strict=True))
        tensors, _ = read_tensors(path, types)
        arrays = [tensors[n] for n in self.step.names.inputs]
        if digest_of(arrays) != self.records[step - 1].batch:
            raise RunError(f"'{path}' is not the batch that the run commits to in step {step}",
                           "it was altered; --script TRAIN.py makes the batches again")  # fmt: skip
        return arrays

    def tensor_hashes(self, step: int) -> list[bytes] | None:
        """Tensor hashes under a step's state root; None if they are not kept, or not its own."""
        hashes = self._kept_hashes(step)
        return hashes if hashes and state_root(hashes) == self.root_after(step) else None

    def check_tensor_hashes(self, step: int, hashes: Sequence[bytes]) -> None:
        """RunError if the run keeps other tensor hashes of a step than these."""
        kept = self._kept_hashes(step)
        if kept is not None and kept != list(hashes):
            raise RunError(f"'{self.path / TENSORS}' does not have the tensor hashes of step {step}",
                           "it was altered; without the file the run can be verified")  # fmt: skip

    def check_losses(self) -> None:
        """RunError if there is a table of losses that is not made of the history."""
        path = self.path / LOSSES
        if path.is_symlink() or path.exists():
            want = losses_csv(self.records).encode()
            got = read_bounded(path, MAX_HISTORY)
            # a run that goes on writes it at its end
            if not want.startswith(got) or not got.endswith(b"\n"):
                raise RunError(f"'{path}' does not have the losses of the history",
                               "it was altered; without the file the run can be verified")  # fmt: skip

    def _kept_hashes(self, step: int) -> list[bytes] | None:
        n = len(self.step.names.states) * DIGEST
        path = self.path / TENSORS
        if step == 0 or path.is_symlink() or not path.is_file():
            return None
        with open(path, "rb") as f:
            f.seek((step - 1) * n)
            raw = f.read(n)
        return [raw[i : i + DIGEST] for i in range(0, len(raw), DIGEST)]

    # reading

    def _records(self) -> list[StepRecord]:
        raw = read_bounded(self.path / HISTORY, MAX_HISTORY)
        records, rest = decode_records(raw)
        if rest > RECORD_BYTES:
            raise RunError(f"'{self.path / HISTORY}': record {len(records) + 1} is damaged")
        if rest:
            self.notes.append(f"history.bin: {rest} bytes of an unfinished record ignored")
        return records

    def _seal(self) -> dict[str, Any] | None:
        """Steps, roots and commitment of the last checkpoint's time, if there was one."""
        path = self.path / COMMITMENT
        if not path.exists():
            return None
        seal = _json(path)
        steps = seal.get("steps") if isinstance(seal, dict) else None
        roots = ("history_root", "batches_root", "commitment")
        if (
            type(steps) is not int or steps < 0 or set(seal) != {"steps", *roots}
            or not all(is_digest(seal[k]) for k in roots)
        ):  # fmt: skip
            raise RunError(f"'{path}': expected steps, {', '.join(roots)}")
        return dict(seal)

    def _check_seal(self, seal: dict[str, Any] | None) -> None:
        if seal is None:
            return
        steps = seal["steps"]
        if steps > self.steps:
            raise RunError(f"'{self.path / HISTORY}': expected {steps} records, got {self.steps}")
        want = commitment_json(History(self.manifest.header(), self.records[:steps]))
        for name, got in want.items():
            if got != seal[name]:
                raise RunError(f"'{self.path / HISTORY}' or the manifest was altered: {COMMITMENT} has "
                               f"{name} {seal[name][:16]}..., they give {str(got)[:16]}...")  # fmt: skip


def digest_of(batch: Sequence[Array]) -> bytes:
    """Batch digest of arrays."""
    return batch_digest([hash_array(x) for x in batch])


def load_step(path: Path) -> Step:
    """The program of a run; RunError if it is not as it must be."""
    from ree.training.step import Step

    try:
        return Step.load(path)
    except ReeError as e:
        raise RunError(f"program of run '{path.parent}': {e.message}", e.hint) from e


def read_manifest(path: Path) -> Manifest:
    """The manifest of a run, schema-checked; RunError otherwise."""
    if not path.is_dir():
        raise RunError(f"no run at '{path}'", "expected a directory written by ree train")
    m = _json(path / MANIFEST)
    problem = _problem(m)
    if problem:
        raise RunError(f"run '{path}': {problem}")
    files = tuple(DataFile(**f) for f in m.pop("data"))
    return Manifest(data=files, **m)


def _problem(m: Any) -> str:
    """What is wrong with a manifest, or nothing."""
    if not isinstance(m, dict) or m.get("magic") != MAGIC:
        return "not a training run"
    if m.get("version") != VERSION:
        return f"version: expected {VERSION}, got {str(m.get('version'))[:20]}"
    if set(m) != set(Manifest.__dataclass_fields__):
        return f"manifest keys: expected {sorted(Manifest.__dataclass_fields__)}"
    for k in _DIGESTS:
        if not is_digest(m[k]):
            return f"{k}: expected 64 hexadecimal digits"
    if type(m["seed"]) is not int or not -(2**63) <= m["seed"] < 2**63:
        return "seed: expected 64 bits"
    if type(m["checkpoint_every"]) is not int or not 1 <= m["checkpoint_every"] < 2**40:
        return "checkpoint_every: expected a positive number"
    if type(m["keep_batches"]) is not bool:
        return "keep_batches: expected true or false"
    if not is_text(m["contract"]):
        return "contract: expected text"
    if not isinstance(m["data"], list):
        return "data: expected a list"
    for f in m["data"]:
        if (
            not isinstance(f, dict) or set(f) != {"name", "bytes", "sha256"}
            or not is_text(f["name"]) or type(f["bytes"]) is not int or f["bytes"] < 0
            or not is_digest(f["sha256"])
        ):  # fmt: skip
            return "data: expected name, bytes and sha256 of each file"
    return ""


def is_digest(v: Any) -> bool:
    """Whether a value is a digest in lower-case hexadecimal."""
    return isinstance(v, str) and len(v) == 64 and all(c in "0123456789abcdef" for c in v)


def is_text(v: Any) -> bool:
    """Whether a value is short printable text."""
    return isinstance(v, str) and 0 < len(v) <= MAX_TEXT and v.isprintable()


def read_bounded(path: Path, limit: int) -> bytes:
    """Bytes of a regular file no larger than `limit`; a link could lead out of the run."""
    if path.is_symlink() or not path.is_file():
        raise RunError(f"'{path}': expected a regular file")
    try:
        size = os.stat(path).st_size
        if size > limit:
            raise RunError(f"'{path}': expected at most {limit} bytes, got {size}")
        return path.read_bytes()
    except OSError as e:
        raise RunError(f"cannot read '{path}': {e.strerror}") from e


def _json(path: Path) -> Any:
    try:
        return strict_json(read_bounded(path, MAX_MANIFEST))
    except ValueError as e:
        raise RunError(f"'{path}' is not JSON") from e


def commitment_json(history: History) -> dict[str, object]:
    """Roots and commitment of a history, in hexadecimal."""
    return {
        "steps": history.steps,
        "history_root": history.history_root.hex(),
        "batches_root": history.batches_root.hex(),
        "commitment": history.commitment.hex(),
    }


def losses_csv(records: Sequence[StepRecord]) -> str:
    """Lines of step, loss; as many digits as a float32 needs to be read back exactly."""
    rows = [f"{s},{np.float32(r.loss_value)!s}" for s, r in enumerate(records, 1)]
    return "\n".join(["step,loss", *rows]) + "\n"
