"""Language models from disk: a Hugging Face directory or a GGUF file, read without trust.

Weights come from safetensors or GGUF alone, code from transformers alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ree.errors import ReeError
from ree.generation.gguf_file import GgufFile
from ree.generation.gguf_model import GgufModel
from ree.generation.gguf_tokenizer import tokenizer_json
from ree.generation.narrow import NarrowMatrix
from ree.kernels.types import DType
from ree.traces.strict_json import strict_json

# model_type of config.json -> class of transformers; each is tested to compile and to give eager's logits
FAMILIES = {
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "phi": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
EAGER = ("gemma2", "mpnet")  # cap or shift attention scores, which torch's own attention does not
ROTATIONS = ("default", "linear", "llama3", "yarn")  # others change with the length of the text
# families with fewer of them: one adds positions and rotates nothing, the other's own changes with the length
FEWER_ROTATIONS = {"gpt2": ("default",), "phi3": ("default",)}
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers
# model types that take a mask for each kind of layer
BY_LAYER = frozenset({"gemma2", "gemma3_text", "qwen2", "qwen2_moe", "qwen3"})
# those of which all layers have a window, if there is one; of others the configuration's word has no effect
WINDOWED = frozenset({"mistral", "mixtral", "phi3"})
MAX_TEXT_FILE = 64 << 20
MAX_SIZE = 1 << 24  # of any dimension in a configuration
MAX_LAYERS = 1024
MAX_ELEMENTS = 1 << 40
MAX_MISSING = 1 << 25  # elements that a model is made with, though its files do not have them
_FLOATS = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class SpecialIds:
    """Tokens with a meaning of their own: ids, None or () where there is none; texts, "" likewise.

    A generation ends at any of `stop`.
    """

    bos: int | None = None
    stop: tuple[int, ...] = ()
    pad: int | None = None
    bos_token: str = ""
    eos_token: str = ""
    pad_token: str = ""


@dataclass(frozen=True)
class ModelSource:
    """A language model and its text: `module` in eval mode with float32 weights and no gradients.

    matrices: those of its weights that the files keep narrower, by name.
    """

    module: Any
    tokenizer_json: bytes
    chat_template: str | None
    special: SpecialIds
    context_length: int
    name: str
    matrices: Mapping[str, NarrowMatrix] = field(default_factory=dict)  # as the files keep them


def load_source(path: Path | str) -> ModelSource:
    """The model of a directory (config.json, *.safetensors, tokenizer.json) or a GGUF file.

    A chat template is read from chat_template.jinja, else from tokenizer_config.json. Nothing of the source
    is executed. ReeError, one line, for what is missing, malformed, too large or of an unknown family.
    """
    path = Path(path)
    if path.is_dir():
        return ModelDirectory(path).source()
    if not path.is_file():
        raise ReeError(f"no model '{path}'", "expected a Hugging Face directory or a GGUF file")
    return _gguf(path)


def _gguf(path: Path) -> ModelSource:
    with GgufFile(path) as file:
        model = GgufModel(file)
        text_parts = tokenizer_json(model)
        weights: dict[str, Any] = {}
        matrices: dict[str, NarrowMatrix] = {}
        check_sizes(model.config, str(path))
        import torch

        def take(name: str, value: Any, matrix: NarrowMatrix | None) -> None:
            weights[name] = torch.from_numpy(value)
            if matrix is not None:
                matrices[name] = matrix

        model.weights(take)
        module = load_module(model.config, weights, str(path))
        bos, eos, pad = (model.token_id(x) for x in ("bos", "eos", "padding"))
        stop = {x for x in (eos, model.token_id("eot"), model.token_id("eom")) if x is not None}

        def text(i: int | None) -> str:
            return "" if i is None else model.tokens[i]

        special = SpecialIds(bos, tuple(sorted(stop)), pad, text(bos), text(eos), text(pad))
        return ModelSource(
            module,
            text_parts,
            model.chat_template(),
            special,
            context_of(model.config),
            path.stem,
            matrices,
        )


class ModelDirectory:
    """A Hugging Face directory; only plain files in it are read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def source(self) -> ModelSource:
        config = self.json("config.json")
        if config is None:
            raise ReeError(
                f"'{self.path}' has no config.json", "expected a Hugging Face causal-LM directory"
            )
        check_sizes(config, str(self.path))
        if (self.path / "adapter_config.json").exists():
            raise ReeError(f"'{self.path}' is an adapter", "merge it into its base model first")
        if config.get("quantization_config"):
            raise ReeError(f"'{self.path}': quantized weights are not supported in a directory")
        tokenizer_json = self.read("tokenizer.json")
        if tokenizer_json is None:
            raise ReeError(f"'{self.path}' has no tokenizer.json")
        told = self.json("tokenizer_config.json") or {}
        special = self._special(config, told, tokenizer_json)
        matrices: dict[str, NarrowMatrix] = {}
        module = load_module(config, self.weights(matrices), str(self.path))
        return ModelSource(
            module,
            tokenizer_json,
            self._template(told),
            special,
            context_of(config),
            self.path.resolve().name,
            matrices,
        )

    def read(self, name: str) -> bytes | None:
        path = self.path / name
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_TEXT_FILE:
            raise ReeError(
                f"'{path}' has {path.stat().st_size} bytes, expected at most {MAX_TEXT_FILE}"
            )
        with path.open("rb") as f:
            return f.read(MAX_TEXT_FILE)

    def json(self, name: str) -> dict[str, Any] | None:
        raw = self.read(name)
        if raw is None:
            return None
        try:
            value = strict_json(raw)
        except ValueError as e:
            raise ReeError(f"'{self.path / name}' is not JSON: {e}") from e
        if not isinstance(value, dict):
            raise ReeError(f"'{self.path / name}' is not a JSON object")
        return value

    def _template(self, told: Mapping[str, Any]) -> str | None:
        raw = self.read("chat_template.jinja")
        if raw is not None:
            try:
                return raw.decode()
            except UnicodeDecodeError as e:
                raise ReeError(f"'{self.path / 'chat_template.jinja'}' is not UTF-8") from e
        found = told.get("chat_template")
        if isinstance(found, list):  # several, by name
            named = {x.get("name"): x.get("template") for x in found if isinstance(x, dict)}
            found = named.get("default")
        if found is not None and not isinstance(found, str):
            raise ReeError(f"'{self.path / 'tokenizer_config.json'}': chat_template is not a text")
        return found

    def _special(
        self, config: Mapping[str, Any], told: Mapping[str, Any], tokenizer_json: bytes
    ) -> SpecialIds:
        told_ids = self.json("generation_config.json") or {}
        added = _added(tokenizer_json, str(self.path / "tokenizer.json"))
        found = {k: _ids(config.get(f"{k}_token_id"), self.path) for k in ("bos", "eos", "pad")}
        stop = set(_ids(told_ids.get("eos_token_id"), self.path) or found["eos"])
        ids: dict[str, int | None] = {}
        texts: dict[str, str] = {}
        for kind, listed in found.items():  # the tokenizer's word comes before the model's
            text = _token_text(told.get(f"{kind}_token"))
            ids[kind] = added.get(text, listed[0] if listed else None)
            texts[kind] = text or next((t for t, i in added.items() if i == ids[kind]), "")
        if ids["eos"] is not None:
            stop.add(ids["eos"])
        return SpecialIds(
            ids["bos"], tuple(sorted(stop)), ids["pad"], texts["bos"], texts["eos"], texts["pad"]
        )

    def weights(self, matrices: dict[str, NarrowMatrix] | None = None) -> dict[str, Any]:
        """Every tensor of every safetensors file, float32; each name once. matrices: takes those that are
        kept in half precision."""
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            pickled = [*self.path.glob("*.bin"), *self.path.glob("*.pt"), *self.path.glob("*.pth")]
            raise ReeError(
                f"'{self.path}' has no safetensors"
                + (f", only {pickled[0].name}" if pickled else ""),
                "pickled weights can run code when they are loaded; convert them to safetensors"
                if pickled
                else "",
            )
        import torch
        from safetensors import SafetensorError, safe_open

        out: dict[str, Any] = {}
        for file in files:
            try:
                with safe_open(file, "pt") as f:
                    for name in f.keys():  # noqa: SIM118 - not a dict
                        if name.endswith("embeddings.position_ids"):
                            _check_positions(f.get_tensor(name), f"'{file}': {name}")
                            continue
                        if (code := f.get_slice(name).get_dtype()) not in _FLOATS:
                            raise ReeError(
                                f"'{file}': tensor {name} is {code}, expected one of {', '.join(_FLOATS)}"
                            )
                        if name in out:
                            raise ReeError(f"'{file}': tensor {name} stands in another file too")
                        value = f.get_tensor(name)
                        out[name] = value.float()
                        if matrices is not None and value.ndim == 2 and code in ("F16", "BF16"):
                            bits = value.view(torch.int16).numpy().view(np.uint16)
                            half = DType.parse(code.lower())
                            matrices[name] = NarrowMatrix(bits.view(half.numpy), half)
            except (SafetensorError, OSError) as e:
                raise ReeError(f"'{file}' is not safetensors: {e}") from e
        for name, value in out.items():
            if not bool(value.isfinite().all()):
                raise ReeError(f"'{self.path}': tensor {name} has values that are not finite")
        return out


