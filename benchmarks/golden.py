"""Write tests/vectors/operators.json: run by hand when the contract is changed on purpose."""

import json
from pathlib import Path

from ree.conformance import reference_digest
from ree.kernels import registry

target = Path(__file__).parent.parent / "tests" / "vectors" / "operators.json"
digests = {op: reference_digest(op) for op in registry.names()}
target.write_text(json.dumps(digests, indent=1) + "\n")
