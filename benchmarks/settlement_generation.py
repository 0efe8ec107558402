"""A job about what a language model said: one bit of one operation of chunk 3 of 5 is false.

python benchmarks/settlement_generation.py [ART.ree] [--node] [-o FILE]

ART.ree: a language model's artifact, by default SmolLM2-135M-Instruct, compiled. --node: on a real node (anvil)
instead of the embedded chain.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ree.generation.claim import claim_step, replay
from ree.generation.generator import Generator, Request
from ree.generation.model import LanguageModel, compile_model
from ree.generation.models import SMOLLM2, smollm2_path
from ree.generation.request import Sampling
from ree.settlement.client import Agreed, agree
from ree.settlement.demo import PROVIDER_BOND, RoleSide, Stage, Told, finish
from ree.settlement.player import VerdePlayer
from ree.settlement.testing.anvil import Anvil
from ree.settlement.work import run_facts
from ree.traces.history import History
from ree.verde.fault import MaskedFault
from ree.verde.testing import FLIPS, last_fault
from ree.verde.trained import Trained

CHUNKS, AT = 5, 3
MESSAGES = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


def lie(step, true, inputs, chunks):
    """A provider that lies in an operation of an attention of chunk AT; with what it lies about."""
    scope = true.party_to(AT).run.scope
    nodes = [n for n in step.instance.graph.nodes if n.op == "attention"]
    for node in nodes[len(nodes) // 2 :]:
        value, t = node.first, node.results[0]
        for element, flip in itertools.product((t.numel // 3, t.numel // 2, 0), FLIPS):
            fault = replace(last_fault(scope, value, element), flip=flip)
            try:
                liar = Trained(step, inputs, chunks, (AT, fault), true)
            except MaskedFault:
                continue
            if liar.records != true.records:
                return liar, fault
    raise SystemExit("no lie reaches the caches")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", nargs="?")
    parser.add_argument("--node", action="store_true")
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    path = args.artifact
    if path is None:
        path = str(Path(tempfile.mkdtemp()) / "model.ree")
        compile_model(smollm2_path()).save(path)
    model = LanguageModel.load(path)
    begin = time.perf_counter()
    # no stop token is drawn, so that there are five chunks
    sampling = Sampling(temperature=0.8, top_p=0.95, seed=1, min_tokens=2000)
    wanted = CHUNKS * 128 - 20
    prompt = len(Request(messages=MESSAGES).complete(model).prompt_tokens(model))
    receipt, _ = Generator(model).generate(
        Request(messages=MESSAGES, sampling=sampling, max_tokens=wanted - prompt)
    )
    text, forward = receipt.claimed, model.forward
    print(f"{len(text.tokens)} tokens in {text.chunks} chunks, {time.perf_counter() - begin:.1f} s")
    step = claim_step(forward, text)

    def inputs(s):
        return text.inputs(s, forward.vocabulary)

    true = Trained(step, inputs, text.chunks)
    liar, fault = lie(step, true, inputs, text.chunks)
    honest, false = true.party(), liar.party()
    history = honest.statement.history
    assert history.hex() == receipt.history.history_root.hex(), "the receipt is not the run"
    print("compute the root twice, independently")
    again = History(
        receipt.history.header, list(replay(forward, text, step, isa="portable", threads=1))
    )
    agreed = agree(lambda: history, lambda: again.history_root)
    facts = run_facts(step.instance, honest.statement)
    with Anvil() if args.node else nullcontext() as chain:
        stage = Stage(print, chain)
        true_player = Told(VerdePlayer(honest, step.instance), stage)
        false_player = Told(VerdePlayer(false, step.instance), stage)
        story = stage.play(facts, {
            "honest": RoleSide(agreed, true_player),
            "cheat": RoleSide(Agreed(false.statement.history), false_player),
            "challenger": RoleSide(agreed, true_player),
        })  # fmt: skip
    result = finish(story, print, begin, model=SMOLLM2 if args.artifact is None else model.settings.name,
                    chain="anvil" if args.node else "embedded", tokens=len(text.tokens), chunks=text.chunks,
                    chunk=AT, fault=vars(fault), receipt=receipt.digest.hex(), true_root=history.hex(),
                    false_root=false.statement.history.hex())  # fmt: skip
    good = (
        result["root"] == result["true_root"] != result["false_root"]
        and result["paid"]["cheat"] == -PROVIDER_BOND
        and result["paid"]["honest"] > 0
    )
    print("the cheat is caught" if good else f"wrong: {result}")
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