def _check_positions(value: Any, name: str) -> None:
    """Older files keep the numbers of positions beside the weights; a model counts them itself."""
    if value.flatten().tolist() != list(range(value.numel())):
        raise ReeError(f"{name} does not count from 0")


def check_sizes(
    config: Mapping[str, Any], name: str, families: Mapping[str, str] = FAMILIES
) -> None:
    """The family is known, and no size is one that could not be."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in families:
        raise ReeError(
            f"{name}: models of type {str(kind)[:60]} are not supported",
            f"supported: {', '.join(families)}",
        )
    numbers = {k: x for k, x in config.items() if isinstance(x, int) and not isinstance(x, bool)}
    for key, value in numbers.items():
        most = MAX_LAYERS if key in ("num_hidden_layers", "n_layer") else MAX_SIZE
        if not -1 <= value <= most:
            raise ReeError(f"{name}: {key} is {value}, expected at most {most}")
    _check_rotations(config, name)
    wide = [
        numbers.get(k, 1)
        for k in ("vocab_size", "hidden_size", "n_embd", "num_experts", "num_local_experts")
    ]
    if math.prod(max(x, 1) for x in wide) > MAX_ELEMENTS:
        raise ReeError(f"{name}: the sizes of the configuration are too large")


def _check_rotations(config: Mapping[str, Any], name: str) -> None:
    """How positions rotate is the same at every length: a position's bits must not depend on later ones."""
    family = config.get("model_type")
    supported = FEWER_ROTATIONS.get(str(family), ROTATIONS)
    told = [config.get(k) for k in ("rope_scaling", "rope_parameters")]
    if (
        family == "gemma3_text"
        and isinstance(told[1], dict)
        and not told[1].keys() <= {FULL, SLIDING}
    ):
        raise ReeError(f"{name}: rope_parameters of gemma3_text, expected by {FULL} and {SLIDING}, "
                       f"got {', '.join(map(repr, told[1]))[:80]}")  # fmt: skip
    told += [x for t in told if isinstance(t, dict) for x in t.values()]  # by kind of layer
    for t in told:
        if not isinstance(t, dict):
            continue
        kind = t.get("rope_type", t.get("type", "default"))
        if kind not in supported:
            raise ReeError(f"{name}: rotation of positions by {str(kind)[:40]} is not supported in {family}",
                           f"supported: {', '.join(supported)}")  # fmt: skip


