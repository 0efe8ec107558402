"""What became slower, faster, larger, smaller or different from one file of results to another.

    python benchmarks/compare.py OLD.json NEW.json [--threshold 0.2] [--json]

Files are two of one kind, as in benchmarks/results. Rows of a list are matched by their texts and settings,
figures by their path. A change within the noise of its kind (KINDS) is not told; times of others (torch, MKL,
hashlib) are no figures of ours. Exit status 1 if a figure became worse by more than the threshold, 2 for
input that cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LESS, MORE, SAME = "less is better", "more is better", "neither is better"


class Kind(NamedTuple):
    name: str
    better: str
    noise: float  # relative change that says nothing


TIME = Kind("time", LESS, 0.10)
RATIO = Kind("our time over theirs", LESS, 0.05)
INVERSE = Kind("their time over ours", MORE, 0.05)
RATE = Kind("rate", MORE, 0.10)
MEMORY = Kind("memory", LESS, 0.05)
LIKENESS = Kind("cosine", MORE, 0.0005)
SIZE = Kind("size", LESS, 0.0)  # of a message, or gas: exact
COUNT = Kind("count", SAME, 0.0)
DIGEST = Kind("digest", SAME, 0.0)
THEIRS = Kind("theirs", SAME, float("inf"))
SETTING = Kind("setting", SAME, float("inf"))

# The first pattern that matches a key, or the nearest key above it that any matches, says what a number is.
KINDS: tuple[tuple[str, Kind], ...] = (
    (
        r"(torch|mkl|eager|hashlib|onnxruntime|openvino).*|gflops_mkl\w*|note|wanted|load|limits_s",
        THEIRS,
    ),
    (
        r"threads|cores|rounds|samples|inputs|elements|operations|calls|shapes|seed|log2|unit|steps?_of|features"
        r"|bound_ulp|batch|after_first_of_each",
        SETTING,
    ),
    (r"ratio_mkl\w*", INVERSE),
    (r"cosine_\w+", LIKENESS),
    (r"byte_group", SETTING),
    (r"time_ratio|\w+_over_\w+|run|io|ops|step|history|memory|\w+ share", RATIO),
    (r"g?flops(_ree)?|tree_hash|sha256|bandwidth|(.*_)?tokens_per_s", RATE),
    (r"(.*_)?(s|ms|us|ns|seconds|milliseconds)|.* (s|seconds)", TIME),
    (r"(.*_)?mib|peak GB|after_all", MEMORY),
    (r"(.*[_ ])?bytes|gas( .*)?", SIZE),
    (
        r"passed|refused|failed|skipped|random|moves|most moves|values|revealed|results|disputes|cases|kernels"
        r"|compiled|nodes|registers|spills|shared|findings|steps|max_ulp|\w*mismatches|compared_in_ulps|different"
        r"|finite|paths|compile_failures|lies .*|error|loss|sm_\d+|test_\w+|simulated moves"
        r"|questions|choices|accuracy|log_likelihoods|schemas",
        COUNT,
    ),
)


def fail(message: str, hint: str) -> NoReturn:
    print(f"compare.py: {message}\nhint: {hint}", file=sys.stderr)
    raise SystemExit(2)


def is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16,}", value) is not None


def kind_of(path: tuple[str, ...], row: dict[str, Any]) -> Kind | None:
    """What the number at `path`, in the object `row`, is; None if no pattern knows it."""
    if is_digest(row.get(path[-1])):
        return DIGEST
    if path[-1] == "ratio":  # beside a rate of ours it is the other's time over ours
        return INVERSE if "gflops" in row else RATIO
    for key in reversed(path):
        for pattern, kind in KINDS:
            if re.fullmatch(pattern, key):
                return kind
    return None


def name_of(row: Any, position: int) -> str:
    """What a row of a list is called: its texts and settings, else its position."""
    if not isinstance(row, dict):
        return str(position)
    words = [
        f"{k}={v}" if not isinstance(v, str) else v
        for k, v in row.items()
        if (isinstance(v, str) and not is_digest(v)) or kind_of((k,), row) is SETTING
    ]
    return ", ".join(words) or str(position)


def figures(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """(path, value, the object it stands in) of every number and every digest."""
    if isinstance(data, dict):
        items = list(data.items())
    else:
        names = [name_of(row, i) for i, row in enumerate(data)]
        items = [
            (n if names.count(n) == 1 else f"{n} ({i})", row)
            for i, (n, row) in enumerate(zip(names, data, strict=True))
        ]
    for key, value in items:
        if isinstance(value, dict | list):
            yield from figures(value, (*path, str(key)))
        elif is_digest(value) or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield (*path, str(key)), value, data if isinstance(data, dict) else {}


class Change(NamedTuple):
    path: str
    kind: str
    old: Any
    new: Any
    verdict: str  # slower, faster, larger, smaller, changed
    worse: float  # by how much of the old figure; negative if better, 0 if neither


def judge(path: tuple[str, ...], kind: Kind, old: Any, new: Any) -> Change | None:
    """The change of one figure, None if it is within its noise."""
    if kind.better == SAME:
        return None if old == new else Change("/".join(path), kind.name, old, new, "changed", 0.0)
    factor = new / old if old else (1.0 if new == old else float("inf"))
    if kind.better == MORE:
        factor = 1 / factor if factor else float("inf")
    beyond = factor > 1 + kind.noise or factor < 1 / (1 + kind.noise)
    if new == old or not beyond:
        return None
    up, down = ("larger", "smaller") if kind in (MEMORY, SIZE) else ("slower", "faster")
    verdict = up if factor > 1 else down
    return Change("/".join(path), kind.name, old, new, verdict, round(factor - 1, 4))


def compare(old: Any, new: Any) -> dict[str, Any]:
    """Changes of the figures that both have, worst first; what one alone has; what is of no known kind."""
    before, after = ({p: (x, row) for p, x, row in figures(d)} for d in (old, new))
    changes, unknown, compared = [], set(), 0
    for path in before.keys() & after.keys():
        kind = kind_of(path, before[path][1])
        if kind is None:
            unknown.add(path[-1])
        elif kind not in (THEIRS, SETTING):
            compared += 1
            change = judge(path, kind, before[path][0], after[path][0])
            if change:
                changes.append(change)
    return {
        "compared": compared,
        "changes": sorted(changes, key=lambda c: (-c.worse, c.path)),
        "gone": sorted("/".join(p) for p in before.keys() - after.keys()),
        "new": sorted("/".join(p) for p in after.keys() - before.keys()),
        "unknown": sorted(unknown),
    }


def load(path: Path) -> Any:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        fail(f"{path}: expected a file of results in JSON, got {e}", "benchmarks/results has them")
    if not isinstance(data, dict | list) or not data:
        fail(
            f"{path}: expected an object or a list of rows, got {type(data).__name__}",
            "benchmarks/results has them",
        )
    return data


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="of the old figure (default 0.2)"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    args = parser.parse_args()
    if not args.threshold >= 0:
        fail(
            f"--threshold: expected a number from 0, got {args.threshold}", "0.2 is a fifth slower"
        )
    report = compare(load(args.old), load(args.new))
    if not report["compared"]:
        fail(
            "expected two files of the same kind, got no figure that both have",
            f"compare {args.old.name} with another {args.old.name}",
        )
    worse = [c for c in report["changes"] if c.worse > args.threshold]
    if args.json:
        changes = [c._asdict() for c in report["changes"]]
        print(
            json.dumps(
                report | {"changes": changes, "threshold": args.threshold, "worse": len(worse)},
                indent=1,
            )
        )
    else:
        for c in report["changes"]:
            by = f" by {abs(c.worse):.1%}" if c.worse else ""
            mark = "!" if c in worse else " "
            print(f"{mark} {c.verdict}{by}: {c.path}: {c.old} -> {c.new} ({c.kind})")
        for word in ("gone", "new", "unknown"):
            if report[word]:
                shown = "; ".join(report[word][:5])
                print(
                    f"  {word}: {len(report[word])} ({shown}{'; ...' if len(report[word]) > 5 else ''})"
                )
        print(
            f"{report['compared']} figures compared, {len(report['changes'])} beyond noise, "
            f"{len(worse)} worse by more than {args.threshold:.0%}"
        )
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
