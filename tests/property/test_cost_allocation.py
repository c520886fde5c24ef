"""Whatever ran and whatever it cost: the parts add up, to the last digit."""

import itertools
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.identifiers import ReplicaId, TenantId, VariantName
from trierarch.core.quantities import TokenCounts
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import Outcome
from trierarch.cost.allocation import (
    AllocationRule,
    CapacityInterval,
    IdlePayer,
    Part,
    ServedRequest,
    allocate,
    capacity_cost,
)
from trierarch.cost.exact import exact_sum, share_out

MICROSECONDS = st.integers(0, 10_000_000_000)
REPLICAS = st.sampled_from(["r1", "r2", "r3"]).map(ReplicaId)
TENANTS = st.sampled_from(["a", "b", "c"]).map(TenantId)
PRICES = st.decimals(0, 1000, places=9)


@st.composite
def spans(draw):
    start, end = sorted((draw(MICROSECONDS), draw(MICROSECONDS)))
    return start, end


@st.composite
def intervals(draw):
    start, end = draw(spans())
    return CapacityInterval(
        draw(REPLICAS),
        VariantName(draw(st.sampled_from(["v", "w"]))),
        draw(st.sampled_from(list(ReplicaState))),
        draw(st.integers(1, 72)),
        draw(PRICES),
        start,
        end,
    )


@st.composite
def requests(draw):
    start, end = draw(spans())
    input_tokens = draw(st.integers(0, 1_000_000))
    tokens = TokenCounts(
        input_tokens, draw(st.integers(0, input_tokens)), draw(st.integers(0, 100_000))
    )
    return ServedRequest(
        draw(st.one_of(REPLICAS, st.just(ReplicaId("ghost")))),
        draw(TENANTS),
        tokens,
        draw(st.sampled_from(list(Outcome))),
        start,
        end,
    )


RULES = st.sampled_from(
    [
        AllocationRule(),
        AllocationRule(idle_payer=IdlePayer.PROPORTIONAL),
        AllocationRule(idle_payer=IdlePayer.OWNER, owner=TenantId("team")),
    ]
)


@given(st.lists(intervals(), max_size=8), st.lists(requests(), max_size=12), spans(), RULES)
def test_parts_add_up_to_the_capacity_cost(capacity, served, window, rule):
    start, end = window
    result = allocate(
        capacity, served, start_unix_microseconds=start, end_unix_microseconds=end, rule=rule
    )
    assert exact_sum(part.amount.amount for part in result.parts) == result.capacity_cost.amount
    assert result.capacity_cost == capacity_cost(capacity, start, end)
    assert all(part.amount.amount > 0 for part in result.parts)


@given(st.lists(intervals(), max_size=6), st.lists(MICROSECONDS, min_size=2, max_size=8))
def test_windows_add_up_to_the_whole(capacity, edges):
    edges = sorted(edges)
    parts = [capacity_cost(capacity, start, end).amount for start, end in itertools.pairwise(edges)]
    assert exact_sum(parts) == capacity_cost(capacity, edges[0], edges[-1]).amount


@given(st.lists(intervals(), max_size=6), st.lists(requests(), max_size=8), spans())
def test_order_of_the_records_does_not_matter(capacity, served, window):
    start, end = window

    def parts(some_capacity, some_served):
        return allocate(
            some_capacity, some_served, start_unix_microseconds=start, end_unix_microseconds=end
        ).parts

    assert parts(capacity, served) == parts(capacity[::-1], served[::-1])


@given(st.lists(intervals(), max_size=6), st.lists(requests(), max_size=8), spans())
def test_only_tenants_that_got_something_pay_for_serving(capacity, served, window):
    start, end = window
    result = allocate(capacity, served, start_unix_microseconds=start, end_unix_microseconds=end)
    paying = {part.tenant for part in result.parts if part.part is Part.SERVING}
    got_something = {request.tenant for request in served if request.outcome is not Outcome.FAILED}
    assert paying <= got_something


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**15), min_size=1))
def test_shares_add_up_and_none_is_off_by_a_whole_quantum(total, shares):
    shares[0] += 1
    parts = share_out(total, shares)
    assert sum(parts) == total
    for part, share in zip(parts, shares, strict=True):
        assert abs(Decimal(part) - Decimal(total) * share / sum(shares)) < Decimal("1.0001")
