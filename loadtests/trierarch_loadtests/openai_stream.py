"""What an exchange means: outcome, first token, every gap, tokens.

Rules, the same for every kind of request:

- The first token is the first event with content (text, reasoning or a tool
  call). The first event of a chat, which only names the role, does not count.
- An event has arrived when the read that completed it returned.
- Tokens are counted by the server (``usage``), never by counting events: one
  event may carry several tokens.
- A stream is complete when ``[DONE]`` was seen. One that began (status 200) and
  ended any other way, or that carries an error event, is a lost stream.
"""

import dataclasses
import enum
import json
import re
from typing import Any

from trierarch_loadtests.exchange import Exchange

DONE = b"[DONE]"
DETAIL_CHARACTERS = 300
"""Longest piece of a server's error that is kept."""

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_CONTENT_MEMBERS = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal")


class Outcome(enum.StrEnum):
    """How a request ended; every sent request has exactly one."""

    COMPLETE = "complete"
    LOST_STREAM = "lost_stream"
    FAILED_BEFORE_FIRST_BYTE = "failed_before_first_byte"
    CLIENT_ERROR = "client_error"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    CANCELLED = "cancelled"
    """Ended by the load generator itself, at the end of an interrupted run."""


FAILURES = frozenset(Outcome) - {Outcome.COMPLETE, Outcome.CANCELLED}


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them; ``input_tokens`` includes ``cached_tokens``."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One answered or failed request, on the clock of its exchange."""

    outcome: Outcome
    detail: str | None
    """Why it is not complete."""
    content_seconds: tuple[float, ...]
    """Instants of the events with content; empty for a response that is not streamed."""
    usage: Usage | None
    fingerprint: str | None
    """The server's ``system_fingerprint``."""

    @property
    def tpot_seconds(self) -> float | None:
        """Time per output token after the first, or ``None`` for fewer than two tokens."""
        if self.usage is None or self.usage.output_tokens < 2 or not self.content_seconds:
            return None
        spread = self.content_seconds[-1] - self.content_seconds[0]
        return spread / (self.usage.output_tokens - 1)

    @property
    def gaps_seconds(self) -> list[float]:
        """Times between neighbouring events with content."""
        return [
            later - earlier
            for earlier, later in zip(self.content_seconds, self.content_seconds[1:], strict=False)
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event and the instant at which its last byte had arrived."""

    seconds: float
    data: bytes


def read_answer(done: Exchange, *, stream: bool) -> Answer:
    """Return what a finished exchange means.

    Args:
        done: The exchange.
        stream: Whether a stream was asked for.
    """
    if done.status is None:
        return _failed(Outcome.FAILED_BEFORE_FIRST_BYTE, done.failure or "no response")
    if done.status != 200:
        return _failed(_outcome_of_status(done.status), _describe_error(done))
    return _read_stream(done) if stream else _read_whole(done)


def split_events(done: Exchange) -> list[Event]:
    """Cut a body into its events; comments and an unfinished last event are left out."""
    events: list[Event] = []
    arrivals = iter(done.arrivals)
    instant, length = next(arrivals, (done.ended_seconds, 0))
    start = 0
    # A stream cut right after its last line still carries a whole [DONE].
    tail = b"\n\n" if done.body.endswith((b"\n", b"\r")) else b""
    for end in _EVENT_END.finditer(done.body + tail):
        while length < min(end.end(), len(done.body)):
            instant, length = next(arrivals)
        block = done.body[start : end.start()]
        start = end.end()
        lines = [line for line in _LINE_END.split(block) if line.startswith(b"data:")]
        if lines:
            data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
            events.append(Event(instant, data))
    return events


def _read_stream(done: Exchange) -> Answer:
    content_seconds: list[float] = []
    usage: Usage | None = None
    fingerprint: str | None = None
    broken: str | None = None
    finished = False
    for event in split_events(done):
        if event.data == DONE:
            finished = True
            break
        try:
            chunk = json.loads(event.data)
        except ValueError:
            broken = f"an event is not JSON: {_shorten(event.data.decode(errors='replace'))}"
            break
        if not isinstance(chunk, dict):
            broken = "an event is not a JSON object"
            break
        if chunk.get("error") is not None:
            broken = f"error event: {_shorten(json.dumps(chunk['error']))}"
            break
        if _has_content(chunk):
            content_seconds.append(event.seconds)
        usage = _read_usage(chunk.get("usage")) or usage
        fingerprint = chunk.get("system_fingerprint") or fingerprint
    if not finished:
        broken = broken or f"ended without [DONE]: {done.failure or 'connection closed'}"
    outcome = Outcome.LOST_STREAM if broken else Outcome.COMPLETE
    return Answer(outcome, broken, tuple(content_seconds), usage, fingerprint)


def _read_whole(done: Exchange) -> Answer:
    if done.failure is not None:
        return _failed(Outcome.LOST_STREAM, done.failure)
    try:
        body = json.loads(done.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return _failed(Outcome.SERVER_ERROR, "status 200, but the body is not a JSON object")
    usage = _read_usage(body.get("usage"))
    return Answer(Outcome.COMPLETE, None, (), usage, body.get("system_fingerprint"))


def _failed(outcome: Outcome, detail: str) -> Answer:
    return Answer(outcome, _shorten(detail), (), None, None)


def _outcome_of_status(status: int) -> Outcome:
    if status == 429:
        return Outcome.RATE_LIMITED
    # A redirect is an answer to a wrong request, and this client follows none.
    return Outcome.SERVER_ERROR if status >= 500 or status < 300 else Outcome.CLIENT_ERROR


def _has_content(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        delta = choice.get("delta")
        members = delta if isinstance(delta, dict) else {}
        if choice.get("text") or any(members.get(member) for member in _CONTENT_MEMBERS):
            return True
    return False


def _read_usage(usage: Any) -> Usage | None:
    """Return the token counts, or ``None`` if the server gave none that can be trusted."""
    if not isinstance(usage, dict) or not isinstance(usage.get("prompt_tokens"), int):
        return None
    output = usage.get("completion_tokens", 0)  # an embedding has none
    # OpenAI leaves the details out when nothing was cached.
    details = usage.get("prompt_tokens_details") or {}
    cached = (details.get("cached_tokens") or 0) if isinstance(details, dict) else None
    if not isinstance(output, int) or not isinstance(cached, int):
        return None
    return Usage(usage["prompt_tokens"], cached, output)


def _describe_error(done: Exchange) -> str:
    text = done.body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        text = f"{error.get('code') or error.get('type')}: {error['message']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        text = text or done.failure or "empty body"
    return f"status {done.status}: {text}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= DETAIL_CHARACTERS else line[: DETAIL_CHARACTERS - 3] + "..."
