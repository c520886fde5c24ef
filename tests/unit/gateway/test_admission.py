"""Keys and limits."""

from __future__ import annotations

import pytest

from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import KeyId, ModelName
from trierarch.gateway.admission.authenticate import check_model_allowed, find_key, read_key
from trierarch.gateway.admission.limits import RateLimiter, limit_headers
from trierarch.gateway.errors import GatewayError
from trierarch.testing.books import InMemoryKeySource


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer abc"}, b"abc"),
        ({b"authorization": b"bearer   abc "}, b"abc"),
        ({b"x-api-key": b"abc"}, b"abc"),
        ({b"authorization": b"Bearer abc", b"x-api-key": b"abc"}, b"abc"),
        ({b"authorization": b"Bearer abc", b"x-api-key": b"other"}, b""),
        ({b"authorization": b"Basic abc"}, b""),
        ({b"authorization": b"Basic abc", b"x-api-key": b"abc"}, b""),
        ({b"authorization": b"abc"}, b""),
        ({b"authorization": b"Bearer"}, b""),
        ({b"authorization": b"Bearer "}, b""),
        ({}, b""),
    ],
)
def test_where_a_key_is_read_from(headers: dict[bytes, bytes], key: bytes) -> None:
    assert read_key(headers) == key


def test_a_live_key_is_found_and_a_revoked_one_is_not() -> None:
    keys = InMemoryKeySource()
    keys.add("abc", "acme")
    headers = {b"authorization": b"Bearer abc"}
    found = find_key(headers, keys)
    assert found is not None
    assert found.tenant == "acme"
    keys.revoke("abc")
    assert find_key(headers, keys) is None


@pytest.mark.parametrize("text", [b"", b"abd", b"\xff\xfe", b"abc\x00"])
def test_wrong_keys_are_not_found(text: bytes) -> None:
    keys = InMemoryKeySource()
    keys.add("abc")
    assert find_key({b"x-api-key": text}, keys) is None


def test_models_are_allowed_by_name() -> None:
    keys = InMemoryKeySource()
    check_model_allowed(keys.add("all"), ModelName("m"))
    one = keys.add("one", allowed_models=["m"])
    check_model_allowed(one, ModelName("m"))
    with pytest.raises(GatewayError) as caught:
        check_model_allowed(one, ModelName("n"))
    assert (caught.value.status, caught.value.code) == (403, "model_not_allowed")


class TestRateLimits:
    def limiter(self, clock: ManualClock) -> RateLimiter:
        return RateLimiter(clock.monotonic_seconds, requests_per_minute=2, tokens_per_minute=100)

    def test_requests_are_limited_by_key(self) -> None:
        clock = ManualClock()
        limiter = self.limiter(clock)
        for _ in range(2):
            limiter.admit(KeyId("a"), 1)
        with pytest.raises(GatewayError) as caught:
            limiter.admit(KeyId("a"), 1)
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.kind == "requests"
        assert caught.value.retry_after_seconds == pytest.approx(30.0)
        limiter.admit(KeyId("b"), 1)
        clock.advance(30.0)
        limiter.admit(KeyId("a"), 1)

    def test_tokens_are_limited_and_a_refusal_takes_nothing(self) -> None:
        limiter = self.limiter(ManualClock())
        limiter.admit(KeyId("a"), 60)
        with pytest.raises(GatewayError) as caught:
            limiter.admit(KeyId("a"), 60)
        assert caught.value.kind == "tokens"
        limits = limiter.limits_of(KeyId("a"))
        assert (limits.requests.remaining, limits.tokens.remaining) == (1, 40)

    def test_headers_say_what_the_buckets_hold(self) -> None:
        limiter = self.limiter(ManualClock())
        headers = limit_headers(limiter.admit(KeyId("a"), 40))
        assert headers.split(b"\r\n") == [
            b"x-ratelimit-limit-requests: 2",
            b"x-ratelimit-limit-tokens: 100",
            b"x-ratelimit-remaining-requests: 1",
            b"x-ratelimit-remaining-tokens: 60",
            b"x-ratelimit-reset-requests: 30s",
            b"x-ratelimit-reset-tokens: 24s",
            b"",
        ]
