"""Allocation: where the money for a window went."""

import itertools
from decimal import Decimal

import pytest

from trierarch.core.identifiers import ReplicaId, TenantId, VariantName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import Outcome
from trierarch.cost.allocation import (
    PLATFORM,
    AllocationRule,
    CapacityInterval,
    IdlePayer,
    Part,
    ServedRequest,
    allocate,
    capacity_cost,
    variance,
)
from trierarch.cost.unit_cost import ServingWeights

SECOND = 1_000_000
HOUR = 3600 * SECOND
PLAIN = ServingWeights(Decimal(1), Decimal(1), Decimal(1))


def interval(start, end, state=ReplicaState.READY, replica="r1", usd="3.6", variant="v"):
    """At 3.60 per hour a second costs a tenth of a cent."""
    return CapacityInterval(
        ReplicaId(replica), VariantName(variant), state, 1, Decimal(usd), start, end
    )


def request(start, end, tenant="a", tokens=100, replica="r1", outcome=Outcome.COMPLETED):
    return ServedRequest(
        ReplicaId(replica), TenantId(tenant), TokenCounts(tokens), outcome, start, end
    )


def split(intervals, requests=(), start=0, end=100 * SECOND, **rule):
    rule.setdefault("weights", PLAIN)
    return allocate(
        intervals,
        requests,
        start_unix_microseconds=start,
        end_unix_microseconds=end,
        rule=AllocationRule(**rule),
    )


def amounts(allocation):
    return {(p.tenant, p.part): str(p.amount.amount.normalize()) for p in allocation.parts}


def test_time_with_a_request_is_serving_and_the_rest_is_idle():
    result = split([interval(0, 100 * SECOND)], [request(10 * SECOND, 40 * SECOND)])
    assert amounts(result) == {("a", Part.SERVING): "0.03", (PLATFORM, Part.IDLE): "0.07"}
    assert result.capacity_cost == Money.of("0.1")


def test_requests_side_by_side_are_not_paid_twice_and_share_by_weight():
    requests = [
        request(0, 50 * SECOND, "a", tokens=300),
        request(0, 50 * SECOND, "b", tokens=100),
    ]
    result = split([interval(0, 50 * SECOND)], requests)
    assert amounts(result) == {("a", Part.SERVING): "0.0375", ("b", Part.SERVING): "0.0125"}


def test_output_weighs_what_the_rule_says():
    requests = [
        ServedRequest(ReplicaId("r1"), TenantId(name), tokens, Outcome.COMPLETED, 0, 50 * SECOND)
        for name, tokens in (("reader", TokenCounts(100)), ("writer", TokenCounts(0, 0, 100)))
    ]
    weights = ServingWeights(Decimal(1), Decimal(0), Decimal(4))
    result = split([interval(0, 50 * SECOND)], requests, weights=weights)
    assert amounts(result)["writer", Part.SERVING] == "0.04"
    assert amounts(result)["reader", Part.SERVING] == "0.01"


@pytest.mark.parametrize(
    ("state", "part"),
    [
        (ReplicaState.STARTING, Part.WARM_UP),
        (ReplicaState.READY, Part.IDLE),
        (ReplicaState.DRAINING, Part.DRAIN),
        (ReplicaState.FAILED, Part.FAILED),
    ],
)
def test_each_state_without_requests_has_its_name(state, part):
    result = split([interval(0, 10 * SECOND, state)])
    assert amounts(result) == {(PLATFORM, part): "0.01"}


@pytest.mark.parametrize("state", [ReplicaState.READY, ReplicaState.DRAINING])
def test_requests_that_end_while_draining_are_served(state):
    result = split([interval(0, 10 * SECOND, state)], [request(0, 10 * SECOND)])
    assert amounts(result) == {("a", Part.SERVING): "0.01"}


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.FAILED])
def test_replica_that_cannot_serve_serves_nobody(state):
    result = split([interval(0, 10 * SECOND, state)], [request(0, 10 * SECOND)])
    assert ("a", Part.SERVING) not in amounts(result)


def test_aborted_requests_pay_for_what_they_used():
    result = split([interval(0, 10 * SECOND)], [request(0, 10 * SECOND, outcome=Outcome.ABORTED)])
    assert amounts(result) == {("a", Part.SERVING): "0.01"}


def test_failed_requests_cost_the_platform_not_the_tenant():
    requests = [
        request(0, 10 * SECOND, "a", tokens=300),
        request(0, 10 * SECOND, "a", tokens=100, outcome=Outcome.FAILED),
    ]
    result = split([interval(0, 10 * SECOND)], requests)
    assert amounts(result) == {("a", Part.SERVING): "0.0075", (PLATFORM, Part.FAILED): "0.0025"}


