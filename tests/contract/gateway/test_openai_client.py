"""The official client against the gateway: what it gets is what OpenAI's service gives it."""

from __future__ import annotations

from decimal import Decimal

import openai
import pytest

from trierarch.testing.books import TEST_RATES
from trierarch.testing.local_gateway import LocalGateway

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
PROMPT_TOKENS = 10
MODEL = "simulated"


def expected_cost(output_tokens: int) -> str:
    amount = TEST_RATES["input"] * PROMPT_TOKENS + TEST_RATES["output"] * output_tokens
    return f"{amount / 1_000_000:f}"


class TestChat:
    def test_a_plain_answer(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=5)
        assert answer.object == "chat.completion"
        assert answer.choices[0].finish_reason == "length"
        assert len((answer.choices[0].message.content or "").split()) == 5
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, 5)
        assert answer.usage.model_extra == {"cost": {"amount": expected_cost(5), "currency": "USD"}}

    def test_a_stream_is_the_same_text_without_usage(self, client: openai.OpenAI) -> None:
        plain = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=5)
        stream = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=5, stream=True
        )
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == (
            plain.choices[0].message.content
        )
        assert [chunk.usage for chunk in chunks] == [None] * 6
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "length"
        assert len({chunk.id for chunk in chunks}) == 1

    def test_the_final_usage_chunk_carries_the_cost(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        *others, last = list(stream)
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.completion_tokens == 5
        assert last.usage.model_extra == {"cost": {"amount": expected_cost(5), "currency": "USD"}}
        assert all(chunk.usage is None for chunk in others)

    def test_several_choices(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=4,
            n=3,
            stream=True,
            stream_options={"include_usage": True},
        )
        *others, last = list(stream)
        assert {chunk.choices[0].index for chunk in others} == {0, 1, 2}
        assert last.usage is not None
        assert last.usage.completion_tokens == 12

    def test_cached_tokens_are_reported_and_cheaper(self, client: openai.OpenAI) -> None:
        messages = [{"role": "user", "content": "again and again " * 20}]
        create = client.chat.completions.create
        first = create(model=MODEL, messages=messages, max_tokens=1)
        second = create(model=MODEL, messages=messages, max_tokens=1)
        assert first.usage is not None
        assert second.usage is not None
        assert second.usage.prompt_tokens_details is not None
        assert (second.usage.prompt_tokens_details.cached_tokens or 0) > 0
        costs = [
            Decimal((usage.model_extra or {})["cost"]["amount"])
            for usage in (first.usage, second.usage)
        ]
        assert costs[1] < costs[0]

    @pytest.mark.asyncio
    async def test_the_async_client(self, async_client: openai.AsyncOpenAI) -> None:
        plain = await async_client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=5
        )
        stream = await async_client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=5, stream=True
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
        assert text == plain.choices[0].message.content

    def test_the_streaming_helper_accepts_the_events(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(
            model=MODEL, messages=MESSAGES, stream_options={"include_usage": True}
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].finish_reason == "stop"
        assert final.usage is not None
        assert final.usage.completion_tokens == 64

    @pytest.mark.parametrize("tier", ["auto", "default", "flex", "priority"])
    def test_service_tiers(self, client: openai.OpenAI, tier: str) -> None:
        answer = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=1, service_tier=tier
        )
        assert answer.service_tier == ("default" if tier == "auto" else tier)


class TestCompletions:
    def test_a_plain_answer(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model=MODEL, prompt="one two three", max_tokens=4)
        assert answer.object == "text_completion"
        assert len(answer.choices[0].text.split()) == 4
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 3
        assert "cost" in (answer.usage.model_extra or {})

    def test_several_prompts_streamed(self, client: openai.OpenAI) -> None:
        stream = client.completions.create(
            model=MODEL,
            prompt=["one two", "three"],
            max_tokens=2,
            stream=True,
            stream_options={"include_usage": True},
        )
        *others, last = list(stream)
        assert {chunk.choices[0].index for chunk in others} == {0, 1}
        assert last.usage is not None
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 4)

    @pytest.mark.asyncio
    async def test_the_async_client(self, async_client: openai.AsyncOpenAI) -> None:
        stream = await async_client.completions.create(
            model=MODEL, prompt="one", max_tokens=3, stream=True
        )
        assert len([chunk async for chunk in stream]) == 3


