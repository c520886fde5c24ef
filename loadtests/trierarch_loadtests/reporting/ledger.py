"""The ledger check: do the client and the server's own account agree on every token?

Black box, over ``GET /v1/usage`` with the key that sent the load, before and
after the run. Three answers are kept apart: the accounts were compared, the
endpoint has no account, the account could not be read.
"""

import dataclasses
import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from trierarch_loadtests.exchange import Exchange

POLL_SECONDS = 0.5
"""Pause between two looks at an account that has not settled."""
NO_ACCOUNT_STATUSES = frozenset({404, 405, 501})


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """Cumulative usage of the key's tenant; ``input_tokens`` includes ``cached_tokens``."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    spend: Decimal
    currency: str


@dataclasses.dataclass(frozen=True, slots=True)
class NoAccount:
    """The endpoint has no usage account: the check is not available."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class UnreadableAccount:
    """The endpoint answered with an error or with something else: the check failed."""

    reason: str


Reading = Account | NoAccount | UnreadableAccount


@dataclasses.dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one side."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class LedgerResult:
    """The comparison; ``difference_tokens`` is ``None`` where there was nothing to compare."""

    available: bool
    note: str | None
    client: TokenCounts
    ledger: TokenCounts | None = None
    requests: int | None = None
    spend: Decimal | None = None
    currency: str | None = None
    usage_unknown_requests: int = 0

    @property
    def difference_tokens(self) -> int | None:
        """The largest difference over the token classes, without sign."""
        if self.ledger is None:
            return None
        return max(
            abs(self.client.input_tokens - self.ledger.input_tokens),
            abs(self.client.cached_tokens - self.ledger.cached_tokens),
            abs(self.client.output_tokens - self.ledger.output_tokens),
        )


def read_account(done: Exchange) -> Reading:
    """Return what an exchange with ``GET /v1/usage`` says."""
    if done.status is None:
        return UnreadableAccount(done.failure or "no response")
    if done.status in NO_ACCOUNT_STATUSES:
        return NoAccount(f"the endpoint answers status {done.status} to GET /v1/usage")
    if done.status != 200 or done.failure is not None:
        return UnreadableAccount(
            f"GET /v1/usage: status {done.status} {done.failure or ''}".rstrip()
        )
    try:
        return _parse_account(json.loads(done.body))
    except (ValueError, KeyError, TypeError, InvalidOperation) as error:
        return UnreadableAccount(f"GET /v1/usage has an unknown shape: {error!r}")


def _parse_account(body: Any) -> Account:
    tokens = body["tokens"]
    return Account(
        requests=int(body["requests"]),
        input_tokens=int(tokens["input"]),
        cached_tokens=int(tokens["cached"]),
        output_tokens=int(tokens["output"]),
        spend=Decimal(body["spend"]["amount"]),
        currency=str(body["spend"]["currency"]),
    )


def compare(
    before: Reading, after: Reading, client: TokenCounts, *, usage_unknown_requests: int
) -> LedgerResult:
    """Return the client's tokens against what the account gained.

    Args:
        before: The account before the first request.
        after: The account when it had settled.
        client: What the client counted from every ``usage`` it got, warm-up included.
        usage_unknown_requests: Requests that began and brought no usage; the server may
            have counted tokens for them that no client can know.
    """
    for reading in (before, after):
        if isinstance(reading, NoAccount):
            return LedgerResult(False, reading.reason, client)
        if isinstance(reading, UnreadableAccount):
            return LedgerResult(True, reading.reason, client)
    assert isinstance(before, Account)  # noqa: S101  # for the type checker
    assert isinstance(after, Account)  # noqa: S101  # for the type checker
    note = None
    if usage_unknown_requests:
        note = f"{usage_unknown_requests} requests began and brought no usage"
    return LedgerResult(
        available=True,
        note=note,
        client=client,
        ledger=TokenCounts(
            after.input_tokens - before.input_tokens,
            after.cached_tokens - before.cached_tokens,
            after.output_tokens - before.output_tokens,
        ),
        requests=after.requests - before.requests,
        spend=after.spend - before.spend,
        currency=after.currency,
        usage_unknown_requests=usage_unknown_requests,
    )


def settle(
    read: Callable[[], Reading],
    before: Reading,
    client: TokenCounts,
    *,
    usage_unknown_requests: int,
    limit_seconds: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> LedgerResult:
    """Read the account until it agrees with the client or the time is over.

    An account that gets there and goes past it is caught: agreement must hold on
    a second look.
    """
    deadline = now() + limit_seconds
    agreed = False
    while True:
        result = compare(before, read(), client, usage_unknown_requests=usage_unknown_requests)
        if not result.available or (agreed and result.difference_tokens == 0):
            return result
        agreed = result.difference_tokens == 0
        if now() >= deadline and not agreed:
            return result
        sleep(POLL_SECONDS)
