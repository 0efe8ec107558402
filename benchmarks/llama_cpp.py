"""llama.cpp through the C interface of its shared libraries, in a process of its own.

What its parameter structs hold is found by offset, as version 0.5 has it; other defaults than that
version's are refused. Nothing of llama.cpp comes with the project.
"""

from __future__ import annotations

import ctypes as c
import multiprocessing
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

F32, F16 = 0, 1  # ggml_type
WEIGHT_TYPES = {
    "f32": (0, F32),
    "f16": (1, F16),
    "bf16": (32, 30),
    "q8_0": (7, 8),
}  # llama_ftype, ggml_type
POSITIONS = 2304  # of a context


class Missing(Exception):
    """What the benchmark needs is not there, in one line."""


@dataclass(frozen=True)
class Setting:
    """How llama.cpp is run. variant: of its CPU library, '' for the one that it takes by itself."""

    threads: int
    flash: bool
    cache: str = "f16"  # type of keys and values
    whole_window: bool = False  # keep all positions of layers with a window
    variant: str = ""

    def __str__(self) -> str:
        return ", ".join(f"{k} {v}" for k, v in asdict(self).items() if v != "")


class _Raw(c.Structure):
    _fields_ = (("b", c.c_uint8 * 512),)

    def get(self, offset: int, kind: Any = c.c_int32) -> int:
        return int(kind.from_buffer(self, offset).value)

    def put(self, offset: int, value: int, kind: Any = c.c_int32) -> None:
        kind.from_buffer(self, offset).value = value

    def expect(self, what: str, **values: tuple[int, int]) -> None:
        for name, (offset, want) in values.items():
            if (got := self.get(offset)) != want:
                raise Missing(f"llama.cpp: {what}.{name} is {got} by default, expected {want}: "
                              "these libraries are of a version with other structs")  # fmt: skip


class _Batch(c.Structure):
    _fields_ = (
        ("n", c.c_int32), ("token", c.c_void_p), ("embd", c.c_void_p), ("pos", c.c_void_p),
        ("n_seq", c.c_void_p), ("seq", c.c_void_p), ("logits", c.c_void_p),
    )  # fmt: skip


_KEPT: list[Any] = []  # callbacks that the library calls


class Libraries:
    """The shared libraries of a folder; Missing if they are not there."""

    def __init__(self, folder: Path, variant: str = "") -> None:
        self.ggml = _open(folder, "libggml-base", "libggml")[-1]
        (self.llama,) = _open(folder, "libllama")
        quiet = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda *_: None)
        _KEPT.append(quiet)
        self.llama.llama_log_set(quiet, None)
        if variant:
            self.ggml.ggml_backend_load.restype = c.c_void_p
            if not self.ggml.ggml_backend_load(str(folder / f"libggml-cpu-{variant}.so").encode()):
                raise Missing(f"llama.cpp: this processor or folder has no variant '{variant}'")
        else:
            self.ggml.ggml_backend_load_all_from_path(str(folder).encode())
        self.llama.llama_backend_init()
        for name in ("llama_version", "llama_print_system_info"):
            getattr(self.llama, name).restype = c.c_char_p
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_get_memory",
                     "llama_model_get_vocab", "llama_get_logits_ith"):  # fmt: skip
            getattr(self.llama, name).restype = c.c_void_p
        self.version = self.llama.llama_version().decode()

    def defaults(self, name: str) -> _Raw:
        f = getattr(self.llama, name)
        f.restype = _Raw
        out: _Raw = f()
        return out

    def write(self, source: Path, target: Path, weights: str) -> None:
        """Write the model with all its matrices as one of WEIGHT_TYPES."""
        file, tensor = WEIGHT_TYPES[weights]
        p = self.defaults("llama_model_quantize_default_params")
        p.expect("quantize", output=(8, 43), embedding=(12, 43), flags=(16, 256))
        for offset in (4, 8, 12):  # file type, output tensor, embedding
            p.put(offset, file if offset == 4 else tensor)
        p.put(16, 1, c.c_uint8)  # from types that are quantised already
        p.put(19, 1, c.c_uint8)  # all tensors alike
        if self.llama.llama_model_quantize(str(source).encode(), str(target).encode(), c.byref(p)):
            raise Missing(f"llama.cpp cannot write '{source}' as {weights}")


def _open(folder: Path, *names: str) -> list[Any]:
    out = []
    for name in names:
        found = sorted(folder.glob(f"{name}.so*")) or sorted(folder.glob(f"{name}.v*.so"))
        if not found:
            raise Missing(f"'{folder}' has no {name}.so: expected the shared libraries of llama.cpp 0.5, as "
                          "the npm package @node-llama-cpp/linux-x64 has them in bins/linux-x64")  # fmt: skip
        out.append(c.CDLL(str(found[0]), mode=c.RTLD_GLOBAL))
    return out


