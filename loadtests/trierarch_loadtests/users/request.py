"""The request a user sends, ready as bytes before its planned start comes."""

import dataclasses
import json
from typing import Any

from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.workloads.prompts import prose
from trierarch_loadtests.workloads.seeds import stream


@dataclasses.dataclass(frozen=True, slots=True)
class PreparedRequest:
    """Path and body; building them takes no time after the planned start."""

    path: str
    payload: bytes
    stream: bool


def prefix_of(planned: PlannedRequest, seed: int) -> str | None:
    """Return the beginning that the request shares with its group, if it has one."""
    prefix = planned.entry.shared_prefix
    if prefix is None or planned.prefix_group is None:
        return None
    return prose(stream(seed, "prefix", planned.prefix_group), prefix.tokens)


def generation(planned: PlannedRequest, path: str, body: dict[str, Any]) -> PreparedRequest:
    """Complete the body of a request that generates tokens.

    Usage is asked for in streams too: tokens are counted by the server.
    """
    body["max_tokens"] = planned.output_tokens
    if planned.entry.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    body.update(planned.entry.extra_body)
    return PreparedRequest(path, json.dumps(body).encode(), stream=planned.entry.stream)
