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
from ree.kernels.gpu.launch import kernel_call, table
draw, schedules = random.Random(5), table()
for _ in range(3000):
    n, rows = draw.randint(1, 8192), draw.choice([1, 2, 3, 7, 64, 5000])
    shape = dict(x=0, rows=rows, n=n, x_row=n + draw.choice([0, 0, 1, 16]), y_row=n)
    column = dict(x=0, y=1, outer=draw.randint(1, 70), n=n, inner=draw.choice([1, 1, 2, 5, 48, 700]))
    dense, weight = dict(x_outer=0, x_n=0, x_inner=0), dict(y=3, weight=draw.choice([None, 1]), eps=1e-5)
    calls = {"softmax": {**shape, "y": 1}, "rms_norm": {**shape, **weight},
             "layer_norm": {**shape, **weight, "bias": draw.choice([None, 2])},
             "sum": {**column, **dense, "mean": draw.randint(0, 1)}, "amax": {**column, **dense},
             "argmin": {**column, **dense}, "cumsum_f32": column,
             "sort_f32": {**column, "indices": 2, "descending": 1}}
    for name, arguments in calls.items():
        call = kernel_call(name, **arguments)
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
from ree.kernels.gpu.launch import kernel_call, table
call = kernel_call("layer_norm", x=0, weight=1, bias=2, y=3, rows=7, n=97, x_row=97, y_row=97, eps=1e-5)
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
