"""ree generate, verify, claim and key, as a person types them."""

import json

import pytest

from ree.cli import main

from .conftest import byte_level_json
from .tiny import model_of, module_of


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.ree"
    model_of().program.save(path)
    return str(path)


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def command(*args):
        code = main([str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_an_answer_its_receipt_and_a_flipped_token(command, artifact, tmp_path):
    receipt, key = tmp_path / "r.json", tmp_path / "k"
    code, public, _ = command("key", "new", "--key", key)
    assert code == 0
    code, out, err = command("generate", artifact, "--chat", "hello", "--max-tokens", 20, "--receipt", receipt,
                         "--key", key)  # fmt: skip
    assert code == 0
    assert public.strip() in err
    assert "20 drawn" in err
    m = json.loads(receipt.read_bytes())
    assert out.rstrip("\n").endswith(ascii(m["text"][-1])[1:-1])
    code, out, _ = command("verify", receipt, "--artifact", artifact)
    assert code == 0
    assert "same: every one of" in out
    assert public.strip() in out
    code, out, _ = command("verify", receipt, "--signature")
    assert code == 0
    assert "no token was checked" in out
    code, out, _ = command("verify", receipt, "--text", "--artifact", artifact, "--json")
    assert code == 0
    assert json.loads(out)["level"] == "text"
    m["completion_tokens"][3] ^= 1
    receipt.write_text(json.dumps(m))
    for more in (("--artifact", artifact), ("--signature",)):
        code, out, err = command("verify", receipt, *more)
        assert code == 1
        assert out.startswith("differs: ")


def test_a_seed_repeats_an_answer(command, artifact):
    def text(*more):
        code, out, _ = command("generate", artifact, "--prompt", "abc", "--temperature", 1, "--max-tokens", 12,
                           "--json", *more)  # fmt: skip
        assert code == 0
        return json.loads(out)

    one, other = text(), text()
    assert one["seed"] != other["seed"]
    again = text("--seed", one["seed"])
    assert again["completion_tokens"] == one["completion_tokens"]


def test_a_conversation_from_a_file(command, artifact, tmp_path):
    path = tmp_path / "m.json"
    path.write_text(
        json.dumps([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}])
    )
    code, out, _ = command("generate", artifact, "--messages", path, "--max-tokens", 3, "--json")
    assert code == 0
    code, other, _ = command(
        "generate", artifact, "--chat", "hi", "--system", "be brief", "--max-tokens", 3, "--json"
    )
    assert json.loads(out)["prompt_tokens"] == json.loads(other)["prompt_tokens"]


def test_a_claim_is_written_as_a_run(command, artifact, tmp_path):
    receipt = tmp_path / "r.json"
    command("generate", artifact, "--chat", "hello", "--max-tokens", 8, "--receipt", receipt)
    code, out, _ = command("claim", receipt, "--artifact", artifact, "-o", tmp_path / "run")
    assert code == 0
    assert json.loads(receipt.read_bytes())["commitment"] in out
    code, out, _ = command("verify", tmp_path / "run")
    assert code == 0
    assert "same" in out


def test_receipts_are_compared(command, artifact, tmp_path):
    paths = [tmp_path / f"{i}.json" for i in range(3)]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        command("generate", artifact, "--chat", "hello", "--temperature", 1, "--seed", seed, "--max-tokens", 9,
                "--receipt", path)  # fmt: skip
    code, out, _ = command("diff", *paths[:2])
    assert (code, out[:5]) == (0, "same:")
    code, out, _ = command("diff", *paths[1:], "--json")
    found = json.loads(out)["differences"]
    assert code == 1
    assert found[0]["what"] == "request, seed: 1, 2"
    first = next(d for d in found if d["position"] is not None)
    tokens = [json.loads(p.read_bytes()) for p in paths[1:]]
    a, b = (m["prompt_tokens"] + m["completion_tokens"] for m in tokens)
    at = first["position"]
    assert a[:at] == b[:at]
    assert a[at] != b[at]
    m = tokens[0]
    m["records"][0][0] = "0" * 64
    paths[0].write_text(json.dumps(m))
    code, out, _ = command("diff", paths[0], paths[1])
    assert code == 1
    assert "keys and values behind chunk 1" in out


WRONG = [
    (("generate", "ART", "--chat", "x", "--prompt", "y"), "not allowed with"),
    (("generate", "ART"), "one of the arguments"),
    (("generate", "ART", "--prompt", "y", "--system", "z"), "--system goes with --chat"),
    (("generate", "ART", "--chat", "x", "--temperature", "-1"), "temperature: expected 0"),
    (("generate", "ART", "--chat", "x", "--temperature", "nan"), "temperature: expected 0"),
    (("generate", "ART", "--chat", "x", "--top-p", "2"), "top_p: expected 0"),
    (("generate", "ART", "--chat", "x", "--top-k", "-2"), "top_k: expected 0"),
    (("generate", "ART", "--chat", "x", "--seed", str(2**64)), "seed: expected"),
    (("generate", "ART", "--chat", "x", "--max-tokens", "0"), "max_tokens: expected at least 1"),
    (("generate", "ART", "--chat", "x" * 600), "tokens"),
    (("generate", "ART", "--chat", "x", "--date", "tomorrow"), "date"),
    (("generate", "ART", "--messages", "nowhere.json"), "cannot read"),
    (("generate", "ART", "--chat", "x", "--key", "k"), "--key goes with --receipt"),
    (("generate", "ART", "--chat", "x", "--receipt", "/nowhere/r.json"), "/nowhere"),
    (("generate", "nowhere.ree", "--chat", "x"), "no artifact"),
    (("verify", "RECEIPT"), "--artifact"),
    (("verify", "RECEIPT", "--signature", "--artifact", "ART"), "--signature goes without"),
    (("verify", "RECEIPT", "--artifact", "ART", "--trace", "t"), "no meaning for a receipt"),
    (("verify", "ART", "--text", "--trace", "t"), "is for a receipt"),
    (("verify", "JUNK", "--signature"), "not a receipt"),
    (("verify", "nowhere.json", "--signature"), "no receipt 'nowhere.json'"),
    (("verify", "nowhere.json", "--artifact", "ART"), "no receipt 'nowhere.json'"),
    (("claim", "RECEIPT", "--artifact", "OTHER", "-o", "r"), "the receipt is of program "),
    (("claim", "JUNK", "--artifact", "ART", "-o", "r"), "not a receipt"),
    (("key", "show", "--key", "nowhere"), "nowhere"),
    (("compile", "JUNK.gguf", "-o", "x.ree"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("args", "said"), WRONG)
def test_what_is_wrong_is_said_in_a_line(command, artifact, tmp_path, monkeypatch, args, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk").write_text("{}")
    (tmp_path / "junk.gguf").write_bytes(b"GGUFjunk")
    receipt = tmp_path / "r.json"
    if "RECEIPT" in args:
        command("generate", artifact, "--chat", "hello", "--max-tokens", 2, "--receipt", receipt)
    if "OTHER" in args:
        model_of("gemma3_text").program.save(tmp_path / "other.ree")
    names = {
        "ART": artifact,
        "RECEIPT": receipt,
        "JUNK": tmp_path / "junk",
        "OTHER": tmp_path / "other.ree",
        "JUNK.gguf": tmp_path / "junk.gguf",
    }
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = command(*(names.get(a, a) for a in args))
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert len([x for x in err.splitlines() if x.startswith("error")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(("sizes", "part", "said"), [
    ({"max_position_embeddings": 1 << 21}, {}, "context: expected"),
    ({}, {"normalizer": {"type": "Precompiled"}}, "a normalizer of type Precompiled"),
    ({"vocab_size": 100, "eos_token_id": 9, "bos_token_id": 8}, {}, "the tokenizer has 260 tokens"),
])  # fmt: skip
def test_a_model_that_could_not_be_loaded_leaves_no_artifact(command, tmp_path, sizes, part, said):
    source, out = tmp_path / "source", tmp_path / "out.ree"
    module_of("llama", **sizes).save_pretrained(source)
    (source / "tokenizer.json").write_text(json.dumps(byte_level_json() | part))
    code, printed, err = command("compile", source, "-o", out)
    assert (code, printed) == (2, "")
    assert said in err
    assert not out.exists()
