"""Real disputes through client, Court and referee, by receipts: a cheat is caught wherever it lies."""

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")

from ree.cli import main
from ree.kernels import macro, opdef
from ree.settlement.demo import CHALLENGER_BOND, PROVIDER_BOND, REWARD, call_dispute, small_program
from ree.settlement.work import memory_run
from ree.verde.fault import Fault, FaultyParty, MaskedFault
from ree.verde.party import Party
from ree.verde.scope import ROW, VALUES, RowScope
from ree.verde.testing import open_time_program, program_of

CAP = 16_777_216  # gas of a transaction, EIP-7825
MOVE = 330_000  # gas of a move
PAID = {
    "poster": -REWARD, "honest": REWARD - REWARD // 200, "cheat": -PROVIDER_BOND,
    "challenger": PROVIDER_BOND // 2,
}  # fmt: skip


def quiet(text: str) -> None:
    """Says nothing."""


def check(result: dict[str, Any], *, executed: bool = True) -> None:
    """The cheat is slashed, the true root stands, and gas is within bounds. Executed: by an operation; else by
    its silence."""
    assert result["final"]
    assert result["root"] == result["true_root"] != result["false_root"]
    assert (result["standing"], result["disputes"], result["held"]) == (1, 1, 0)
    assert result["paid"] == PAID
    assert result["burnt"] == PROVIDER_BOND - PROVIDER_BOND // 2
    assert CHALLENGER_BOND > 0
    lines = result["timeline"]
    assert max(line["gas"] for line in lines) < CAP
    moves = [line for line in lines if line["what"].startswith("respond")]
    assert (moves[-1]["what"] == "respond: open the operands of an operation") == executed
    assert any(line["what"] == "timeout" for line in lines) != executed
    assert max(line["gas"] for line in moves) <= MOVE


@pytest.mark.parametrize("training", [False, True], ids=["call", "training"])
def test_the_demonstration(training: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 12: gas is that of receipts, and every transaction is far below the cap."""
    if training:
        pytest.importorskip("torch")
    assert main(["demo", "dispute", "--json", *["--training"][: int(training)]]) == 0
    streams = capsys.readouterr()
    assert "unverified" in streams.err
    check(json.loads(streams.out))


DEPTHS = {"multiply-add": 0, "comparison": 1, "softmax": 3}  # values of the small program


def fault_in(value: int) -> Fault:
    """A lie about an operation of a value that reaches the output; of the softmax, inside its row program."""
    program, inputs = small_program()
    run, instance = memory_run(program, inputs)
    scope, rng = run.scope, np.random.default_rng(value)
    honest = Party(run, instance.digest).statement.outputs
    for _ in range(100):
        element = int(rng.integers(scope.type(VALUES, value).numel))
        rows, row = scope.row_program(VALUES, value), None
        if rows is None:
            d = scope.derivation(VALUES, value, element)
        else:
            inner = RowScope(scope, (VALUES, value, element), rows)
            node = int(rng.integers(len(inner.nodes)))
            if opdef.get(inner.nodes[node].op).form is opdef.Form.MOVEMENT:
                continue
            row = (node, int(rng.integers(inner.nodes[node].out.numel)))
            d = inner.derivation(ROW, *row)
        fault = Fault(value, element, int(rng.integers(d.count)), 1 << 22, row)
        try:
            if FaultyParty(run, fault, instance.digest).statement.outputs != honest:
                return fault
        except MaskedFault:
            continue
    raise AssertionError("no lie reaches the output")


CASES = [(c, w) for c in ("embedded", "anvil") for w in DEPTHS]
CASES.remove(("embedded", "multiply-add"))  # the demonstration


@pytest.mark.parametrize(("chain", "where"), CASES, indirect=["chain"])
def test_a_liar_at_any_depth(chain: Any, where: str) -> None:
    """In the first layer, behind it, and inside the row program of a softmax."""
    fault = fault_in(DEPTHS[where])
    assert (fault.row is not None) == (where == "softmax")
    check(call_dispute(say=quiet, chain=chain, fault=fault))


@pytest.mark.parametrize("chain", ["embedded"], indirect=True)
def test_a_lie_in_a_step_of_a_recurrent_layer(chain: Any) -> None:
    """In the product of the hidden state of the backward direction, in the middle of an open time."""
    program = open_time_program()
    inputs = {"x": program.examples["x"][:4]}
    run, instance = memory_run(program, inputs)
    honest = Party(run, instance.digest).statement.outputs
    value = next(v for v, n in enumerate(run.scope.producers)
                 if n.op == "linear" and n.origin.module == "lstm backward, step 2")  # fmt: skip
    fault = next(f for e in range(40) for f in [Fault(value, e, 3, 1 << 20)]
                 if FaultyParty(run, f, instance.digest).statement.outputs != honest)  # fmt: skip
    check(call_dispute(program, inputs, say=quiet, chain=chain, fault=fault))


@pytest.mark.parametrize("chain", ["embedded"], indirect=True)
@pytest.mark.parametrize("op", ["sort", "exp", "scatter", "uniform"])
def test_a_lie_in_a_drawn_token(chain: Any, op: str) -> None:
    """In an operator that a sampled token is written out to, such that another token comes out."""
    case = next(s for s in macro.get("sample").samples() if s.name == "18x129")
    program, _ = program_of("sample", case)
    inputs = dict(zip(program.names.inputs, case.inputs, strict=True))
    run, instance = memory_run(program, inputs)
    honest = Party(run, instance.digest).statement.outputs
    value = next(v for v, n in enumerate(run.scope.producers) if n.op == op)
    rng, size = np.random.default_rng(0), run.scope.type(VALUES, value).numel
    for element in rng.permutation(size).tolist():
        last = run.scope.derivation(VALUES, value, element).count - 1
        fault = Fault(value, element, last, 1 << 22)
        if FaultyParty(run, fault, instance.digest).statement.outputs != honest:
            check(call_dispute(program, inputs, say=quiet, chain=chain, fault=fault))
            return
    raise AssertionError("no lie reaches the token")


@pytest.mark.parametrize(
    "chain", ["anvil"], indirect=True
)  # on the embedded chain: the demonstration
def test_a_false_step_of_a_training_run(chain: Any) -> None:
    pytest.importorskip("torch")
    from ree.settlement.demo_run import run_dispute

    check(run_dispute(quiet, chain))


@pytest.mark.parametrize("how", ["batch", "first state"])
def test_a_run_on_other_data(chain: Any, how: str) -> None:
    """A wrong batch in one step, or a wrong S0: its provider cannot open that step against the roots of the
    job, and falls silent."""
    pytest.importorskip("torch")
    from ree.settlement.demo_run import STEPS, Trained, run_dispute

    def false(true: Trained) -> Trained:
        if how == "batch":
            swapped = {5: 6, 6: 5}
            return Trained(true.step, lambda s: true.batch(swapped.get(s, s)), STEPS)
        initial = [np.array(x) for x in true.initial]
        largest = max((x for x in initial if x.dtype == np.float32), key=lambda x: x.size)
        largest.reshape(-1)[0] += 1
        return Trained(true.step, true.batch, STEPS, initial=initial)

    check(run_dispute(quiet, chain, false), executed=False)
