"""What two receipts do not share, the first thing first."""

from __future__ import annotations

from dataclasses import dataclass

from ree.generation.layout import CHUNK
from ree.generation.receipt import Receipt

_WHOLE = (("program", "program"), ("weights_root", "weights"), ("tokenizer", "tokenizer"),
          ("template", "template"), ("numeric_id", "numeric id"))  # fmt: skip


@dataclass(frozen=True)
class ReceiptDifference:
    """A difference in words; position of the first token that differs, and its chunk 1, 2, ..."""

    what: str
    position: int | None = None
    chunk: int | None = None


def receipt_differences(a: Receipt, b: Receipt) -> list[ReceiptDifference]:
    """All kinds of differences, in the order in which they come about; none for receipts of one answer."""
    out = [ReceiptDifference(f"{said}: {getattr(a, name)[:16]}..., {getattr(b, name)[:16]}...")
           for name, said in _WHOLE if getattr(a, name) != getattr(b, name)]  # fmt: skip
    out += _of_requests(a, b)
    left, right = (x.claimed.tokens for x in (a, b))
    at = next((i for i, (s, t) in enumerate(zip(left, right, strict=False)) if s != t), None)
    if at is None and len(left) != len(right):
        at = min(len(left), len(right))
    if at is not None:
        said = ", ".join(str(x[at]) if at < len(x) else "none" for x in (left, right))
        out.append(ReceiptDifference(f"token {at}: {said}", at, at // CHUNK + 1))
    elif a.records != b.records:
        chunk = next(
            i for i, (r, s) in enumerate(zip(a.records, b.records, strict=True), 1) if r != s
        )
        out.append(ReceiptDifference(f"keys and values behind chunk {chunk}; the tokens are the same",
                                     None, chunk))  # fmt: skip
    out += [ReceiptDifference(f"{name}: {getattr(a, name)!r:.60}, {getattr(b, name)!r:.60}")
            for name in ("finish", "text", "previous") if getattr(a, name) != getattr(b, name)]  # fmt: skip
    # what follows from all that: it differs alone where a receipt is forged, or numbers are written otherwise
    out += [] if out else [
        ReceiptDifference(f"{said}: {x[:16]}..., {y[:16]}...")
        for said, x, y in (("instance", a.instance, b.instance), ("S0", a.initial_root, b.initial_root),
                           ("commitment", a.commitment, b.commitment), ("stated digest", a.stated, b.stated),
                           ("digest", a.digest.hex(), b.digest.hex())) if x != y]  # fmt: skip
    return out


def _of_requests(a: Receipt, b: Receipt) -> list[ReceiptDifference]:
    flat = [{**r.request, **r.request["sampling"]} for r in (a, b)]
    names = sorted(set(flat[0]) | set(flat[1]) - {"sampling"})
    return [ReceiptDifference(f"request, {n}: {flat[0].get(n)!r:.60}, {flat[1].get(n)!r:.60}")
            for n in names if n != "sampling" and flat[0].get(n) != flat[1].get(n)]  # fmt: skip
