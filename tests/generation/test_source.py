"""Models from disk: each family as transformers runs it; refusals."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import ree
from ree.errors import ReeError
from ree.generation.models import smollm2_path
from ree.generation.source import FAMILIES, load_source

SIZES = {
    "vocab_size": 260,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 257,
    "eos_token_id": 258,
}
MOE = {"moe_intermediate_size": 40, "num_experts": 4, "num_experts_per_tok": 2}
OWN = {
    "gemma2": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mistral": {"sliding_window": 8, "head_dim": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 40},
    "qwen3": {"head_dim": 12},
}
IDS = torch.arange(13)[None] * 19 % 260


def made(kind, **sizes):
    """A random model of transformers."""
    import transformers

    torch.manual_seed(0)
    cls = getattr(transformers, FAMILIES[kind])
    own = {"vocab_size": 260, "bos_token_id": 257, "eos_token_id": 258} if kind == "gpt2" else SIZES
    model = cls(cls.config_class(**{**own, **OWN.get(kind, {}), **sizes})).eval()
    for p in model.parameters():  # norms start at one and biases at zero, which would hide mistakes
        p.data += 0.05 * torch.randn_like(p)
    return model


@pytest.fixture
def saved(tmp_path, byte_level):
    """A model in a directory, as transformers saves it."""

    def save(kind, **sizes):
        model = made(kind, **sizes)
        model.save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level))
        told = {
            "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": False},
            "chat_template": "{{ 1 }}",
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
        return model, tmp_path

    return save


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_directory_gives_the_logits_of_the_model_that_was_saved(saved, kind):
    model, path = saved(kind)
    source = load_source(path)
    assert torch.equal(logits(source.module), logits(model))
    assert not source.module.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in source.module.parameters())
    assert (source.context_length, source.chat_template, source.name) == (64, "{{ 1 }}", path.name)
    special = source.special
    assert (special.bos, special.stop, special.bos_token, special.eos_token) == (
        257,
        (258,),
        "<s>",
        "</s>",
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_family_compiles(kind):
    class Logits(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(input_ids=ids, use_cache=False).logits

    model = made(kind).requires_grad_(False)
    want = logits(model)
    have = ree.compile(Logits(model).eval(), (IDS,))(IDS)
    assert (
        have - want
    ).abs().max() <= 1e-5 * want.abs().max()  # of torch, whose order of sums is another


@pytest.mark.parametrize(
    "rotation",
    [{"rope_type": "linear", "factor": 2.0},
     {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 32},
     {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}],
)  # fmt: skip
def test_rotations_that_are_scaled(saved, rotation):
    model, path = saved("llama", rope_parameters={"rope_theta": 5000.0, **rotation})
    assert torch.equal(logits(load_source(path).module), logits(model))
    assert not torch.equal(logits(model), logits(made("llama", rope_theta=5000.0)))


def test_half_precision_is_widened(saved):
    _, path = saved("llama")
    weights = load_file(path / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in weights.items()}, path / "model.safetensors")
    source = load_source(path)
    assert all(
        torch.equal(v, weights[k].bfloat16().float())
        for k, v in source.module.state_dict().items()
        if k in weights
    )


def test_weights_in_several_files(saved):
    model, path = saved("llama")
    weights = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(weights)
    save_file({k: weights[k] for k in names[::2]}, path / "model-00001-of-00002.safetensors")
    save_file({k: weights[k] for k in names[1::2]}, path / "model-00002-of-00002.safetensors")
    assert torch.equal(logits(load_source(path).module), logits(model))
    save_file({k: weights[k] for k in names[:1]}, path / "model-00003-of-00002.safetensors")
    with pytest.raises(ReeError, match="stands in another file too"):
        load_source(path)


def test_stop_tokens_are_those_of_generation_and_tokenizer(saved):
    _, path = saved("llama")
    (path / "generation_config.json").write_text('{"eos_token_id": [5, 259]}')
    assert load_source(path).special.stop == (5, 258, 259)


def test_a_template_file_comes_first(saved):
    _, path = saved("llama")
    (path / "chat_template.jinja").write_text("{{ 2 }}")
    assert load_source(path).chat_template == "{{ 2 }}"
    told = {
        "chat_template": [
            {"name": "default", "template": "a"},
            {"name": "tool_use", "template": "b"},
        ]
    }
    (path / "chat_template.jinja").unlink()
    (path / "tokenizer_config.json").write_text(json.dumps(told))
    assert load_source(path).chat_template == "a"


def altered(path, **changes):
    config = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(config))


def pickled(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def without(path, name):
    weights = load_file(path / "model.safetensors")
    del weights[name]
    save_file(weights, path / "model.safetensors")


def with_tensor(path, name, value):
    save_file(load_file(path / "model.safetensors") | {name: value}, path / "model.safetensors")


WRONG = {
    "only pickled weights": (pickled, "only pytorch_model.bin"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "has no safetensors"),
    "no configuration": (lambda p: (p / "config.json").unlink(), "has no config.json"),
    "no tokenizer": (lambda p: (p / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "a configuration that is no JSON": (
        lambda p: (p / "config.json").write_text("{"),
        "is not JSON",
    ),
    "a configuration that is a list": (
        lambda p: (p / "config.json").write_text("[]"),
        "not a JSON object",
    ),
    "a family that is not supported": (
        lambda p: altered(p, model_type="bert"),
        "models of type bert",
    ),
    "a family of a list": (lambda p: altered(p, model_type=["llama"]), "models of type"),
    "10^9 layers": (
        lambda p: altered(p, num_hidden_layers=10**9),
        "num_hidden_layers is 1000000000",
    ),
    "a width of 10^12": (lambda p: altered(p, hidden_size=10**12), "hidden_size is"),
    "a width of a text": (lambda p: altered(p, hidden_size="32"), "transformers does not take it"),
    "heads that do not divide": (
        lambda p: altered(p, num_attention_heads=0),
        "transformers does not take it",
    ),
    "a width of gigabytes": (
        lambda p: altered(p, intermediate_size=1 << 23),
        "the configuration is of a model with 16[0-9]{8} weights, there are",
    ),
    "another width": (lambda p: altered(p, hidden_size=64), "has another shape"),
    "rotations that grow": (
        lambda p: altered(p, rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
        "by dynamic",
    ),
    "rotations that change": (
        lambda p: altered(p, rope_scaling={"type": "longrope"}),
        "by longrope",
    ),
    "rotations of a layer": (
        lambda p: altered(p, rope_parameters={"full_attention": {"rope_type": "longrope"}}),
        "by longrope",
    ),
    "rotations by a list": (
        lambda p: altered(p, rope_scaling={"rope_type": ["default"]}),
        "is not supported",
    ),
    "rotations of a layer, not by its kind": (
        lambda p: altered(
            p, model_type="gemma3_text", rope_parameters={"rope_type": "linear", "factor": 2.0}
        ),
        "expected by full_attention and sliding_attention, got 'rope_type', 'factor'",
    ),
    "rotations in a family without": (
        lambda p: altered(p, model_type="gpt2", rope_scaling={"rope_type": "yarn", "factor": 2.0}),
        "by yarn is not supported in gpt2",
    ),
    "rotations in a family with one of its own": (
        lambda p: altered(p, model_type="phi3", rope_scaling={"rope_type": "yarn", "factor": 2.0}),
        "by yarn is not supported in phi3",
    ),
    "layers of a kind that the family ignores": (
        lambda p: altered(p, layer_types=["chunked_attention"] * 2),
        "a layer of type chunked_attention is not supported in llama",
    ),
    "layers of a kind that there is not": (
        lambda p: altered(p, layer_types=["x"] * 2),
        "transformers does not take it",
    ),
    "no context": (
        lambda p: altered(p, max_position_embeddings=None),
        "transformers does not take it",
    ),
    "a stop token of a text": (lambda p: altered(p, eos_token_id="x"), "a special token's id"),
    "quantised": (
        lambda p: altered(p, quantization_config={"quant_method": "gptq"}),
        "quantized weights",
    ),
    "an adapter": (lambda p: (p / "adapter_config.json").write_text("{}"), "is an adapter"),
    "a tensor that is missing": (
        lambda p: without(p, "model.norm.weight"),
        "model.norm.weight is missing",
    ),
    "a tensor too many": (
        lambda p: with_tensor(p, "x", torch.ones(2)),
        "tensor x is not of this model",
    ),
    "a tensor of integers": (
        lambda p: with_tensor(p, "x", torch.ones(2, dtype=torch.int8)),
        "tensor x is I8",
    ),
    "a NaN": (
        lambda p: with_tensor(p, "model.norm.weight", torch.full((32,), torch.nan)),
        "not finite",
    ),
    "safetensors cut short": (
        lambda p: (p / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"),
        "safetensors",
    ),
    "a header of 2^60 bytes": (
        lambda p: (p / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60)),
        "safetensors",
    ),
    "a tokenizer without tokens": (
        lambda p: (p / "tokenizer.json").write_text("{}"),
        "is not a tokenizer",
    ),
    "a template that is a number": (
        lambda p: (p / "tokenizer_config.json").write_text('{"chat_template": 3}'),
        "not a text",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_line(saved, what):
    _, path = saved("llama")
    change, expected = WRONG[what]
    change(path)
    with pytest.raises(ReeError, match=expected) as e:
        load_source(path)
    assert "\n" not in e.value.message


@pytest.mark.parametrize(
    ("kind", "layers", "expected"),
    [
        ("qwen2", ["full_attention", "chunked_attention"], "type chunked_attention is not supported in qwen2"),
        ("qwen3", ["linear_attention", "full_attention"], "type linear_attention is not supported in qwen3"),
        ("qwen2", ["sliding_attention"] * 2, "type sliding_attention needs a sliding_window"),
        ("gemma3_text", ["full_attention", "chunked_attention"], "type chunked_attention is not supported"),
        ("mistral", ["full_attention"] * 2, "type full_attention is not supported in mistral"),
    ],
)  # fmt: skip
def test_layers_of_a_kind_that_the_family_does_not_have(saved, kind, layers, expected):
    _, path = saved(kind)
    altered(path, layer_types=layers)
    with pytest.raises(ReeError, match=expected) as e:
        load_source(path)
    assert "\n" not in e.value.message


def test_its_own_code_is_not_run(saved):
    _, path = saved("llama")
    (path / "modeling_evil.py").write_text("raise SystemExit('executed')")
    altered(
        path,
        auto_map={"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"},
    )
    assert type(load_source(path).module).__name__ == "LlamaForCausalLM"


def test_nothing_there(tmp_path):
    with pytest.raises(ReeError, match="no model"):
        load_source(tmp_path / "x.gguf")


def test_smollm2_answers():
    """The real model, in torch: its template, tokenizer and weights fit together."""
    from ree.generation.template import render
    from ree.generation.tokenizer import Tokenizer

    source = load_source(smollm2_path())
    tokenizer = Tokenizer(source.tokenizer_json)
    assert (source.special.bos, source.special.stop, source.context_length) == (1, (2,), 8192)
    assert source.chat_template is not None
    said = [{"role": "user", "content": "What is the capital of France?"}]
    text = render(source.chat_template, said, date="2026-01-31")
    ids = tokenizer.encode(text)
    assert len(ids) == 37
    with torch.no_grad():
        made = source.module.generate(torch.tensor([ids]), max_new_tokens=9, do_sample=False)[
            0
        ].tolist()[len(ids) :]
    assert tokenizer.decode(made) == "The capital of France is Paris."
    assert made[-1] in source.special.stop
