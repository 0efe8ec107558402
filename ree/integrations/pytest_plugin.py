"""pytest plugin: the fixture `assert_same_bits`, for a project's own tests.

def test_bits(assert_same_bits):
    assert_same_bits(model, {"x": torch.randn(2, 9)}, devices=["cpu", "cuda"])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest


def compare_bits(
    model: Any, inputs: Mapping[str, Any] | Sequence[Any], devices: Sequence[str] = ("cpu", "cuda")
) -> None:
    """Fail unless `model` gives the same bytes on all `devices`.

    model: a torch module, or a compiled Program. inputs: by name or position. A device is cpu, an
    instruction set after a colon (cpu:portable), cuda, cuda:N, interpret, or ptx:sm_90. The failure names the
    first value that differs, with its operator and source line. A device that is missing is an error,
    never a skip.
    """
    from ree import compile
    from ree.explanation import explain
    from ree.program import Program
    from ree.traces.diff import compare
    from ree.verification import replayed_tensors

    if len(devices) < 2:
        raise ValueError(f"devices: expected at least two, got {list(devices)}")
    given = dict(inputs) if isinstance(inputs, Mapping) else tuple(inputs)
    program = model if isinstance(model, Program) else compile(model, given)

    def run(device: str, **options: Any) -> Any:
        name, _, isa = device.partition(":")
        where = {"device": "cpu", "isa": isa or None} if name == "cpu" else {"device": device}
        args, kwargs = ((), given) if isinstance(given, dict) else (given, {})
        return program.run(*args, **kwargs, **where, **options)

    first = run(devices[0])
    for other in devices[1:]:
        second = run(other)
        if all(_bytes(a) == _bytes(b) for a, b in zip(first.outputs, second.outputs, strict=True)):
            continue
        a, b = (run(d, trace="ops", keep_values=True) for d in (devices[0], other))
        found = compare(a.trace, b.trace, replayed_tensors(a), replayed_tensors(b))
        lines = [line for d in found for line in explain(d, devices[0], other)]
        pytest.fail(
            "\n".join([f"{devices[0]} and {other} give different bits", *lines]), pytrace=False
        )


def _bytes(x: Any) -> bytes:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x).tobytes()


@pytest.fixture
def assert_same_bits() -> Callable[..., None]:
    """`compare_bits` as a fixture."""
    return compare_bits
