"""The official client against the running stack: gateway, Ray Serve replica, vLLM."""

from __future__ import annotations

import json
from decimal import Decimal

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from trierarch.testing.running_stack import RunningStack
from trierarch.testing.trace_collector import TraceCollector
from trierarch.testing.waiting import wait_until

pytestmark = pytest.mark.engine

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]


def cost_of(usage: object) -> Decimal:
    cost = usage.cost  # type: ignore[attr-defined]  # an extra object of ours
    assert cost["currency"] == "USD"
    return Decimal(cost["amount"])


def test_the_run_answers_its_own_question(stack: RunningStack) -> None:
    assert "Paris" in stack.output
    assert "cost 0.0" in stack.output


def test_a_plain_answer_has_sense_and_a_cost(stack: RunningStack) -> None:
    with stack.client() as client:
        answer = client.chat.completions.create(model="pocket", messages=QUESTION)
    assert "Paris" in str(answer.choices[0].message.content)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert cost_of(answer.usage) > 0


def test_a_stream_brings_the_same_words_and_its_usage_last(stack: RunningStack) -> None:
    with stack.client() as client:
        whole = client.chat.completions.create(model="pocket", messages=QUESTION)
        chunks = list(
            client.chat.completions.create(
                model="pocket",
                messages=QUESTION,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert sum(bool(chunk.choices) for chunk in chunks) > 3
    last = chunks[-1].usage
    assert last is not None
    assert whole.usage is not None
    assert last.completion_tokens == whole.usage.completion_tokens
    assert cost_of(last) > 0


def test_completions_and_models(stack: RunningStack) -> None:
    with stack.client() as client:
        text = client.completions.create(
            model="pocket", prompt="The capital of France is", max_tokens=4
        )
        assert "Paris" in text.choices[0].text
        assert [model.id for model in client.models.list()] == ["pocket"]
        assert client.models.retrieve("pocket").id == "pocket"


def test_a_wrong_key_is_refused(stack: RunningStack) -> None:
    with (
        stack.client(api_key="trk_wrong_key") as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.chat.completions.create(model="pocket", messages=QUESTION)
    assert refused.value.code == "invalid_api_key"


def test_an_unknown_model_is_named(stack: RunningStack) -> None:
    with stack.client() as client, pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-99", messages=QUESTION)
    assert refused.value.code == "model_not_found"
    assert "gpt-99" in refused.value.message


def test_bad_json_is_one_clear_error(stack: RunningStack) -> None:
    answer = httpx.post(
        f"{stack.url}/chat/completions",
        headers={"authorization": f"Bearer {stack.client_environment['OPENAI_API_KEY']}"},
        content=b'{"model": "pocket", "messages": [',
        timeout=30.0,
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert "JSON" in error["message"]


def test_a_context_that_is_too_long_is_refused(stack: RunningStack) -> None:
    with stack.client() as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="pocket", messages=[{"role": "user", "content": "sea " * 4000}]
        )
    assert refused.value.code == "context_length_exceeded"


def test_an_unlisted_path_is_never_passed_on(stack: RunningStack) -> None:
    headers = {"authorization": f"Bearer {stack.client_environment['OPENAI_API_KEY']}"}
    for path in ("/v1/load_lora_adapter", "/tokenize", "/metrics", "/v1/../metrics"):
        url = f"http://127.0.0.1:{stack.port}{path}"
        assert httpx.post(url, headers=headers, json={}, timeout=30.0).status_code == 404, path


def test_a_client_that_leaves_frees_its_seat(stack: RunningStack) -> None:
    with stack.client() as client:
        stream = client.chat.completions.create(
            model="pocket",
            messages=QUESTION,
            stream=True,
            max_tokens=1500,
            extra_body={"ignore_eos": True},
        )
        next(iter(stream))
        [replica] = [r for r in stack.replicas() if r["in_flight"]]
        stream.close()
    metrics = f"http://{replica['host']}:{replica['port']}/metrics"

    def running() -> float:
        lines = httpx.get(metrics, timeout=30.0).text.splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith("vllm:num_requests_running"))

    # The answer would take the engine more than ten times as long.
    wait_until(lambda: running() == 0, timeout_seconds=20)


def test_one_trace_goes_through_gateway_replica_and_engine(
    stack: RunningStack, collector: TraceCollector
) -> None:
    trace_id = "7f3a" * 8
    with stack.client() as client:
        client.chat.completions.create(
            model="pocket",
            messages=QUESTION,
            extra_headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
        )

    def services() -> set[str]:
        spans = collector.wait_for(1)
        return {span.service_name for span in spans if span.trace_id == trace_id}

    wanted = {"trierarch-gateway", "trierarch-replica", "trierarch-engine"}
    wait_until(lambda: services() >= wanted, timeout_seconds=30)
    spans = {s.span_id: s for s in collector.wait_for(1) if s.trace_id == trace_id}
    [engine] = [s for s in spans.values() if s.service_name == "trierarch-engine"]
    replica = spans[engine.parent_span_id]
    assert replica.service_name == "trierarch-replica"
    assert spans[replica.parent_span_id].kind == "CLIENT"
    decisions = [s for s in collector.wait_for(1) if s.name == "decide"]
    assert decisions
    children = {s.name for s in collector.wait_for(1) if s.parent_span_id == decisions[0].span_id}
    assert children == {"observe", "analyze", "optimize", "constrain", "actuate"}


def test_logs_are_json_with_ids(stack: RunningStack) -> None:
    for name in ("gateway", "controller"):
        lines = [json.loads(line) for line in stack.log(name).splitlines()]
        assert lines
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    access = [
        line
        for line in map(json.loads, stack.log("gateway").splitlines())
        if line["logger"] == "trierarch.gateway.access"
    ]
    assert all(line["request_id"] for line in access)
    assert all(line["trace_id"] for line in access if line["status"] == 200)
    assert stack.client_environment["OPENAI_API_KEY"] not in stack.log("gateway")


def test_the_ledger_balances(stack: RunningStack) -> None:
    def drift() -> bool:
        return "unallocated drift 0" in stack.command("report", "--by", "tenant")

    wait_until(drift, timeout_seconds=60)
    report = json.loads(stack.command("report", "--by", "model", "--format", "json"))
    assert "pocket" in json.dumps(report)
