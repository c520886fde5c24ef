"""What a stream needs to go on at another replica when the one that served it is lost.

The text that the client has is given to the next replica as the beginning of
the answer, so the client gets one answer in one stream. That is possible where
an answer is nothing but one text; reasoning, tool calls, log probabilities and
outputs bound to a grammar have a state that text does not hold.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from trierarch.core.quantities import TokenCounts
from trierarch.gateway.endpoints.endpoint import ContinueGeneration

FOLD_BYTES = 16 * 1024
"""So much of a stream is kept as it came; then its text is taken out: an event is a hundred times
as long as its text, and most streams are never lost."""

BOUND_MEMBERS = frozenset(
    {
        "audio",
        "continue_final_message",
        "echo",
        "function_call",
        "functions",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "logprobs",
        "modalities",
        "prompt_logprobs",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "structured_outputs",
        "suffix",
        "tools",
        "top_logprobs",
        "use_beam_search",
    }
)
"""Members of a request whose answer is more than a text, or hangs on more than the text so far."""

_CREATED = re.compile(rb'"created":\d+')
_DATA = b"data: "
_PLAIN_DELTA = frozenset({"role", "content"})


def is_one_text(request: dict[str, Any]) -> bool:
    """Return whether each answer to a request will be one text and nothing else."""
    if any(request[name] for name in BOUND_MEMBERS & request.keys()):
        return False
    if request.get("add_generation_prompt") is False:
        # Its answer is no turn of its own, as the rest of one would be.
        return False
    shape = request.get("response_format")
    return shape is None or (isinstance(shape, dict) and shape.get("type") == "text")


class SentText:
    """The text that a client has of a stream so far.

    Attributes:
        created: The member of the first event that tells its time, as bytes.
    """

    __slots__ = ("_is_plain", "_kept", "_kept_bytes", "_texts", "created")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._texts: list[str] = []
        self._is_plain = True
        self.created = b""

    def add(self, events: bytes) -> None:
        """Take whole events that were sent."""
        self._kept.append(events)
        self._kept_bytes += len(events)
        if self._kept_bytes >= FOLD_BYTES:
            self._fold()

    def text(self) -> str | None:
        """Return the text; None if the answer was more than that, or had come to its end."""
        self._fold()
        return "".join(self._texts) if self._is_plain else None

    def _fold(self) -> None:
        block, self._kept, self._kept_bytes = b"".join(self._kept), [], 0
        if not self._is_plain:
            return
        if not self.created and (found := _CREATED.search(block)) is not None:
            self.created = found[0]
        for event in block.split(b"\n\n"):
            if event.startswith(_DATA) and self._is_plain:
                text = _plain_text(event)
                self._is_plain = text is not None
                self._texts.append(text or "")


def _plain_text(event: bytes) -> str | None:
    """Return the text of an event; None if it has something else, or says that the answer ends."""
    try:
        choices = orjson.loads(event.removeprefix(_DATA))["choices"]
        if not choices:
            return ""
        [choice] = choices
        if choice.get("finish_reason") is not None or choice.get("logprobs"):
            return None
        delta = choice.get("delta")
        if delta is None:
            text = choice["text"]
        elif any(value for name, value in delta.items() if name not in _PLAIN_DELTA):
            return None
        else:
            text = delta.get("content") or ""
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return text if isinstance(text, str) else None


class Continuation:
    """The rest of a stream, as another replica is asked for it.

    Args:
        body: Request to the replica.
        before: What the parts until now have used.
        created: As in ``SentText``.

    Attributes:
        body: Request to the replica.
        before: What the parts until now have used.
    """

    __slots__ = ("_created", "_has_begun", "_their_created", "before", "body")

    def __init__(self, body: bytes, before: TokenCounts, created: bytes) -> None:
        self.body = body
        self.before = before
        self._created = created
        self._their_created = b""
        self._has_begun = False

    def adapt(self, events: bytes) -> bytes:
        """Return events of the rest as the client gets them: of one answer, which has begun."""
        if not self._has_begun:
            self._has_begun = True
            found = _CREATED.search(events)
            self._their_created = found[0] if found is not None else b""
            first, _, rest = events.partition(b"\n\n")
            if _only_names_role(first):
                events = rest
        if self._created and self._their_created:
            return events.replace(self._their_created, self._created)
        return events


def _only_names_role(event: bytes) -> bool:
    """Return whether an event is the one with which a chat answer begins."""
    try:
        [choice] = orjson.loads(event.removeprefix(_DATA))["choices"]
        delta = choice["delta"]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return False
    return bool(delta.get("role")) and not delta.get("content")


def plan_continuation(
    go_on: ContinueGeneration, body: bytes, sent: SentText, tokens: TokenCounts | None
) -> Continuation | None:
    """Return how to go on with a stream; None if that is not possible.

    Args:
        go_on: Of the endpoint.
        body: First request to a replica.
        sent: What the client has.
        tokens: What that used; None if no engine ever said, and nobody could say at the end.
    """
    text = sent.text()
    if text is None or tokens is None:
        return None
    rest = go_on(body, text=text, output_tokens=tokens.output_tokens)
    return None if rest is None else Continuation(rest, tokens, sent.created)


def continue_request(
    body: bytes, output_tokens: int, length_members: tuple[str, ...]
) -> dict[str, Any] | None:
    """Return a request that may generate what is left; its endpoint puts the text in.

    Args:
        body: The first request to a replica.
        output_tokens: Of the answer so far.
        length_members: Members that limit the output.

    Returns:
        The request; None if nothing may be generated any more.
    """
    request: dict[str, Any] = orjson.loads(body)
    for name in length_members:
        limit = request.get(name)
        if limit is not None:
            if limit <= output_tokens:
                return None
            request[name] = limit - output_tokens
    if request.get("min_tokens"):
        request["min_tokens"] = max(0, request["min_tokens"] - output_tokens)
    return request