def _check_layers(config: Any, name: str) -> None:
    """Layers are of kinds that the family has: transformers ignores others, or fails in the middle."""
    kinds, family = getattr(config, "layer_types", None), config.model_type
    if kinds is None:
        return
    window = getattr(config, "sliding_window", None)
    if family in BY_LAYER:
        known = (FULL, SLIDING) if window else (FULL,)
    else:
        known = (SLIDING,) if family in WINDOWED and window else (FULL,)
    if wrong := next((k for k in kinds if k not in known), None):
        windowed = wrong == SLIDING and not window
        raise ReeError(f"{name}: a layer of type {wrong} "
                       + ("needs a sliding_window" if windowed else f"is not supported in {family}"),
                       f"supported: {', '.join(known)}")  # fmt: skip


def context_of(config: Mapping[str, Any]) -> int:
    for key in ("max_position_embeddings", "n_positions"):
        if isinstance(config.get(key), int):
            return int(config[key])
    raise ReeError("the configuration does not say how long a context is")


def load_module(
    config: Mapping[str, Any],
    weights: dict[str, Any],
    name: str,
    families: Mapping[str, str] = FAMILIES,
    **options: Any,
) -> Any:
    """The model with exactly these weights; ReeError if one is missing, left over, or of another shape."""
    import torch
    import transformers

    kind: Any = getattr(transformers, families[config["model_type"]])
    given = {
        k: x
        for k, x in config.items()
        if k not in ("auto_map", "dtype", "torch_dtype", "_name_or_path")
    }
    try:
        with _quiet():
            settings = kind.config_class.from_dict(given)
            _check_layers(settings, name)
            _check_count(kind, settings, weights, name)
            module, info = kind.from_pretrained(
                None,
                config=settings,
                state_dict=weights,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                attn_implementation="eager" if config["model_type"] in EAGER else "sdpa",
                **options,
            )
    except (ReeError, MemoryError):
        raise
    except Exception as e:  # transformers checks a configuration in many ways
        raise ReeError(
            f"{name}: transformers does not take it: {type(e).__name__}: {str(e)[:200]}"
        ) from e
    for key, what in (
        ("missing_keys", "is missing"),
        ("unexpected_keys", "is not of this model"),
        ("mismatched_keys", "has another shape"),
    ):
        if wrong := sorted(x if isinstance(x, str) else str(x[0]) for x in info[key]):
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise ReeError(f"{name}: tensor {wrong[0]} {what}{more}")
    return module.eval().requires_grad_(False)


