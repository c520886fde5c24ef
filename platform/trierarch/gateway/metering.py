"""What a request used, read from the answer without parsing every piece of it.

The engine is always asked for continuous usage: each event of a stream then
carries the counts so far. They are cut out of the bytes again unless the client
asked for them, because popular clients add up every usage object they see. An
event is inspected by three searches for byte strings that cannot occur inside a
JSON string (their quotes would be escaped there); JSON is parsed twice at most:
the usage event at the end, or, if the stream ends early, the last event kept.

Rules:
    - completed: the engine's final counts, charged by the rate card;
    - aborted (the client left, or its budget was used up): the counts of the last event that
      arrived, charged; an answer that is not streamed has no counts before its end and is charged
      nothing;
    - migrated (a replica was lost and another one went on): the input once, as the first one
      counted it, and the output of both. What the last one had of that input in its prefix cache
      is cached;
    - failed (engine error before or inside the answer): charged nothing;
    - shed (refused after admission: queue full, queue time-out): no tokens, charged nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from trierarch.core.quantities import Money, TokenCounts
from trierarch.gateway.errors import GatewayError, from_engine, upstream_error

_USAGE_MEMBER = re.compile(rb',"usage":\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
"""The member as engines write it: compact, after another member, one level of nesting at most."""

_CHOICE_INDEX = re.compile(rb'"choices":\[\{"index":(\d+)')
_ERROR_EVENT = b'data: {"error"'
_USAGE_EVENT = b'"choices":[]'
_DONE = b"data: [DONE]"
_DATA = b"data: "

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""An event that does not end is not SSE; log probabilities of a long prompt stay far below."""


def read_token_counts(usage: object) -> TokenCounts | None:
    """Return the counts of an OpenAI usage object, or None if it is not one.

    Counts that contradict each other (more cached than input) are clipped: a
    strange engine must not stop an answer that the client already has.
    """
    if not isinstance(usage, dict):
        return None
    input_tokens = _count(usage.get("prompt_tokens"))
    output_tokens = _count(usage.get("completion_tokens"))
    if input_tokens is None and output_tokens is None:
        return None
    input_tokens, output_tokens = input_tokens or 0, output_tokens or 0
    cached = reasoning = 0
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        cached = min(_count(details.get("cached_tokens")) or 0, input_tokens)
    details = usage.get("completion_tokens_details")
    if isinstance(details, dict):
        reasoning = min(_count(details.get("reasoning_tokens")) or 0, output_tokens)
    return TokenCounts(input_tokens, cached, output_tokens, reasoning)


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def cost_member(charge: Money) -> dict[str, str]:
    """Return the ``cost`` object that goes into ``usage``."""
    return {"amount": str(charge), "currency": charge.currency}


def price_answer(
    body: bytes, price: Callable[[TokenCounts], Money], service_tier: str
) -> tuple[bytes, TokenCounts]:
    """Return a complete JSON answer with its cost, and what it used.

    Args:
        body: The engine's answer.
        price: The charge for counts.
        service_tier: The lane that served it, for OpenAI's member of that name.

    Raises:
        GatewayError: If the answer is not one.
    """
    try:
        answer = orjson.loads(body)
        usage = answer["usage"]
        tokens = read_token_counts(usage)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        tokens = None
    if tokens is None:
        raise upstream_error("The engine sent an answer without usage.")
    usage["cost"] = cost_member(price(tokens))
    answer["service_tier"] = service_tier
    return orjson.dumps(answer), tokens


