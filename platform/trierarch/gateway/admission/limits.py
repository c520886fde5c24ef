"""Requests and tokens per minute of each key, enforced and reported by the same buckets.

The limits hold per gateway process. A request takes its estimate when it is
admitted (input estimate plus the most it may generate) and is settled to what
it used when it ends, so a wrong estimate delays nobody for longer than its own
run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from trierarch.core.identifiers import KeyId
from trierarch.gateway.errors import rate_limit_exceeded
from trierarch.routing.token_bucket import TokenBucket, format_reset


@dataclasses.dataclass(slots=True)
class KeyLimits:
    """The two buckets of one key."""

    requests: TokenBucket
    tokens: TokenBucket


class RateLimiter:
    """All keys' buckets; one entry per live key that was used."""

    def __init__(
        self,
        monotonic_seconds: Callable[[], float],
        *,
        requests_per_minute: int,
        tokens_per_minute: int,
    ) -> None:
        self._monotonic_seconds = monotonic_seconds
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._by_key: dict[KeyId, KeyLimits] = {}

    def limits_of(self, key_id: KeyId) -> KeyLimits:
        """Return a key's buckets as of now."""
        now_seconds = self._monotonic_seconds()
        limits = self._by_key.get(key_id)
        if limits is None:
            limits = self._by_key[key_id] = KeyLimits(
                TokenBucket.full(self._requests_per_minute, now_seconds=now_seconds),
                TokenBucket.full(self._tokens_per_minute, now_seconds=now_seconds),
            )
        else:
            limits.requests.refill(now_seconds)
            limits.tokens.refill(now_seconds)
        return limits

    def admit(self, key_id: KeyId, tokens: int) -> KeyLimits:
        """Take one request and its estimated tokens.

        Raises:
            GatewayError: If either limit is used up; then nothing is taken.
        """
        limits = self.limits_of(key_id)
        wait_seconds = limits.requests.seconds_until(1)
        if wait_seconds > 0:
            raise rate_limit_exceeded("requests", self._requests_per_minute, wait_seconds)
        wait_seconds = limits.tokens.seconds_until(tokens)
        if wait_seconds > 0:
            raise rate_limit_exceeded("tokens", self._tokens_per_minute, wait_seconds)
        limits.requests.take(1)
        limits.tokens.take(tokens)
        return limits


def limit_headers(limits: KeyLimits) -> bytes:
    """Return the ``x-ratelimit-*`` header lines for the buckets as they are."""
    requests, tokens = limits.requests, limits.tokens
    return (
        f"x-ratelimit-limit-requests: {requests.capacity:.0f}\r\n"
        f"x-ratelimit-limit-tokens: {tokens.capacity:.0f}\r\n"
        f"x-ratelimit-remaining-requests: {requests.remaining}\r\n"
        f"x-ratelimit-remaining-tokens: {tokens.remaining}\r\n"
        f"x-ratelimit-reset-requests: {format_reset(requests.seconds_until_full)}\r\n"
        f"x-ratelimit-reset-tokens: {format_reset(tokens.seconds_until_full)}\r\n"
    ).encode()