def _check_count(kind: Any, settings: Any, weights: Mapping[str, Any], name: str) -> None:
    """No memory is taken for a model that is far larger than its weights: which of them has another shape is
    said once it is made."""
    import torch

    with torch.device("meta"):
        wanted = sum(p.numel() for p in kind(settings).parameters())
    given = sum(x.numel() for x in weights.values())
    if wanted > given + MAX_MISSING:
        raise ReeError(
            f"{name}: the configuration is of a model with {wanted} weights, there are {given}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' reports and bars: what they say is checked, or raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _token_text(value: Any) -> str:
    """A token in tokenizer_config.json: a text, or an object with one."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _ids(value: Any, path: Path) -> list[int]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(x) is int and 0 <= x < MAX_SIZE for x in found):
        raise ReeError(f"'{path}': a special token's id is {json.dumps(value)[:40]}")
    return found


def _added(tokenizer_json: bytes, name: str) -> dict[str, int]:
    """Added tokens of tokenizer.json, by their text."""
    try:
        listed = strict_json(tokenizer_json)["added_tokens"]
        return {
            x["content"]: x["id"]
            for x in listed
            if type(x["id"]) is int and type(x["content"]) is str
        }
    except (ValueError, KeyError, TypeError) as e:
        raise ReeError(f"'{name}' is not a tokenizer: {type(e).__name__}: {e}") from e