class StreamMeter:
    """Reads one stream of server-sent events on its way through.

    Args:
        price: The charge for counts; called once, for the final usage event.
        wants_usage: The client asked for the final usage event.
        wants_continuous_usage: The client asked for usage in every event.
        prompt_count: Prompts in the request (completions take a list).
        choice_count: Choices per prompt.
        before: What the parts of this answer used that other replicas have generated.

    Attributes:
        is_done: ``[DONE]`` has arrived.
        error: The engine reported an error inside the stream; nothing after it counts.
        final_tokens: Counts of the final usage event, once it has arrived.
    """

    __slots__ = (
        "_before",
        "_carry",
        "_choice_count",
        "_keeps_events",
        "_last_block",
        "_last_by_choice",
        "_price",
        "_wants_usage",
        "error",
        "final_tokens",
        "is_done",
    )

    def __init__(
        self,
        price: Callable[[TokenCounts], Money],
        *,
        wants_usage: bool,
        wants_continuous_usage: bool,
        prompt_count: int = 1,
        choice_count: int = 1,
        before: TokenCounts | None = None,
    ) -> None:
        self._price = price
        self._before = before
        self._wants_usage = wants_usage
        self._keeps_events = wants_continuous_usage
        self._choice_count = choice_count
        self._carry = b""
        self._last_block = b""
        # With several choices each event counts its own choice only.
        self._last_by_choice: dict[int, bytes] | None = (
            {} if prompt_count * choice_count > 1 else None
        )
        self.is_done = False
        self.error: GatewayError | None = None
        self.final_tokens: TokenCounts | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the engine, return what the client gets: whole events, maybe none."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        if not data.endswith(b"\n\n"):
            end = data.rfind(b"\n\n") + 2
            if end < 2:
                self._keep(data)
                return b""
            self._keep(data[end:])
            data = data[:end]
        if _ERROR_EVENT in data or _USAGE_EVENT in data or _DONE in data:
            return self._feed_special(data)
        self._note(data)
        return data if self._keeps_events else _USAGE_MEMBER.sub(b"", data)

    def _keep(self, rest: bytes) -> None:
        if len(rest) > MAX_EVENT_BYTES:
            self.error = upstream_error("The engine sent an event without an end.")
            return
        self._carry = rest

    def _note(self, block: bytes) -> None:
        self._last_block = block
        if self._last_by_choice is not None:
            for event in block.split(b"\n\n"):
                match = _CHOICE_INDEX.search(event)
                if match is not None:
                    self._last_by_choice[int(match[1])] = event

    def _feed_special(self, block: bytes) -> bytes:
        kept: list[bytes] = []
        for event in block.split(b"\n\n")[:-1]:
            if event.startswith(_ERROR_EVENT):
                self.error = _read_error_event(event)
                break
            if event.startswith(_DONE):
                self.is_done = True
                kept.append(event)
                break
            if _USAGE_EVENT in event:
                event = self._read_usage_event(event)
                if not event:
                    continue
            else:
                self._note(event + b"\n\n")
                if not self._keeps_events:
                    event = _USAGE_MEMBER.sub(b"", event)
            kept.append(event)
        return b"".join(event + b"\n\n" for event in kept)

    def _read_usage_event(self, event: bytes) -> bytes:
        """Return the final usage event with its cost, or nothing if the client did not ask."""
        try:
            chunk: dict[str, Any] = orjson.loads(event.removeprefix(_DATA))
            usage = chunk.get("usage")
        except (orjson.JSONDecodeError, AttributeError):
            return event
        tokens = read_token_counts(usage)
        if tokens is None or not isinstance(usage, dict):
            return event
        if self._before is not None:
            tokens = _joined(self._before, tokens)
            usage = chunk["usage"] = _usage_object(tokens)
        self.final_tokens = tokens
        if not self._wants_usage:
            return b""
        usage["cost"] = cost_member(self._price(tokens))
        return _DATA + orjson.dumps(chunk)

    def tokens_so_far(self) -> TokenCounts | None:
        """Return what the stream has used until now; None if the engine never said."""
        if self.final_tokens is not None:
            return self.final_tokens
        if self._last_by_choice is None:
            tokens = _last_usage(self._last_block)
            if self._before is None:
                return tokens
            return self._before if tokens is None else _joined(self._before, tokens)
        return self._sum_over_choices(self._last_by_choice)

    def _sum_over_choices(self, events: Mapping[int, bytes]) -> TokenCounts | None:
        input_by_prompt: dict[int, int] = {}
        output_tokens = reasoning_tokens = 0
        for index, event in events.items():
            tokens = _last_usage(event)
            if tokens is None:
                continue
            input_by_prompt[index // self._choice_count] = tokens.input_tokens
            output_tokens += tokens.output_tokens
            reasoning_tokens += tokens.reasoning_tokens
        if not input_by_prompt:
            return None
        return TokenCounts(sum(input_by_prompt.values()), 0, output_tokens, reasoning_tokens)


def _joined(before: TokenCounts, rest: TokenCounts) -> TokenCounts:
    """Return what an answer of two parts used; the first part is input of the second one."""
    return TokenCounts(
        before.input_tokens,
        min(rest.cached_tokens, before.input_tokens),
        before.output_tokens + rest.output_tokens,
        before.reasoning_tokens + rest.reasoning_tokens,
    )


def _usage_object(tokens: TokenCounts) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.input_tokens,
        "total_tokens": tokens.total_tokens,
        "completion_tokens": tokens.output_tokens,
        "prompt_tokens_details": {"cached_tokens": tokens.cached_tokens},
    }


def _last_usage(block: bytes) -> TokenCounts | None:
    matches = _USAGE_MEMBER.findall(block)
    if not matches:
        return None
    try:
        return read_token_counts(orjson.loads(matches[-1][len(b',"usage":') :]))
    except orjson.JSONDecodeError:
        return None


def _read_error_event(event: bytes) -> GatewayError:
    body = event.removeprefix(_DATA)
    try:
        code = orjson.loads(body)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code = None
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    return from_engine(status, body)
