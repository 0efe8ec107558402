"""benchmarks/compare.py with slow-downs planted in the files of results that are kept."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def compare(*args):
    done = subprocess.run(
        [sys.executable, "-P", ROOT / "benchmarks" / "compare.py", *map(str, args)],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def changed(tmp_path):
    """A kept file and a copy in which `change` was made."""

    def make(name, change):
        data = json.loads((RESULTS / name).read_text())
        altered = copy.deepcopy(data)
        change(altered)
        (tmp_path / name).write_text(json.dumps(altered))
        return RESULTS / name, tmp_path / name

    return make


def scale(factor, *path):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] *= factor

    return change


@pytest.mark.parametrize("file", sorted(p.name for p in RESULTS.glob("*.json")))
def test_a_file_is_as_it_is(file):
    code, out, err = compare(RESULTS / file, RESULTS / file)
    assert (code, err) == (0, "")
    assert " 0 beyond noise, 0 worse" in out


# a file, where in it, a factor, what is said, whether it is too much
CASES = [
    ("cpu_conv.json", (0, "milliseconds"), 1.5, "slower by 50.0%", 1),
    ("cpu_conv.json", (0, "ratio"), 0.5, "slower by 100.0%", 1),  # torch's time over ours
    ("cpu_conv.json", (0, "gflops"), 2, "faster by 50.0%", 0),
    ("cpu_conv.json", (0, "torch_milliseconds"), 3, " 0 beyond noise", 0),
    (
        "cpu_architectures.json",
        ("rows", 0, "ratio"),
        1.5,
        "slower by 50.0%",
        1,
    ),  # ours over torch's
    ("cpu.json", ("model", "minilm", 0, "run"), 1.15, "slower by 15.0%", 0),
    ("cpu.json", ("hash", "tree_hash", "64 MiB", "avx512, 1 threads"), 0.5, "slower by 100.0%", 1),
    ("cpu.json", ("rows", "cases", "softmax 4096x1536 t1", "us"), 1.08, " 0 beyond noise", 0),
    ("calls.json", ("memory", "after_all"), 1.3, "larger by 30.0%", 1),
    ("calls.json", ("memory", "calls"), 2, " 0 beyond noise", 0),
    ("disputes.json", ("worst", "bytes"), 1.01, "larger by 1.0%", 0),
    ("disputes.json", ("worst", "moves"), 2, "changed: worst/moves", 0),
    ("training.json", ("time", 0, "history_over_step"), 2, "slower by 100.0%", 1),
    ("derivations.json", ("cases", "argmax over 2^26", "derive s"), 0.5, "faster by 50.0%", 0),
]


@pytest.mark.parametrize(("file", "path", "factor", "said", "code"), CASES)
def test_a_planted_change_is_told(changed, file, path, factor, said, code):
    got, out, err = compare(*changed(file, scale(factor, *path)))
    assert (got, err) == (code, "")
    assert said in out
    assert out.count("\n") <= 2


def test_a_threshold_decides_the_exit_status(changed):
    files = changed("cpu_conv.json", scale(1.5, 3, "milliseconds"))
    assert compare(*files, "--threshold", "0.6")[0] == 0
    code, out, _ = compare(*files, "--threshold", "0.4", "--json")
    report = json.loads(out)
    assert (code, report["worse"], len(report["changes"])) == (1, 1, 1)
    assert report["changes"][0]["verdict"] == "slower"


def test_rows_are_matched_by_name_not_by_place(changed):
    code, out, _ = compare(*changed("cpu_architectures.json", lambda d: d["rows"].reverse()))
    assert code == 0
    assert " 0 beyond noise" in out
    code, out, _ = compare(*changed("cpu_architectures.json", lambda d: d["rows"].pop()))
    assert code == 0
    assert "gone: 4 (" in out


def test_another_digest_is_told(changed):
    def change(data):
        data["digests"]["gemm/7/13/1/kind0"] = 64 * "0"

    code, out, _ = compare(*changed("neon.json", change))
    assert code == 0
    assert "changed: digests/gemm/7/13/1/kind0" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a file of results in JSON"),
        ("3", "expected an object or a list of rows, got int"),
        ("[]", "expected an object"),
        ('{"a": {"ms": 3}}', "no figure that both have"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(tmp_path, text, said):
    (tmp_path / "new.json").write_text(text)
    code, out, err = compare(RESULTS / "cpu_conv.json", tmp_path / "new.json")
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 2
    assert "hint: " in err
    assert compare(RESULTS / "no.json", RESULTS / "cpu.json")[0] == 2
    assert compare(RESULTS / "cpu.json", RESULTS / "cpu.json", "--threshold", "nan")[0] == 2
