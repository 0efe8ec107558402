"""Contractions with narrow weights, compiled and audited for every target: a line of JSON each."""

import json
import os

from ree.compiler.audit import gpu
from ree.kernels.abi import NO_TILE
from ree.kernels.constants import STORED_BF16, STORED_F16, STORED_I8
from ree.kernels.gpu.launch import kernel_call, table

TARGETS = ("sm_80", "sm_90", "sm_120")
FORMS = ((STORED_BF16, False), (STORED_F16, False), (STORED_I8, False), (STORED_I8, True))


def calls():
    for m in (1, 1024):
        for storage, offset in FORMS:
            terms = {"scale": 2 if storage == STORED_I8 else None, "offset": 3 if offset else None}
            yield kernel_call("gemm", a=0, packed=1, c=4, batch=1, m=m, n=2048, k=640, a_batch=0, a_row=640,
                              b_batch=0, c_batch=0, c_row=2048, storage=storage, tile=NO_TILE,
                              block=32 if storage == STORED_I8 else 0, **terms)  # fmt: skip


def main():
    for call in calls():
        table()["gemm"](call)
        # the form with most to it for every target, the others for one; all of them with REE_EVERY_SAMPLE
        every = "REE_EVERY_SAMPLE" in os.environ or call.args.offset is not None
        for target in TARGETS if every else ("sm_90",):
            narrow = [x for x in call.launches if "STORED" in dict(x.constants)]
            for report in gpu.audit(narrow, target):
                print(json.dumps({
                    "m": call.args.m, "storage": call.args.storage, "target": target, "kernel": report.kernel,
                    "spills": report.spills,
                    "findings": sorted({f.instruction.split()[0] for f in report.findings}),
                }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
