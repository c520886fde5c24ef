"""What the API server counts: requests by verb and kind of object."""

from __future__ import annotations

import re
from collections import Counter

import httpx

OPERATORS_REQUESTS = (
    "APPLY modeldeployments",
    "APPLY modeldeployments/status",
    "APPLY rayservices",
    "DELETE rayservices",
    "POST events",
)
"""Writes that only the operator makes here; KubeRay does not run beside it."""

_LABEL = re.compile(r'(\w+)="([^"]*)"')


def count_requests(client: httpx.Client) -> Counter[str]:
    """Return how many requests of each kind the API server has answered with success."""
    found: Counter[str] = Counter()
    for line in client.get("/metrics").text.splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        labels = dict(_LABEL.findall(line))
        if not labels["code"].startswith("2"):
            continue
        kind = labels["resource"] + (f"/{labels['subresource']}" if labels["subresource"] else "")
        found[f"{labels['verb']} {kind}"] += int(float(line.rpartition(" ")[2]))
    return found