class _Model:
    def __init__(self, lib: Libraries, path: Path, s: Setting) -> None:
        self.lib = lib.llama
        m = lib.defaults("llama_model_default_params")
        m.expect("model", gpu_layers=(16, -1), split_mode=(20, 1), load_mode=(28, 1))
        m.put(28, 0)  # into memory, not mapped
        self.lib.llama_model_load_from_file.argtypes = (c.c_char_p, _Raw)
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), m)
        if not self.model:
            raise Missing(f"llama.cpp cannot load '{path}'")
        p = lib.defaults("llama_context_default_params")
        p.expect("context", ctx=(0, 512), batch=(4, 2048), ubatch=(8, 512), threads=(28, 4),
                 flash=(52, -1), type_k=(104, F16), type_v=(108, F16))  # fmt: skip
        kind = F32 if s.cache == "f32" else F16
        for offset, value in ((0, POSITIONS), (28, s.threads), (32, s.threads), (52, int(s.flash)), (104, kind),
                              (108, kind)):  # fmt: skip
            p.put(offset, value)
        p.put(132, int(s.whole_window), c.c_uint8)
        self.lib.llama_init_from_model.argtypes = (c.c_void_p, _Raw)
        self.context = self.lib.llama_init_from_model(self.model, p)
        if not self.context:
            raise Missing(f"llama.cpp refuses the setting {s}")
        self.lib.llama_model_get_vocab.argtypes = (c.c_void_p,)
        self.lib.llama_get_memory.argtypes = (c.c_void_p,)
        self.lib.llama_memory_clear.argtypes = (c.c_void_p, c.c_bool)
        self.lib.llama_memory_seq_rm.argtypes = (c.c_void_p, c.c_int32, c.c_int32, c.c_int32)
        self.lib.llama_batch_get_one.restype = _Batch
        self.lib.llama_decode.argtypes = (c.c_void_p, _Batch)
        self.lib.llama_get_logits_ith.argtypes = (c.c_void_p, c.c_int32)
        self.lib.llama_vocab_n_tokens.argtypes = (c.c_void_p,)
        self.vocabulary = int(
            self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))
        )
        self.memory = self.lib.llama_get_memory(self.context)

    def take(self, tokens: list[int]) -> c.Array[c.c_float]:
        """Take in tokens behind those that are there; the logits behind the last one."""
        given = (c.c_int32 * len(tokens))(*tokens)
        if self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(given, len(tokens))):
            raise Missing("llama_decode failed")
        at = self.lib.llama_get_logits_ith(self.context, -1)
        out: c.Array[c.c_float] = (c.c_float * self.vocabulary).from_address(at)
        return out

    def clear(self) -> None:
        self.lib.llama_memory_clear(self.memory, True)

    def back_to(self, position: int) -> None:
        if not self.lib.llama_memory_seq_rm(self.memory, 0, position, -1):
            raise Missing("llama.cpp cannot go back")


def _serve(link: Connection, folder: Path, path: Path, s: Setting) -> None:
    """Answer what `Side` asks, in a process of its own."""
    try:
        lib = Libraries(folder, s.variant)
        model = _Model(lib, path, s)
        link.send((lib.version, lib.llama.llama_print_system_info().decode()))
        while (asked := link.recv()) is not None:
            what, tokens, more = asked
            if what == "fill":
                model.clear()
                link.send(np.array(model.take(tokens)))
            elif what == "read":
                model.clear()
                begin = time.perf_counter()
                model.take(tokens)
                link.send(time.perf_counter() - begin)
            else:  # decode: `tokens` is a position
                begin = time.perf_counter()
                for t in more:
                    model.take([t])
                link.send((time.perf_counter() - begin) / len(more))
                model.back_to(tokens)
    except Missing as e:
        link.send(e)


class Side:
    """llama.cpp with a setting, as one side of a comparison."""

    def __init__(self, folder: Path, path: Path, setting: Setting) -> None:
        self.setting = setting
        spawn = multiprocessing.get_context("spawn")
        self.link, other = spawn.Pipe()
        self.process = spawn.Process(
            target=_serve, args=(other, folder, path, setting), daemon=True
        )
        self.process.start()
        other.close()
        self.version, self.system = self._answer()

    def _answer(self) -> Any:
        try:
            got = self.link.recv()
        except EOFError:
            raise Missing(f"llama.cpp ended with {self.setting}") from None
        if isinstance(got, Missing):
            raise got
        return got

    def ask(self, what: str, tokens: Any, more: Any = ()) -> Any:
        self.link.send((what, tokens, more))
        return self._answer()

    def close(self) -> None:
        self.link.send(None)
        self.process.join()


def write_gguf(folder: Path, source: Path, target: Path, weights: str) -> None:
    """Write a GGUF file with its matrices as one of WEIGHT_TYPES, in a process of its own; Missing."""
    spawn = multiprocessing.get_context("spawn")
    link, other = spawn.Pipe()
    process = spawn.Process(
        target=_write, args=(other, folder, source, target, weights), daemon=True
    )
    process.start()
    other.close()
    try:
        problem = link.recv()
    except EOFError:
        problem = Missing("llama.cpp's quantiser ended")
    process.join()
    if problem is not None:
        raise problem


def _write(link: Connection, folder: Path, source: Path, target: Path, weights: str) -> None:
    try:
        Libraries(folder).write(source, target, weights)
        link.send(None)
    except Missing as e:
        link.send(e)
