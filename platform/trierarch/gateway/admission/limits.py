"""Requests and tokens per minute of keys and tenants, enforced and reported by the same buckets.

The limits hold per gateway process. A request takes its estimate when it is
admitted (input estimate plus the most it may generate) and is settled to what
it used when it ends, so a wrong estimate delays nobody for longer than its own
run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from trierarch.core.identifiers import KeyId, TenantId
from trierarch.cost.budgets import TenantTerms
from trierarch.gateway.errors import rate_limit_exceeded
from trierarch.routing.token_bucket import TokenBucket, format_reset

_Limits = tuple[int | None, int | None]
"""Requests and tokens per minute that a tenant's terms name."""


@dataclasses.dataclass(slots=True)
class KeyLimits:
    """The two buckets of one key."""

    requests: TokenBucket
    tokens: TokenBucket


class RateLimiter:
    """All keys' buckets; one entry per live key that was used.

    Where a tenant's terms limit requests or tokens, its keys share one bucket for that.
    """

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
        self._by_key: dict[KeyId, tuple[_Limits, KeyLimits]] = {}
        self._by_tenant: dict[tuple[TenantId, str], TokenBucket] = {}

    def limits_of(self, key_id: KeyId, terms: TenantTerms | None = None) -> KeyLimits:
        """Return a key's buckets as of now.

        Args:
            key_id: The key.
            terms: Its tenant's, if it has any.
        """
        now_seconds = self._monotonic_seconds()
        told: _Limits = (None, None)
        if terms is not None:
            told = (terms.requests_per_minute, terms.tokens_per_minute)
        known = self._by_key.get(key_id)
        if known is None or known[0] != told:
            limits = KeyLimits(
                self._bucket("requests", terms, told[0], self._requests_per_minute, now_seconds),
                self._bucket("tokens", terms, told[1], self._tokens_per_minute, now_seconds),
            )
            self._by_key[key_id] = (told, limits)
        else:
            limits = known[1]
        limits.requests.refill(now_seconds)
        limits.tokens.refill(now_seconds)
        return limits

    def _bucket(
        self,
        what: str,
        terms: TenantTerms | None,
        told: int | None,
        usual: int,
        now_seconds: float,
    ) -> TokenBucket:
        if terms is None or told is None:
            return TokenBucket.full(usual, now_seconds=now_seconds)
        shared = self._by_tenant.get((terms.tenant, what))
        if shared is None or shared.capacity != told:
            shared = TokenBucket.full(told, now_seconds=now_seconds)
            self._by_tenant[terms.tenant, what] = shared
        return shared

    def admit(self, key_id: KeyId, tokens: int, terms: TenantTerms | None = None) -> KeyLimits:
        """Take one request and its estimated tokens.

        Raises:
            GatewayError: If either limit is used up; then nothing is taken.
        """
        limits = self.limits_of(key_id, terms)
        wait_seconds = limits.requests.seconds_until(1)
        if wait_seconds > 0:
            raise rate_limit_exceeded("requests", int(limits.requests.capacity), wait_seconds)
        wait_seconds = limits.tokens.seconds_until(tokens)
        if wait_seconds > 0:
            raise rate_limit_exceeded("tokens", int(limits.tokens.capacity), wait_seconds)
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
