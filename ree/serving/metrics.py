"""Counters of a server, in the text format that Prometheus reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping


class ServerMetrics:
    """What was done since the start. Tokens are counted by the thread that draws them, requests by the loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by (endpoint, status)
        self.prompt_tokens = 0
        self.generated = 0
        self.failures = 0

    def text(self, gauges: Mapping[str, tuple[str, Iterable[tuple[str, float]]]]) -> str:
        """All counters, and gauges: what each means, and its values by model."""
        lines = [
            "# HELP ree_requests_total Requests answered.",
            "# TYPE ree_requests_total counter",
        ]
        for (endpoint, status), n in sorted(self.requests.items()):
            lines.append(f'ree_requests_total{{endpoint="{endpoint}",status="{status}"}} {n}')
        for name, meaning, n in (
            ("prompt_tokens", "Tokens of prompts.", self.prompt_tokens),
            ("generated_tokens", "Tokens drawn.", self.generated),
            ("failures", "Steps that failed.", self.failures),
        ):
            lines += [
                f"# HELP ree_{name}_total {meaning}",
                f"# TYPE ree_{name}_total counter",
                f"ree_{name}_total {n}",
            ]
        for name, (meaning, values) in gauges.items():
            lines += [f"# HELP ree_{name} {meaning}", f"# TYPE ree_{name} gauge"]
            lines += [f'ree_{name}{{model="{_escaped(model)}"}} {x:g}' for model, x in values]
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
