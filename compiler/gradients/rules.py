"""All gradient rules: importing this module registers them."""

from ree.compiler.gradients import contractions, moves, pointwise, reductions  # noqa: F401
from ree.compiler.gradients.engine import CONSTANT, REFUSED, RULES
from ree.kernels import registry

NOT_COVERED = sorted(set(registry.names()) - set(RULES) - CONSTANT - REFUSED)
if NOT_COVERED:
    raise TypeError(f"operators without a gradient rule: {', '.join(NOT_COVERED)}")
