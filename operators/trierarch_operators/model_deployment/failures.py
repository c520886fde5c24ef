"""Why groups do not come to serve, from pods, from replicas and from Ray Serve: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from trierarch_operators.groups import Group, Pod
from trierarch_operators.object_cache import Object

_MOST_MESSAGE_LENGTH = 800

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CREATION_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_OUT_OF_MEMORY = "OOMKilled"

_SERVE_FAILURES = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """One thing that keeps a group from serving.

    Attributes:
        reason: CamelCase word, the condition's.
        message: Which pod, and the words of who met it.
    """

    reason: str
    message: str


IMAGE_PULL_FAILED = "ImagePullFailed"
OUT_OF_MEMORY = "OutOfMemory"
CONTAINER_FAILED = "ContainerFailed"
ENGINE_FAILED = "EngineFailed"
RANK_LOST = "RankLost"

REASONS = (IMAGE_PULL_FAILED, OUT_OF_MEMORY, CONTAINER_FAILED, RANK_LOST, ENGINE_FAILED)
"""What happens first comes first: an engine does not start where no container runs."""


def find_failure(
    groups: Iterable[Group], heads: Iterable[Pod], service: Object | None
) -> Failure | None:
    """Return what keeps groups from serving; None where nothing is known to.

    Args:
        groups: Of one variant that do not serve.
        heads: Pods of the Ray heads of its clusters.
        service: Its RayService, with what KubeRay has heard of Ray Serve.
    """
    found: list[Failure] = []
    silent = list(groups)
    for pod in (*heads, *(pod for group in silent for pod in group.pods)):
        if not _is_ready(pod):
            found.extend(_failures_of_pod(pod))
    found.extend(_failures_of_replicas(silent))
    if silent:
        found.extend(_failures_of_serve(service))
    return min(found, key=lambda one: REASONS.index(one.reason), default=None)


def _is_ready(pod: Pod) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _failures_of_pod(pod: Pod) -> Iterator[Failure]:
    status = pod.get("status", {})
    name = pod["metadata"]["name"]
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in containers:
        what = f"container {container['name']} of pod {name}"
        state = container.get("state", {})
        waiting = state.get("waiting") or {}
        words = waiting.get("message") or waiting.get("reason", "")
        if waiting.get("reason") in _IMAGE_REASONS:
            yield Failure(IMAGE_PULL_FAILED, _cut(f"{what}, image {container['image']}: {words}"))
        elif waiting.get("reason") in _CREATION_REASONS:
            yield Failure(CONTAINER_FAILED, _cut(f"{what}: {words}"))
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
        if ended.get("reason") == _OUT_OF_MEMORY:
            yield Failure(OUT_OF_MEMORY, f"{what} was killed at its memory limit")
        elif ended.get("exitCode"):
            last = f": {_gist(ended['message'])}" if ended.get("message") else ""
            yield Failure(
                CONTAINER_FAILED, _cut(f"{what} ended with status {ended['exitCode']}{last}")
            )


def _failures_of_replicas(groups: Sequence[Group]) -> Iterator[Failure]:
    for group in groups:
        if group.failure is None:
            continue
        said = group.failure
        reason = RANK_LOST if said.endpoint.reason == RANK_LOST else ENGINE_FAILED
        words = _gist(said.message) or said.endpoint.reason
        yield Failure(reason, _cut(f"group {group.name}: {words}"))


def _failures_of_serve(service: Object | None) -> Iterator[Failure]:
    status = (service or {}).get("status") or {}
    # While an update goes on the new cluster is the one that has to start.
    for part in ("pendingServiceStatus", "activeServiceStatus"):
        for application in ((status.get(part) or {}).get("applicationStatuses") or {}).values():
            parts = [*(application.get("serveDeploymentStatuses") or {}).values(), application]
            for one in parts:
                if one.get("status") in _SERVE_FAILURES and one.get("message"):
                    yield Failure(ENGINE_FAILED, _cut(f"Ray Serve: {_gist(one['message'])}"))


def _gist(text: str) -> str:
    """Return the error of a traceback, or the text where there is none, as one line."""
    lines = text.splitlines()
    frames = [number for number, line in enumerate(lines) if line.lstrip().startswith('File "')]
    if frames:
        below = lines[frames[-1] + 1 :]
        error = next((n for n, line in enumerate(below) if line and not line[0].isspace()), None)
        lines = lines if error is None else below[error:]
    return " ".join(line.strip() for line in lines if line.strip())


def _cut(text: str) -> str:
    if len(text) <= _MOST_MESSAGE_LENGTH:
        return text
    # The end says what happened; the beginning says where.
    half = _MOST_MESSAGE_LENGTH // 2
    return f"{text[:half]} ... {text[-half:]}"