class TestModels:
    def test_the_list_has_every_model_even_one_that_sleeps(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == [MODEL, "sleeping"]

    def test_one_model(self, client: openai.OpenAI) -> None:
        model = client.models.retrieve(MODEL)
        assert (model.id, model.owned_by) == (MODEL, "trierarch")
        assert (model.model_extra or {})["max_model_len"] == 512

    def test_an_unknown_model(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("org/nothing")
        assert caught.value.code == "model_not_found"

    def test_a_key_sees_only_its_own_models(self, gateway: LocalGateway) -> None:
        with openai.OpenAI(base_url=gateway.base_url, api_key="limited-key") as limited:
            assert [model.id for model in limited.models.list()] == ["sleeping"]
            with pytest.raises(openai.NotFoundError):
                limited.models.retrieve(MODEL)


class TestHeaders:
    def test_every_answer_says_who_and_how_much_is_left(self, client: openai.OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=MESSAGES, max_tokens=2
        )
        headers = raw.headers
        assert headers["x-request-id"].startswith("req_")
        assert headers["x-trierarch-model-variant"] == "cpu"
        assert int(headers["openai-processing-ms"]) >= 0
        for kind in ("requests", "tokens"):
            limit = int(headers[f"x-ratelimit-limit-{kind}"])
            assert 0 < int(headers[f"x-ratelimit-remaining-{kind}"]) < limit
            assert headers[f"x-ratelimit-reset-{kind}"].endswith(("s", "ms"))

    def test_a_stream_has_them_too(self, client: openai.OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=MESSAGES, max_tokens=2, stream=True
        )
        assert raw.headers["x-trierarch-model-variant"] == "cpu"
        assert "x-ratelimit-remaining-tokens" in raw.headers
        assert raw.headers["content-type"].startswith("text/event-stream")
        list(raw.parse())

    def test_tokens_are_settled_to_what_was_used(self, client: openai.OpenAI) -> None:
        create = client.chat.completions.with_raw_response.create
        left = [
            int(
                create(model=MODEL, messages=MESSAGES, max_tokens=2).headers[
                    "x-ratelimit-remaining-tokens"
                ]
            )
            for _ in range(3)
        ]
        # The bucket refills faster than these requests empty it; a leak of estimates would show.
        assert max(left) - min(left) <= 1

    def test_request_ids_are_made_here(self, client: openai.OpenAI) -> None:
        raw = client.models.with_raw_response.list(extra_headers={"x-request-id": "mine"})
        assert raw.headers["x-request-id"] != "mine"


class TestUsage:
    def test_a_client_that_has_read_its_stream_finds_it_in_its_usage(
        self, gateway: LocalGateway
    ) -> None:
        gateway.keys.add("fresh-key", "fresh")
        with openai.OpenAI(base_url=gateway.base_url, api_key="fresh-key") as one:
            for expected in (1, 2, 3):
                list(
                    one.chat.completions.create(
                        model=MODEL, messages=MESSAGES, max_tokens=5, stream=True
                    )
                )
                usage = one.get("/usage", cast_to=object)
                assert usage["requests"] == expected
                assert usage["tokens"]["output"] == 5 * expected
                spend = Decimal(expected_cost(5)) * expected
                assert Decimal(usage["spend"]["amount"]) == spend
        assert usage.keys() == {"object", "tenant", "requests", "tokens", "spend", "budgets"}
        assert (usage["object"], usage["tenant"]) == ("usage", "fresh")

    def test_a_tenant_sees_only_itself(self, gateway: LocalGateway) -> None:
        gateway.keys.add("idle-key", "idle")
        with openai.OpenAI(base_url=gateway.base_url, api_key="idle-key") as one:
            usage = one.get("/usage", cast_to=object)
        assert usage["requests"] == 0
        assert usage["spend"] == {"amount": "0", "currency": "USD"}
