"""Sentence encoders that are small enough to compile in seconds, as directories."""

import json

import torch
import transformers

from ree.embedding.source import ENCODERS

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "cat",
    "dog",
    "##s",
    "##ly",
    "sat",
    ",",
    ".",
    "the",
]
SHAPE = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 2, "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
DISTIL = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}
TOKENIZER = {
    "version": "1.0",
    "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0},  # which is not applied
    "padding": None,
    "added_tokens": [
        {"id": i, "content": WORDS[i], "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False} for i in range(4)
    ],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                   "strip_accents": None, "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": {w: i for i, w in enumerate(WORDS)}},
}  # fmt: skip


def modules(*kinds):
    folders = {
        "Transformer": "",
        "Pooling": "1_Pooling",
        "Normalize": "2_Normalize",
        "Dense": "2_Dense",
    }
    return [
        {
            "idx": i,
            "name": str(i),
            "path": folders.get(k, k),
            "type": f"sentence_transformers.models.{k}",
        }
        for i, k in enumerate(kinds)
    ]


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def directory(path, family="bert", pooling="mean_tokens", unit=True, **config):
    """A sentence-transformers directory with random weights; the transformer in it."""
    kind = getattr(transformers, ENCODERS[family])
    shape = SHAPE | (DISTIL if family == "distilbert" else {}) | config
    torch.manual_seed(0)
    model = kind(kind.config_class(**shape)).eval()
    model.save_pretrained(path)
    write(path / "tokenizer.json", TOKENIZER)
    write(path / "modules.json", modules("Transformer", "Pooling", *["Normalize"] * unit))
    ways = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    told = {f"pooling_mode_{w}": w == pooling for w in ways}
    write(path / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, **told})
    return model
