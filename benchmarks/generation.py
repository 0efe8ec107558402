"""Speed of generation, on SmolLM2-135M-Instruct or another artifact: python benchmarks/generation.py [ART.ree].

Decoding at two contexts, reading a prompt, the first token, eight texts together, a receipt's share, and its
verification. Everything in one run; the sides of a ratio take turns. Writes benchmarks/results/generation.json,
or generation-ART.json.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from run import cpu_name

from ree.generation.claim import claim_of
from ree.generation.engine import Engine
from ree.generation.model import LanguageModel, compile_model
from ree.generation.models import smollm2_path
from ree.generation.request import Sampling
from ree.generation.scheduler import Generation, Scheduler
from ree.generation.verification import first_wrong_token
from ree.runtime.sampler import Sampler

RESULTS = Path(__file__).parent / "results" / "generation.json"
TURNS = 5
SAMPLING = Sampling(temperature=0.8, top_p=0.95, top_k=50, seed=1)


def timed(f):
    start = time.perf_counter()
    out = f()
    return time.perf_counter() - start, out


def median(f, turns=TURNS):
    f()
    return statistics.median(timed(f)[0] for _ in range(turns))


def tokens(model, n, seed=0):
    return np.random.default_rng(seed).integers(0, model.forward.vocabulary, n).tolist()


def decoding(model, context, steps=24):
    """Seconds a token at a context, logits alone."""
    engine = Engine(model.forward, positions=context + steps + 1)
    engine.read(0, tokens(model, context), 0)
    engine.read(0, [1], context)
    times = [timed(lambda i=i: engine.read(0, [1], context + 1 + i))[0] for i in range(steps - 1)]
    return statistics.median(times)


def reading(model, n):
    """Seconds to take in a prompt of n tokens."""
    engine, text = Engine(model.forward, positions=n), tokens(model, n)
    return median(lambda: engine.read(0, text, 0))


def finished(model, count, drawn, prompt=32, speculate=False, text=None, sampling=SAMPLING):
    """(seconds, generations, scheduler) of so many texts at once. text: what they begin with, by default random
    tokens."""
    engine = Engine(model.forward, count, positions=prompt + drawn)
    scheduler = Scheduler(engine, speculate=speculate)
    prompts = [tuple(text or tokens(model, prompt, i)) for i in range(count)]
    made = [Generation(p, sampling, (), drawn) for p in prompts]

    def run(gs):
        for g in gs:
            scheduler.submit(g)
        while any(g.finish is None for g in gs):
            list(scheduler.step())

    warm = [Generation(g.prompt, SAMPLING, (), 3) for g in made]
    run(warm)
    for g in warm:
        scheduler.release(g)
    return timed(lambda: run(made))[0], made, scheduler


def verified(model, text):
    """The claim of a text, its tokens checked, as `ree verify` makes it."""
    engine = Engine(model.forward, positions=len(text.tokens), most=2 * len(text.tokens))
    assert first_wrong_token(text, engine) is None
    return claim_of(model.forward, text, [c[0] for c in engine.caches])


def guessing(model):
    """Time with guesses over time without, of a text that repeats itself and of one that does not."""
    said = model.text_prompt(
        "A list of words: one, two, three, four, five, six, seven, eight. " * 4
    )
    plain = model.text_prompt(
        "The lighthouse keeper climbed the stairs slowly, and at the top he saw"
    )
    kinds = {"repeating": (said, Sampling(temperature=0.0, seed=0)), "plain": (plain, SAMPLING)}
    out = {}
    for name, (text, sampling) in kinds.items():
        times, want = {True: [], False: []}, None
        for _ in range(3):
            for on in times:
                seconds, (g,), _ = finished(model, 1, 128, len(text), on, text, sampling)
                times[on].append(seconds)
                want = want or g.tokens
                assert g.tokens == want
        out[f"guessing_{name}"] = min(times[True]) / min(times[False])
    return out


def main():
    if len(sys.argv) > 1:
        path, compiling = Path(sys.argv[1]), None
    else:
        path = Path(tempfile.mkdtemp(prefix="ree-bench-")) / "s.ree"
        compiling, program = timed(lambda: compile_model(smollm2_path()))
        program.save(path)
    LanguageModel.load(path)  # files in memory
    loading, model = timed(lambda: LanguageModel.load(path))
    out = {
        "model": model.settings.name,
        "cpu": cpu_name(),
        "compile_s": compiling,
        "load_s": loading,
    }
    for context in (256, 2048):
        out[f"decode_{context}_tokens_per_s"] = 1 / decoding(model, context)
    out["prompt_256_tokens_per_s"] = 256 / reading(model, 256)
    sampler = Sampler(1, model.forward.vocabulary)
    row = np.random.default_rng(0).standard_normal((1, model.forward.vocabulary)).astype(np.float32)
    arguments = [np.array([x], np.float32) for x in (0.8, 0.95, 0.0)]
    arguments += [np.array([x], np.int64) for x in (50, 1, 9, 0)]
    out["sample_ms"] = 1e3 * median(lambda: sampler(row, *arguments), 25)
    out["first_token_of_32_ms"] = 1e3 * (reading(model, 32) + out["sample_ms"] / 1e3)
    alone, (g,), scheduler = finished(model, 1, 256)
    out["one_text_tokens_per_s"] = 256 / alone
    claiming, claim = timed(lambda: claim_of(model.forward, g.text(), scheduler.caches(g)))
    again, _ = timed(lambda: claim_of(model.forward, g.text(), scheduler.caches(g)))
    out["receipt_first_s"], out["receipt_s"], out["receipt_of_decoding"] = (
        claiming,
        again,
        again / alone,
    )
    assert verified(model, g.text()) == claim
    verifying = statistics.median(timed(lambda: verified(model, g.text()))[0] for _ in range(TURNS))
    out["verify_256_s"], out["verify_of_decoding"] = verifying, verifying / alone
    together, gs, _ = finished(model, 8, 256)
    assert gs[0].tokens == g.tokens
    out["eight_texts_tokens_per_s"] = 8 * 256 / together
    out["eight_over_one"] = out["eight_texts_tokens_per_s"] / out["one_text_tokens_per_s"]
    out |= guessing(model)
    results = RESULTS if compiling else RESULTS.with_stem(f"generation-{path.stem}")
    results.write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
