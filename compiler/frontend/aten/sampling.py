"""The call ree.sampling.sample, which is one macro operator."""

from __future__ import annotations

from ree.compiler.frontend.importer import Importer, aten
from ree.compiler.ir import Ref


@aten("ree.sample")
def _sample(m: Importer, logits: Ref, *parameters: Ref) -> Ref:
    return m.add("sample", logits, *parameters)
