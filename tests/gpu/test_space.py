"""The audit over the whole space of schedules: what a shape can lead to stands in the committed table, and a
kernel that spills is seen and passed over. Kernels are compiled in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENV = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
TABLE = ROOT / "benchmarks" / "results" / "gpu_space.json"


def python(text, *args):
    out = subprocess.run([sys.executable, "-P", "-c", text, *args], env=ENV, text=True, capture_output=True,
                         cwd=ROOT)  # fmt: skip
    assert out.returncode == 0, out.stderr[-2000:]
    return out.stdout.splitlines()


RANDOM_SHAPES = """
import random
from ree.compiler.audit import gpu
from ree.kernels.launch import KernelCall, table
draw, schedules, EPS = random.Random(5), table(), 0x3727C5AC
for _ in range(3000):
    n, rows = draw.randint(1, 8192), draw.choice([1, 2, 3, 7, 64, 5000])
    shape = [rows, n, n + draw.choice([0, 0, 1, 16]), n]
    column = [draw.randint(1, 70), n, draw.choice([1, 1, 2, 5, 48, 700])]
    calls = {"softmax": ([0, 1], shape), "rms_norm": ([0, draw.choice([-1, 1]), 3], [*shape, EPS]),
             "layer_norm": ([0, draw.choice([-1, 1]), draw.choice([-1, 2]), 3], [*shape, EPS]),
             "sum": ([0, 1], [*column, 0, 0, 0, draw.randint(0, 1)]), "amax": ([0, 1], column),
             "argmin": ([0, 1], column), "cumsum_f32": ([0, 1], column), "sort_f32": ([0, 1, 2], [*column, 1])}
    for name, (slots, params) in calls.items():
        call = KernelCall(slots, params)
        schedules[name](call)
        for x in call.launches:
            print(gpu.kernel_name(x), gpu.variant(x)[0], sep="|")
"""


def test_the_table_has_every_kernel_that_a_shape_leads_to():
    rows = json.loads(TABLE.read_text())["rows"]
    assert not [r for r in rows if r["findings"]]
    chosen = set(python(RANDOM_SHAPES))
    for target in {r["target"] for r in rows}:
        known = {f"{r['kernel']}|{r['arguments']}" for r in rows if r["target"] == target}
        assert chosen - known == set()
    assert chosen


SPILLS = """
from dataclasses import replace
from ree.compiler.audit import gpu
from ree.kernels.launch import KernelCall, table
call = KernelCall([0, 1, 2, 3], [7, 97, 97, 97, 0x3727C5AC])
table()["layer_norm"](call)
(x,) = call.launches
narrow = replace(x, registers=(16,))
for y in (x, narrow, replace(narrow, otherwise=(x,))):
    (r,) = gpu.audit([y], "sm_90")
    print(r.spills > 0, r.ok)
"""


def test_97_features_do_not_spill_and_a_schedule_that_spills_is_passed_over():
    fits, planted, otherwise = python(SPILLS)
    assert fits == "False True"
    assert planted == "True False"
    assert otherwise == "False True"
