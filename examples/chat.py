"""A language model answers; its receipt is verified on another instruction set; a changed token is named."""

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

from ree import _core
from ree.generation.generator import Generator, Request
from ree.generation.model import LanguageModel, compile_model
from ree.generation.models import smollm2_path
from ree.generation.receipt import Receipt
from ree.generation.request import Sampling
from ree.generation.verification import check_receipt
from ree.signing import SigningKey

QUESTION = "What is the capital of France?"


def title(text):
    print(f"\n== {text}", flush=True)


def main():
    begin = time.perf_counter()
    path = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else Path(tempfile.mkdtemp(prefix="ree-chat-")) / "smollm2.ree"
    )
    title("compile SmolLM2-135M-Instruct from its GGUF file")
    compile_model(smollm2_path()).save(path)
    print(f"  {time.perf_counter() - begin:.1f} s, in {path}")
    model = LanguageModel.load(path)

    title(QUESTION)
    best, other = _core.isa_names()[0], _core.isa_names()[min(1, len(_core.isa_names()) - 1)]
    generator, key = Generator(model, isa=best), SigningKey(bytes(31) + b"\1")
    got = []
    request = Request(
        messages=[{"role": "user", "content": QUESTION}], sampling=Sampling(temperature=0.0)
    )
    print("  ", end="")
    for piece in generator.stream(request, got.append):
        print(piece.text, end="", flush=True)
    receipt = Receipt.of(got[0].signed(key).to_json())
    print(f"\n  {len(receipt.completion_tokens)} tokens on {best}; receipt {receipt.digest.hex()}")

    title(f"verify the receipt on {other}: one pass over all tokens at once")
    start = time.perf_counter()
    found = check_receipt(receipt, model, isa=other, threads=1)
    print(f"  {'same' if found is None else found.what} ({time.perf_counter() - start:.1f} s)")
    ok = found is None

    title("somebody puts Berlin in place of Paris, and signs that")
    tokens = tuple(model.tokenizer.encode(" Berlin")[0] if model.tokenizer.decode([t]) == " Paris" else t
                   for t in receipt.completion_tokens)  # fmt: skip
    text = receipt.text.replace("Paris", "Berlin")
    forged = resealed(
        dataclasses.replace(receipt, completion_tokens=tokens, text=text, signatures=()), key
    )
    print(f"  {forged.text}")
    found = check_receipt(forged, model)
    print(f"  {'same' if found is None else found.what}")
    ok &= found is not None and found.position is not None
    print(f"\nall as it should be: {ok}; {time.perf_counter() - begin:.0f} s")
    return 0 if ok else 1


def resealed(receipt, key):
    """A receipt of other tokens whose digests all fit, as a liar would make it."""
    from ree.runtime.hashing import hash_array
    from ree.traces.history import batch_digest

    batches = [batch_digest([hash_array(receipt.claimed.batch(i))]).hex()
               for i in range(1, len(receipt.records) + 1)]  # fmt: skip
    records = tuple((s, b) for (s, _), b in zip(receipt.records, batches, strict=True))
    receipt = dataclasses.replace(receipt, records=records)
    receipt = dataclasses.replace(receipt, commitment=receipt.history.commitment.hex())
    return Receipt.of(receipt.signed(key).to_json())


if __name__ == "__main__":
    sys.exit(main())
