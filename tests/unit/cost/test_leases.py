"""What the ledger grants: the rule that keeps several processes inside a budget."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from trierarch.core.identifiers import HolderId, ModelName, TenantId
from trierarch.cost.budgets import Action, Budget, Period, TenantTerms, day_of
from trierarch.cost.leases import Lease, LeaseAnswer, LeaseAsk, answer_ask, is_short

NOON = 86_400.0 * 20_000 + 43_200.0
MIDNIGHT = NOON + 43_200.0
TODAY = day_of(NOON)
TENANT, ME, YOU = TenantId("acme"), HolderId("me"), HolderId("you")
DAILY = Budget(Period.DAY, Decimal("1.00"))
MONTHLY = Budget(Period.MONTH, Decimal("1.00"))
CHEAP = ModelName("cheap")


def held(usd: str, *, by: HolderId = YOU, spare: str = "0", **fields: Any) -> Lease:
    settled = Decimal(fields.pop("settled", "0"))
    expires = fields.pop("expires", NOON + 30.0)
    return Lease(by, Decimal(usd), settled, Decimal(spare), expires)


def answer(
    *leases: Lease,
    budgets: tuple[Budget, ...] = (DAILY,),
    spent: str = "0",
    at: float = NOON,
    **ask: str,
) -> tuple[Lease, LeaseAnswer]:
    amounts = {f"{name}_usd": Decimal(usd) for name, usd in ask.items()}
    amounts.setdefault("granted_usd", Decimal(0))
    return answer_ask(
        LeaseAsk(TENANT, ME, **amounts),
        TenantTerms(TENANT, budgets=budgets),
        {TODAY: Decimal(spent)},
        leases,
        now_unix_seconds=at,
        lease_seconds=30.0,
    )


def test_a_process_alone_can_have_all_of_a_budget_if_it_needs_it() -> None:
    lease, told = answer(spent="0.60", least="0.40", most="0.40")
    assert told.granted_usd == lease.granted_usd == Decimal("0.40")
    assert (told.room_usd, told.most_usd) == (Decimal(0), Decimal("0.40"))


@pytest.mark.parametrize(
    ("least", "fits"), [("0.20", True), ("0.200000000001", False)], ids=["all", "a-hair-more"]
)
def test_what_is_spent_what_others_hold_and_what_i_hold_all_counts(least: str, fits: bool) -> None:
    mine = held("0.30", by=ME, settled="0.10")
    _, told = answer(held("0.20"), mine, spent="0.40", granted="0.30", least=least, most=least)
    assert told.granted_usd == (Decimal(least) if fits else 0)
    assert is_short(LeaseAsk(TENANT, ME, Decimal(0), least_usd=Decimal(least)), told) is not fits


def test_beyond_the_need_a_part_of_an_equal_share_is_granted() -> None:
    _, alone = answer(least="0.20", most="5")
    assert alone.granted_usd == Decimal("0.20") + Decimal("0.80") / 4
    _, with_another = answer(held("0.10"), least="0.20", most="5")
    assert with_another.granted_usd == Decimal("0.20") + Decimal("0.70") / 8
    assert with_another.holders == 2


def test_all_budgets_hold_and_the_tightest_decides() -> None:
    _, told = answer(budgets=(DAILY, Budget(Period.MONTH, Decimal("0.30"))), least="0.31", most="1")
    assert told.granted_usd == 0


def test_what_is_given_back_is_there_for_others() -> None:
    lease, _ = answer(held("0.90", by=ME), granted="0.10", spare="0")
    assert lease.outstanding_usd == Decimal("0.10")
    _, told = answer(held("0.10"), least="0.90", most="0.90")
    assert told.granted_usd == Decimal("0.90")


def test_an_answer_that_was_lost_is_put_right_by_the_next_ask() -> None:
    # The ledger granted 0.50 and I never heard of it: I still say that I have 0.20.
    lease, _ = answer(held("0.70", by=ME), granted="0.20")
    assert lease.granted_usd == Decimal("0.20")


def test_a_lapsed_lease_counts_until_the_period_in_which_it_lapsed_is_over() -> None:
    dead = held("0.70", expires=MIDNIGHT - 60.0)
    _, told = answer(dead, at=MIDNIGHT - 1.0, least="0.31", most="0.31")
    assert told.granted_usd == 0
    assert told.holders == 1
    _, told = answer(dead, at=MIDNIGHT, least="0.31", most="0.31")
    assert told.granted_usd == Decimal("0.31")
    _, told = answer(dead, at=MIDNIGHT, budgets=(MONTHLY,), least="0.31", most="0.31")
    assert told.granted_usd == 0


def test_nothing_more_is_granted_on_a_lapsed_lease_and_it_does_not_live_again() -> None:
    mine = held("0.20", by=ME, expires=NOON - 1.0)
    lease, told = answer(mine, granted="0.20", least="0.10", most="0.10")
    assert told.has_lapsed
    assert told.granted_usd == 0
    assert lease.expires_unix_seconds == NOON - 1.0


def test_the_dearer_model_stops_before_its_budget_and_the_cheaper_goes_on() -> None:
    budgets = (Budget(Period.DAY, Decimal("0.50"), Action.DOWNGRADE, CHEAP), DAILY)
    _, told = answer(held("0.10"), budgets=budgets, spent="0.30", least="0.40", most="0.40")
    assert told.granted_usd == Decimal("0.40")
    assert told.full_price_usd == ((CHEAP, Decimal("0.10")),)


def test_without_a_budget_that_blocks_everything_is_granted() -> None:
    _, told = answer(budgets=(), least="5", most="7")
    assert (told.granted_usd, told.room_usd, told.most_usd) == (Decimal(7), None, None)
