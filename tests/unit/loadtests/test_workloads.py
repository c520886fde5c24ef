import json
import statistics

import pytest
from pydantic import TypeAdapter, ValidationError

from trierarch_loadtests.plan import make_plan
from trierarch_loadtests.scenario import load_scenario
from trierarch_loadtests.users.kinds import KINDS
from trierarch_loadtests.workloads.lengths import Length
from trierarch_loadtests.workloads.prompts import WORDS, instruct, prose
from trierarch_loadtests.workloads.seeds import stream

LENGTH = TypeAdapter(Length)


def draws(law, count=4000):
    length, generator = LENGTH.validate_python(law), stream(1, "lengths")
    return [length.draw(generator) for _ in range(count)]


def test_a_constant_length_is_constant():
    assert set(draws({"law": "constant", "tokens": 7})) == {7}


def test_a_uniform_length_reaches_both_bounds_and_no_further():
    found = draws({"law": "uniform", "minimum_tokens": 3, "maximum_tokens": 6})
    assert set(found) == {3, 4, 5, 6}


def test_a_lognormal_length_has_its_median_its_tail_and_its_bounds():
    law = {"law": "lognormal", "median_tokens": 100, "sigma": 0.7, "maximum_tokens": 400}
    found = draws(law)
    assert statistics.median(found) == pytest.approx(100, rel=0.05)
    assert statistics.quantiles(found, n=20)[-1] == pytest.approx(316, rel=0.1)
    assert max(found) == 400


@pytest.mark.parametrize(
    "law",
    [
        {"law": "constant", "tokens": 0},
        {"law": "uniform", "minimum_tokens": 9, "maximum_tokens": 3},
        {"law": "lognormal", "median_tokens": 10, "sigma": 0.5, "maximum_tokens": 5},
        {"law": "normal", "mean": 3},
    ],
)
def test_impossible_lengths_are_refused(law):
    with pytest.raises(ValidationError):
        LENGTH.validate_python(law)


def test_a_prompt_has_the_length_it_was_asked_for():
    assert len(prose(stream(1, "x"), 25).split()) == 25
    assert len(instruct("Do this:", stream(1, "x"), 25).split()) == 25
    assert len(set(WORDS)) > 150


def requests_of(name, kinds):
    scenario = load_scenario(name)
    plan = make_plan(scenario, kinds=frozenset(kinds))
    for planned in plan.requests():
        prepared = KINDS[planned.entry.kind](planned, model="pocket", seed=scenario.seed)
        yield planned, prepared, json.loads(prepared.payload)


def test_every_kind_asks_for_what_the_plan_says():
    seen = set()
    for planned, prepared, body in requests_of("moe_burst", ["chat", "completion", "long_context"]):
        seen.add(planned.entry.kind)
        assert body["model"] == "pocket"
        assert body["max_tokens"] == planned.output_tokens
        assert body["stream"] is prepared.stream is True
        assert body["stream_options"] == {"include_usage": True}
        text = body.get("prompt") or body["messages"][-1]["content"]
        prefix = planned.entry.shared_prefix
        shared = prefix.tokens if prefix and "prompt" in body else 0
        assert len(text.split()) == pytest.approx(planned.input_tokens + shared, abs=8)
    assert seen == {"chat", "completion", "long_context"}


def test_an_embedding_is_not_a_stream_and_has_no_answer_length():
    for planned, prepared, body in requests_of("cost_day", ["chat", "embedding"]):
        if planned.entry.kind == "embedding":
            assert prepared.path == "/embeddings"
            assert set(body) == {"model", "input"}
            return
    pytest.fail("the plan has no embedding")


def test_extra_members_reach_the_body():
    _, _, body = next(requests_of("autoscale_step", ["chat"]))
    assert body["ignore_eos"] is True


def test_prompts_differ_but_prefix_groups_share_their_beginning():
    systems, users = set(), set()
    for planned, _, body in requests_of("moe_burst", ["chat"]):
        systems.add((planned.prefix_group, body["messages"][0]["content"]))
        users.add(body["messages"][1]["content"])
    assert len(systems) == 4
    assert len(users) > 100


def test_the_same_seed_gives_the_same_bytes():
    first = [prepared.payload for _, prepared, _ in requests_of("smoke", ["chat", "completion"])]
    second = [prepared.payload for _, prepared, _ in requests_of("smoke", ["chat", "completion"])]
    assert first == second
