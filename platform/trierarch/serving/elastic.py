"""Whether a running group could change its number of ranks: pure.

vLLM calls that elastic expert parallelism (``POST /scale_elastic_ep``). What it asks for is
checked here in the order in which a user can do something about it; why we do not offer it yet
is in docs/decisions/0012-whole-groups-scale.md.
"""

from __future__ import annotations

from trierarch.serving.specification import EngineSpec

ELASTIC_OPTIONS = frozenset({"enable-elastic-ep", "elastic-ep-max-dp-size"})
"""vLLM's options that ask for it."""


def find_obstacles(spec: EngineSpec) -> tuple[str, ...]:
    """Return why the ranks of a group cannot become more or fewer while it serves.

    Never empty today: the last one is ours to remove.
    """
    options = spec.engine_arguments
    obstacles = []
    if spec.device != "cuda":
        obstacles.append("vLLM moves experts between ranks with NCCL, which needs GPUs")
    if not spec.parallelism.expert:
        obstacles.append("parallelism.expert is not set, so no experts lie on ranks")
    if not options.get("enable-eplb"):
        obstacles.append("vLLM needs its expert load balancer (enable-eplb: true)")
    obstacles.append(
        "Trierarch places and starts every rank itself, and vLLM adds ranks only to groups that"
        " its own Ray backend has placed"
    )
    return tuple(obstacles)
