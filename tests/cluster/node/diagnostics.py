"""What a person would look at when Ray pods do not do what they should."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cluster.node.fixtures import KindCluster

_TAIL_LINES = 40

_PLACEMENT = "wget -T 10 -qO- http://127.0.0.1:8265/api/v0/placement_groups?detail=1"

_SERVE = "wget -T 10 -qO- http://127.0.0.1:8265/api/serve/applications/"

_IN_EACH_POD = f"""
ps -eo pid,ppid,etimes,stat,args --sort pid | cut -c1-120 | grep -E 'VLLM|headless|ray::'
cd /tmp/ray/session_latest/logs || exit 0
for file in $(ls -t serve/replica_* serve/controller_* 2>/dev/null | head -n 4); do
    echo "== $file"; tail -n {_TAIL_LINES} "$file"
done
for file in $(ls -t worker-*.err worker-*.out 2>/dev/null | head -n 6); do
    if [ -s "$file" ]; then echo "== $file"; tail -n {_TAIL_LINES} "$file"; fi
done
"""


def describe_ray_pods(cluster: KindCluster, namespace: str) -> str:
    """Return the state of a namespace's Ray cluster: pods, events, Serve, placement, logs."""

    def ask(*arguments: str) -> str:
        return cluster.kubectl("--namespace", namespace, *arguments, check=False).strip()

    parts = [
        ("pods", ask("get", "pods", "--output", "wide")),
        ("events", ask("get", "events", "--sort-by=.lastTimestamp")),
        ("rayservices", ask("get", "rayservices", "--output", "jsonpath={.items[*].status}")),
    ]
    pods = json.loads(ask("get", "pods", "--output", "json") or '{"items": []}')["items"]
    for pod in pods:
        name = pod["metadata"]["name"]
        execute = ("exec", name, "--container=ray", "--", "sh", "-c")
        if pod["metadata"].get("labels", {}).get("ray.io/node-type") == "head":
            parts.append((f"{name}: Serve", ask(*execute, _SERVE)))
            parts.append((f"{name}: placement groups", ask(*execute, _PLACEMENT)))
        parts.append((name, ask(*execute, _IN_EACH_POD)))
    return "\n".join(f"---- {title}\n{text}" for title, text in parts)
