"""What `make gpu` compares a card's digests with: those of the executed PTX."""

import importlib.util
import json
from pathlib import Path

from ree.conformance import GOLDEN

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
spec = importlib.util.spec_from_file_location("benchmarks_gpu", BENCHMARKS / "gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)


def report(**digests):
    return {"operators": {op: {"digest": d} for op, d in digests.items()}}


def test_another_digest_on_any_target_and_an_operator_alone_are_named():
    rows = [report(a="1", b="2", c="3"), report(a="1", b="2", c="4")]
    assert gpu.unlike_ptx(report(a="1", b="2"), rows) == ["c"]
    assert gpu.unlike_ptx(report(a="1", b="9", c="3", d="5"), rows) == ["b", "c", "d"]
    assert gpu.unlike_ptx(report(a="1", b="2"), [report(a="1", b="2")]) == []


def test_the_committed_digests_are_the_references():
    rows = json.loads((BENCHMARKS / "results" / "ptx.json").read_text())
    golden = json.loads(GOLDEN.read_text())["operators"]
    assert rows
    for row in rows:
        kept = {op: d for op, d in golden.items() if op in row["operators"]}
        assert len(kept) > 100
        assert gpu.unlike_ptx(report(**kept), [row]) == []