def test_failed_request_without_a_token_still_costs_its_time():
    requests = [request(0, 10 * SECOND, tokens=0, outcome=Outcome.FAILED)]
    result = split([interval(0, 10 * SECOND)], requests)
    assert amounts(result) == {(PLATFORM, Part.FAILED): "0.01"}


def test_request_over_the_edge_counts_in_each_window_by_its_time_there():
    capacity = [interval(0, 100 * SECOND)]
    requests = [
        request(40 * SECOND, 60 * SECOND, "long", tokens=200),
        request(40 * SECOND, 50 * SECOND, "short", tokens=100),
    ]
    first = split(capacity, requests, 0, 50 * SECOND)
    second = split(capacity, requests, 50 * SECOND, 100 * SECOND)
    # In the first window both ran 10 seconds: the long one with half of its 200 tokens.
    assert amounts(first)["long", Part.SERVING] == "0.005"
    assert amounts(first)["short", Part.SERVING] == "0.005"
    assert amounts(second)["long", Part.SERVING] == "0.01"


def test_windows_add_up_to_the_whole_even_where_each_would_round():
    piece = interval(0, HOUR, usd="1")
    edges = [0, 1, 7, 1_000_003, 17 * SECOND + 1, HOUR]
    windows = [capacity_cost([piece], start, end) for start, end in itertools.pairwise(edges)]
    assert sum((w.amount for w in windows), Decimal(0)) == Decimal(1)


def test_price_with_many_digits_stays_exact():
    piece = interval(0, HOUR, usd="0.123456789012")
    assert capacity_cost([piece], 0, HOUR) == Money.of("0.123456789012")


def test_owner_pays_for_what_served_nobody():
    result = split(
        [interval(0, 10 * SECOND)],
        [request(0, 5 * SECOND, "a")],
        idle_payer=IdlePayer.OWNER,
        owner=TenantId("team"),
    )
    assert amounts(result) == {("a", Part.SERVING): "0.005", ("team", Part.IDLE): "0.005"}


def test_tenants_pay_in_proportion():
    requests = [request(0, 5 * SECOND, "a", 300), request(0, 5 * SECOND, "b", 100)]
    result = split([interval(0, 13 * SECOND)], requests, idle_payer=IdlePayer.PROPORTIONAL)
    assert amounts(result)["a", Part.IDLE] == "0.006"
    assert amounts(result)["b", Part.IDLE] == "0.002"


def test_in_proportion_a_variant_without_tenants_is_paid_by_those_of_the_model():
    capacity = [
        interval(0, 10 * SECOND),
        interval(0, 10 * SECOND, replica="r2", variant="spare"),
    ]
    result = split(capacity, [request(0, 10 * SECOND)], idle_payer=IdlePayer.PROPORTIONAL)
    assert amounts(result) == {("a", Part.SERVING): "0.01", ("a", Part.IDLE): "0.01"}


def test_in_proportion_to_nobody_the_platform_pays():
    result = split([interval(0, 10 * SECOND)], idle_payer=IdlePayer.PROPORTIONAL)
    assert amounts(result) == {(PLATFORM, Part.IDLE): "0.01"}


def test_owner_must_be_named_if_it_is_to_pay():
    with pytest.raises(ValueError, match="none is named"):
        AllocationRule(idle_payer=IdlePayer.OWNER)


def test_request_on_a_replica_without_capacity_is_counted_as_unmatched():
    result = split([interval(0, 10 * SECOND)], [request(0, 10 * SECOND, replica="ghost")])
    assert result.unmatched_requests == 1
    assert amounts(result) == {(PLATFORM, Part.IDLE): "0.01"}


def test_shed_request_that_reached_no_replica_is_not_unmatched():
    result = split(
        [interval(0, 10 * SECOND)], [request(0, 1, replica="", outcome=Outcome.SHED, tokens=0)]
    )
    assert result.unmatched_requests == 0


def test_free_capacity_costs_nothing_and_has_no_parts():
    result = split([interval(0, 10 * SECOND, usd="0")], [request(0, 5 * SECOND)])
    assert result.parts == ()
    assert result.capacity_cost == Money.of(0)


def test_window_without_capacity_is_empty():
    assert split([]).parts == ()


def test_window_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="before it starts"):
        split([], start=1, end=0)


def test_variance_is_charged_minus_actual():
    assert variance(Money.of(1), Money.of(3)) == Money.of(-2)
