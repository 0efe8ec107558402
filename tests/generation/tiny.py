"""Language models that are small enough to compile in seconds, one a family."""

import json
from functools import cache

import torch
import transformers

from ree.generation.forward import compile_forward
from ree.generation.model import LanguageModel, Settings
from ree.generation.source import FAMILIES

from .conftest import byte_level_json

VOCABULARY, CONTEXT = 260, 512
STOP = 258  # </s>
WINDOW = 40
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT,
         "pad_token_id": 0, "bos_token_id": 257, "eos_token_id": STOP}  # fmt: skip
MORE = {
    "gemma2": {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": WINDOW, "query_pre_attn_scalar": 8,
                    "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"num_key_value_heads": None, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT,
             "n_inner": 48},
    "mistral": {"sliding_window": WINDOW},
    "mixtral": {"sliding_window": None, "num_local_experts": 4},
    "phi3": {"sliding_window": None, "original_max_position_embeddings": CONTEXT},
    "phi": {"head_dim": None},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                  "shared_expert_intermediate_size": 16},
}  # fmt: skip


def module_of(family, seed=0, **sizes):
    """A transformers model of a family with random weights."""
    model_class = getattr(transformers, FAMILIES[family])
    torch.manual_seed(seed)
    given = {
        k: v
        for k, v in (SHAPE | MORE.get(family, {}) | sizes).items()
        if v is not None or k == "sliding_window"
    }
    model = model_class(model_class.config_class(**given)).eval()
    with torch.no_grad():  # so that answers are not all of one token
        for p in model.parameters():
            p.mul_(3 if p.dim() > 1 else 1)
    return model


@cache
def model_of(family="llama"):
    """The compiled model of a family, with a tokenizer of bytes."""
    settings = Settings(
        f"tiny {family}", CONTEXT, (STOP,), {"bos_token": "<s>", "eos_token": "</s>"}
    )
    files = {"generation.json": settings.to_json(), "tokenizer.json": json.dumps(byte_level_json()).encode(),
             "chat_template.jinja": TEMPLATE.encode()}  # fmt: skip
    return LanguageModel(compile_forward(module_of(family), CONTEXT, files))
