"""chargpt.py at width 64 with 2 layers, for a quick look: a step takes milliseconds."""

import chargpt

chargpt.SIZE = chargpt.TINY

from chargpt import STEPS, batch, data, evaluate, loss, model, optimizer  # noqa: E402, F401
