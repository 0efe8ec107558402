"""A receipt where a run is expected: parties, a dispute and its verdict, and which of two receipts is false."""

import json
import signal
from dataclasses import replace

import pytest

from ree.cli import main
from ree.generation.claim import claim_step
from ree.generation.generator import Generator, Request
from ree.generation.request import Sampling

from ..verde.conftest import Served  # noqa: F401, TID252 - a fixture
from .test_receipts import honest_but_for_tokens
from .tiny import model_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An artifact, a receipt of 200 tokens, and one of the same request with another token."""
    out = tmp_path_factory.mktemp("receipts")
    model_of().program.save(out / "tiny.ree")
    sampling = Sampling(temperature=0.9, seed=5, min_tokens=150)
    receipt, _ = Generator(model_of()).generate(
        Request(prompt="some words", sampling=sampling, max_tokens=190, stop_tokens=())
    )
    (out / "true.json").write_bytes(receipt.to_json())
    tokens = list(receipt.completion_tokens)
    tokens[150] = (tokens[150] + 1) % 250
    forged = honest_but_for_tokens(replace(receipt, completion_tokens=tuple(tokens)))
    (out / "false.json").write_bytes(forged.to_json())
    return out


def fault_of(folder):
    """What a liar of the command line is told: an operation of the last chunk."""
    from ree.cli.receipt_checked import read_receipt

    graph = claim_step(
        model_of().forward, read_receipt(str(folder / "true.json")).claimed
    ).instance.graph
    value = next(n.first for n in graph.nodes if n.op == "linear")
    return ("--fault", f"{value},0,5,0x10000000", "--fault-step", "2")


def test_a_dispute_over_a_receipt(capsys, Served, folder, tmp_path):  # noqa: F811
    receipt, model = str(folder / "true.json"), ("--model", str(folder / "tiny.ree"))
    honest, liar = (Served(receipt, *model, *more) for more in ((), fault_of(folder)))
    try:
        for defender, challenger, code in ((liar, honest, 1), (honest, liar, 0)):
            out = tmp_path / f"v{code}"
            capsys.readouterr()
            got = main(["dispute", "--defender", defender.url, "--challenger", challenger.url, "--artifact",
                        receipt, *model, "-o", str(out), "--json"])  # fmt: skip
            data = json.loads(capsys.readouterr().out)
            assert (got, data["reason"][:8]) == (code, "executed")
            assert "step 2" in json.dumps(data["timeline"])
            assert main(["verdict", str(out), "--artifact", receipt, *model]) == 0
    finally:
        honest.stop(signal.SIGKILL)
        liar.stop(signal.SIGKILL)


def test_which_of_two_receipts_is_false(capsys, folder):
    left, right = (str(folder / f"{n}.json") for n in ("true", "false"))
    model = ("--model", str(folder / "tiny.ree"))
    assert main(["diff", left, right, *model]) == 1
    out = capsys.readouterr().out
    assert f"{left}: true" in out
    assert f"{right}: false: token 160 in chunk 2 is not the one that the request draws" in out
    assert main(["diff", left, left, *model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"][left].startswith("true")


def test_a_job_about_a_receipt(folder):
    """It is that of the run, which has its batches: inputs would have no effect."""
    from argparse import Namespace

    from ree.cli.job.subject import load_subject
    from ree.cli.receipt_checked import read_receipt
    from ree.errors import InputError

    receipt = str(folder / "true.json")
    args = Namespace(artifact=receipt, model=str(folder / "tiny.ree"), inputs=None, action="post")
    subject = load_subject(args)
    root = read_receipt(receipt).history.history_root
    assert [c() for c in subject.computations] == [root, root]
    args.inputs = "x.safetensors"
    with pytest.raises(InputError, match="without --inputs"):
        load_subject(args)


@pytest.mark.parametrize(
    ("args", "said"),
    [(("party", "serve", "RECEIPT"), "--model ART.ree"),
     (("party", "serve", "ART", "--model", "ART"), "--model goes"),
     (("verdict", "x", "--artifact", "RECEIPT"), "x"),
     (("diff", "ART", "ART", "--model", "ART"), "--model is for receipts"),
     (("party", "serve", "RECEIPT", "--model", "RECEIPT"), "artifact"),
     (("dispute", "--defender", "http://127.0.0.1:1", "--challenger", "http://127.0.0.1:1", "-o", "OUT",
       "--artifact", "RECEIPT"), "--model ART.ree")],
)  # fmt: skip
def test_what_is_missing_is_said_in_a_line(capsys, folder, tmp_path, args, said):
    names = {"RECEIPT": folder / "true.json", "ART": folder / "tiny.ree", "OUT": tmp_path / "v"}
    assert main([str(names.get(a, a)) for a in args]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert "Traceback" not in err
