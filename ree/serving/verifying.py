"""Verification of a server's own receipts, as `ree verify` does it: in a thread, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ree.generation.model import LanguageModel
from ree.generation.receipt import Receipt
from ree.generation.verification import Level, check_receipt
from ree.serving.errors import ApiError
from ree.serving.http import while_there
from ree.serving.service import ModelService, Readiness


class Verifier:
    """Verifies receipts with the models that a server has, one at a time: each takes a pass over its text."""

    def __init__(self) -> None:
        self._busy = threading.Lock()

    async def report(
        self, request: Request, raw: bytes, services: Collection[ModelService]
    ) -> dict[str, Any]:
        """What each level of verification says of the receipt `raw`, up to the first that fails.

        ApiError 429 while another is verified, 404 if none of the models is its own. ClientDisconnect, and the
        work ends at the next chunk, if the client goes away.
        """
        gone = threading.Event()
        try:
            return await while_there(
                request.receive, run_in_threadpool(self._report, raw, services, gone)
            )
        finally:
            gone.set()

    def _report(
        self, raw: bytes, services: Collection[ModelService], gone: threading.Event
    ) -> dict[str, Any]:
        if not self._busy.acquire(blocking=False):
            raise ApiError("another receipt is being verified", status=429)
        try:
            receipt = Receipt.of(raw)
            service = _service_of(receipt, services)
            levels = _levels(receipt, service.model, service.threads, gone)
        finally:
            self._busy.release()
        return {
            "object": "ree.verification",
            "digest": receipt.digest.hex(),
            "model": service.name,
            "same": all(x["same"] for x in levels),
            "levels": levels,
            "signed_by": [s.key for s in receipt.signatures],
            "tokens": len(receipt.claimed.tokens),
            "chunks": len(receipt.records),
        }


def _levels(
    receipt: Receipt, model: LanguageModel, threads: int | None, gone: threading.Event
) -> list[dict[str, Any]]:
    def go_on(chunk: int) -> None:
        if gone.is_set():
            raise ApiError("nobody waits for this verification", status=499)

    out: list[dict[str, Any]] = []
    for level in Level:
        found = check_receipt(receipt, model, level, threads=threads, progress=go_on)
        finding = None if found is None else asdict(found)
        out.append({"level": level.name.lower(), "same": found is None, "finding": finding})
        if found is not None:
            break
    return out


def _service_of(receipt: Receipt, services: Collection[ModelService]) -> ModelService:
    """The service of the model that a receipt is of."""
    for s in services:
        if s.state is Readiness.READY:
            m = s.model
            mine = (
                m.program.program_hash.hex(),
                m.program.weights_root.hex(),
                m.tokenizer.id,
                m.template_id,
            )
            if mine == (receipt.program, receipt.weights_root, receipt.tokenizer, receipt.template):
                return s
    raise ApiError("no model that is served is that of this receipt", status=404)
