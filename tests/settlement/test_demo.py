"""The demonstration: a real dispute through the Court and the referee, by receipts of the embedded chain."""

import json

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("eth_tester", reason="needs the extra settlement")

from ree.cli import main
from ree.settlement.demo import CHALLENGER_BOND, PROVIDER_BOND, REWARD

CAP = 16_777_216  # gas of a transaction, EIP-7825
BOTTOM = 330_000  # of the move that is executed
MOVE = 110_000  # of any other


@pytest.mark.parametrize("training", [False, True], ids=["call", "training"])
def test_a_cheat_is_caught_and_slashed(training: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 12: gas is that of receipts, and every transaction is far below the cap."""
    if training:
        pytest.importorskip("torch")
    assert main(["demo", "dispute", "--json", *["--training"][: int(training)]]) == 0
    streams = capsys.readouterr()
    result = json.loads(streams.out)
    assert "unverified" in streams.err
    assert result["final"]
    assert result["root"] == result["true_root"] != result["false_root"]
    assert (result["standing"], result["disputes"], result["held"]) == (1, 1, 0)
    assert result["paid"] == {
        "poster": -REWARD, "honest": REWARD - REWARD // 200, "cheat": -PROVIDER_BOND,
        "challenger": PROVIDER_BOND // 2,
    }  # fmt: skip
    assert result["burnt"] == PROVIDER_BOND - PROVIDER_BOND // 2
    assert CHALLENGER_BOND > 0
    lines = result["timeline"]
    assert max(line["gas"] for line in lines) < CAP
    moves = [line for line in lines if line["what"].startswith("respond")]
    assert moves[-1]["what"] == "respond: open the operands of an operation"
    assert moves[-1]["gas"] <= BOTTOM
    assert max(m["gas"] for m in moves[:-1]) <= MOVE
