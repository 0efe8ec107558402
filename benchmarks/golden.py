"""Write ree/data/golden.json and the conformance model's graph: by hand, when the contract is changed
on purpose. The operators' digests are the references'; the model's root is the portable kernels'."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import minilm

import ree
from ree.compiler.text import print_graph
from ree.conformance import DATA, GOLDEN, MODEL, model_program, reference_digest
from ree.kernels import registry
from ree.kernels.numerics import CONTRACT

program = ree.compile(minilm.model(), minilm.example_inputs(), minilm.dynamic_shapes())
(DATA / f"{MODEL}.graph.txt").write_text(print_graph(program.graph))
model = model_program()
root = model.run(**model.examples, trace="ops", isa="portable").trace.root.hex()
golden = {
    "contract": CONTRACT,
    "operators": {op: reference_digest(op) for op in registry.names()},
    "models": {MODEL: root},
}
GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
