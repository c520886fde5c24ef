"""Clients that ask a model without a pause, and what each of them saw."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
from tests.cluster.node.fixtures import wait_for

PATIENCE_SECONDS = 90.0
"""For which a client waits for the next piece of an answer."""

PAUSE_SECONDS = 0.5
"""After a refusal, as clients do that try again."""


class End(enum.StrEnum):
    """How a streamed answer ended for its client."""

    WHOLE = "whole"
    """With its last token, its usage and ``[DONE]``."""
    REFUSED = "refused"
    """Before its first byte: whoever asks again loses nothing."""
    CUT = "cut"
    """After its first byte."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question and what came of it; times are of the monotonic clock.

    Attributes:
        client: Which of several asked.
        asked_seconds: When it was asked.
        ended_seconds: When the answer ended.
        end: How.
        output_tokens: By the usage of a whole answer.
        problem: What the client was told of any other.
    """

    client: int
    asked_seconds: float
    ended_seconds: float
    end: End
    output_tokens: int = 0
    problem: str = ""


def ask(url: str, key: str, body: Mapping[str, Any], client: int = 0) -> Answer:
    """Ask for a streamed chat answer and follow it to its end, whatever that is.

    Args:
        url: Of the gateway, without a path.
        key: API key.
        body: Of the request.
        client: Which of several asks.
    """
    began_seconds = time.monotonic()
    has_begun, usage, problem, is_done = False, 0, "the stream ended without [DONE]", False
    timeout = httpx.Timeout(PATIENCE_SECONDS, connect=5.0)
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False) as connection,
            connection.stream(
                "POST",
                f"{url}/v1/chat/completions",
                headers={"authorization": f"Bearer {key}"},
                json={**body, "stream": True, "stream_options": {"include_usage": True}},
            ) as response,
        ):
            if response.status_code != 200:
                problem = f"{response.status_code} {response.read().decode()[:200]}"
            else:
                for line in response.iter_lines():
                    has_begun = True
                    data = line.removeprefix("data: ")
                    if data == "[DONE]":
                        is_done = True
                    elif data:
                        event = json.loads(data)
                        if "error" in event:
                            problem = str(event["error"])
                            break
                        usage = (event.get("usage") or {}).get("completion_tokens", usage)
    except httpx.HTTPError as error:
        problem = repr(error)
    ended_seconds = time.monotonic()
    if is_done:
        return Answer(client, began_seconds, ended_seconds, End.WHOLE, usage)
    end = End.CUT if has_begun else End.REFUSED
    return Answer(client, began_seconds, ended_seconds, end, problem=problem)


class Clients:
    """Clients that ask one after the other while used as a context manager.

    Args:
        url: Of the gateway, without a path.
        key: API key.
        body: Of every request.
        count: How many ask at the same time.

    Attributes:
        answers: Those that have ended.
    """

    def __init__(self, url: str, key: str, body: Mapping[str, Any], count: int) -> None:
        self._url, self._key, self._body = url, key, body
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=(client,)) for client in range(count)
        ]
        self.answers: list[Answer] = []

    def _go_on(self, client: int) -> None:
        while not self._is_over.is_set():
            answer = ask(self._url, self._key, self._body, client)
            self.answers.append(answer)
            if answer.end is not End.WHOLE:
                self._is_over.wait(PAUSE_SECONDS)

    def __enter__(self) -> Self:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ask no more, and wait for the answers that are on their way."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        """How many ask at the same time."""
        return len(self._threads)

    def expect_answers(self, seconds: float = 120.0) -> None:
        """Wait until each client has a whole answer to a question asked from now on."""
        began_seconds = time.monotonic()

        def answered() -> set[int]:
            return {
                one.client
                for one in list(self.answers)
                if one.asked_seconds >= began_seconds and one.end is End.WHOLE
            }

        wait_for(lambda: len(answered()) == self.count, seconds, 0.2, self.describe)

    def ended(self, how: End, since_seconds: float = 0.0) -> list[Answer]:
        """Return the answers that ended in a way, of those that ended since then."""
        recent = [one for one in list(self.answers) if one.ended_seconds > since_seconds]
        return [one for one in recent if one.end is how]

    def describe(self, since_seconds: float = 0.0) -> str:
        """Return how many answers ended how since then, and what clients were told."""
        recent = [one for one in list(self.answers) if one.ended_seconds > since_seconds]
        counts = collections.Counter(one.end.value for one in recent)
        told = collections.Counter(one.problem for one in recent if one.problem)
        longest = max((one.ended_seconds - one.asked_seconds for one in recent), default=0.0)
        return f"{dict(counts)}, longest {longest:.1f} s, told {dict(told)}"
