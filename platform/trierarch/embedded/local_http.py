"""Requests to the run's own processes, on this machine, with the standard library."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

from trierarch.core.errors import Unavailable
from trierarch.embedded.checks import LOCALHOST

_NO_ANSWER = (OSError, http.client.HTTPException)


def get_json(port: int, path: str, timeout_seconds: float = 2.0) -> tuple[int, Any] | None:
    """Return status and JSON body of a GET request; None if nobody answers with JSON."""
    connection = http.client.HTTPConnection(LOCALHOST, port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (*_NO_ANSWER, ValueError):
        return None
    finally:
        connection.close()


def accepts_connections(port: int, timeout_seconds: float = 2.0) -> bool:
    """Tell whether somebody listens on a port."""
    try:
        socket.create_connection((LOCALHOST, port), timeout_seconds).close()
    except OSError:
        return False
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A finished chat answer."""

    text: str
    input_tokens: int
    output_tokens: int
    cost: str


def ask(
    port: int,
    key: str,
    model: str,
    question: str,
    show: Callable[[str], None],
    timeout_seconds: float = 120.0,
) -> ChatAnswer:
    """Ask one streamed chat question through the gateway.

    Args:
        port: Data port.
        key: API key.
        model: Served name.
        question: What to ask.
        show: Called with each piece of the answer.
        timeout_seconds: Longest silence.

    Raises:
        Unavailable: If there is no whole answer.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection(LOCALHOST, port, timeout=timeout_seconds)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        answer = connection.getresponse()
        if answer.status != 200:
            detail = answer.read(500).decode(errors="replace")
            raise Unavailable(f"the first request got status {answer.status}: {detail}")
        return _read_stream(answer, show)
    except (*_NO_ANSWER, ValueError, KeyError, IndexError) as error:
        raise Unavailable(f"the first request got no whole answer: {error!r}") from error
    finally:
        connection.close()


def _read_stream(answer: http.client.HTTPResponse, show: Callable[[str], None]) -> ChatAnswer:
    pieces: list[str] = []
    usage: dict[str, Any] | None = None
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        chunk = json.loads(line[len(b"data: ") :])
        if "error" in chunk:
            raise Unavailable(f"the first request failed: {chunk['error'].get('message')}")
        for choice in chunk.get("choices", ()):
            piece = choice["delta"].get("content")
            if piece:
                pieces.append(piece)
                show(piece)
        usage = chunk.get("usage") or usage
    if usage is None:
        raise Unavailable("the first request's answer broke off before its usage")
    cost = usage.get("cost") or {}
    return ChatAnswer(
        text="".join(pieces),
        input_tokens=int(usage["prompt_tokens"]),
        output_tokens=int(usage["completion_tokens"]),
        cost=f"{cost['amount']} {cost['currency']}" if cost else "not priced",
    )
