"""Write the reference page of metrics and span attributes.

``python -m trierarch.observability.reference`` prints the page; a test compares
it with ``docs/reference/metrics.md``, so the page is never older than the code.
"""

from __future__ import annotations

import sys

from trierarch.observability.names import METRICS, SPAN_ATTRIBUTES


def build_reference() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Metrics and span attributes",
        "",
        "Made by `python -m trierarch.observability.reference > docs/reference/metrics.md`;",
        "change `trierarch/observability/names.py`, not this page.",
        "",
        "## Prometheus metrics",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    lines += ["", "Buckets (upper bounds in seconds):", ""]
    for metric in METRICS:
        if metric.buckets:
            bounds = ", ".join(f"{bound:g}" for bound in metric.buckets)
            lines.append(f"- `{metric.name}`: {bounds}")
    lines += [
        "",
        "## Span attributes",
        "",
        "One trace per request: the HTTP SERVER span of the gateway, under it `queue wait` and one",
        "GenAI CLIENT span per attempt; the engine continues the trace of its CLIENT span.",
        "",
        "| attribute | where and what |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in SPAN_ATTRIBUTES.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(build_reference())
