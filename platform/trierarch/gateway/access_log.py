"""One line per request, written outside the event loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import BinaryIO

import orjson

from trierarch.observability.logging import format_time


@dataclasses.dataclass(slots=True)
class AccessEntry:
    """What is worth knowing of a finished request; never its content, never a key."""

    unix_seconds: float
    request_id: str
    trace_id: str
    method: str
    path: str
    status: int
    code: str
    peer: str
    duration_seconds: float
    client_request_id: str = ""
    tenant: str = ""
    key_id: str = ""
    model: str = ""
    variant: str = ""
    replica_id: str = ""
    tier: str = ""
    outcome: str = ""
    is_stream: bool = False
    attempts: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    charge: str = ""
    queue_wait_seconds: float | None = None
    time_to_first_token_seconds: float | None = None


def write_access_lines(entries: Sequence[AccessEntry], stream: BinaryIO) -> None:
    """Write the entries as JSON lines; members that are empty are left out."""
    lines = []
    for entry in entries:
        line: dict[str, object] = {
            "time": format_time(entry.unix_seconds),
            "level": "info",
            "logger": "trierarch.gateway.access",
            "message": "request",
        }
        for field in dataclasses.fields(entry)[1:]:
            value = getattr(entry, field.name)
            if isinstance(value, float):
                line[field.name] = round(value, 6)
            elif value or field.name == "status":
                line[field.name] = value
        lines.append(orjson.dumps(line))
    stream.write(b"\n".join(lines) + b"\n")
    stream.flush()
