"""``Tenant``: who may use which models, how much, and for how much."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from trierarch.api.v1alpha1.fields import (
    SET_LIST,
    ApiModel,
    Decimal,
    PositiveDecimal,
    ServedName,
    map_list,
    rule,
    rules,
)
from trierarch.api.v1alpha1.model_deployment import Condition


class BudgetPeriod(StrEnum):
    """When spending starts from zero again."""

    DAY = "Day"
    MONTH = "Month"


class BudgetAction(StrEnum):
    """What happens when a budget is used up."""

    BLOCK = "Block"
    THROTTLE = "Throttle"
    DOWNGRADE = "Downgrade"


class TenantBudget(ApiModel):
    """One spending limit."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(self.action == 'Downgrade') == has(self.downgradeTo)",
                "downgradeTo: name the cheaper model for action Downgrade, and only for it",
                ".downgradeTo",
            )
        )
    )

    period: BudgetPeriod
    """Day or Month, in UTC."""
    amount: PositiveDecimal
    """Dollars per period ("100.00")."""
    action: BudgetAction = BudgetAction.BLOCK
    """What happens when it is used up: Block refuses requests; Throttle spreads the last
    fifth of the amount over the rest of the period, so that it is never quite used up;
    Downgrade answers with a cheaper model."""
    downgrade_to: ServedName | None = None
    """The cheaper model, for Downgrade."""


class TenantLimits(ApiModel):
    """How much at once."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Left out, not limited."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Input plus output tokens; left out, not limited."""
    parallel_requests: int | None = Field(default=None, ge=1)
    """Requests at the same time; left out, not limited."""


class TenantSpec(ApiModel):
    """What the tenant may do."""

    allowed_models: list[ServedName] = Field(
        default_factory=list, max_length=256, json_schema_extra=SET_LIST
    )
    """Served model names; an empty list allows all."""
    priority: int = Field(default=0, ge=-1_000, le=1_000)
    """Whose requests go first when requests wait: higher first."""
    limits: TenantLimits = TenantLimits()
    """How much at once."""
    budgets: list[TenantBudget] = Field(
        default_factory=list, max_length=8, json_schema_extra=map_list("period", "action")
    )
    """Spending limits; all of them hold."""


class BudgetStatus(ApiModel):
    """One budget in its present period."""

    period: BudgetPeriod
    """Day or Month, in UTC."""
    action: BudgetAction
    """What happens when it is used up."""
    spent: Decimal
    """Dollars charged to the tenant's keys in the period, to a hundredth of a cent."""
    remaining: Decimal
    """Dollars that are left."""
    ends_at: str = Field(json_schema_extra={"format": "date-time"})
    """When spending starts from zero again."""


class TenantStatus(ApiModel):
    """What has become of it."""

    observed_generation: int | None = Field(default=None, ge=0)
    """Of the spec that is in force."""
    spent: Decimal | None = None
    """Dollars of the budget that has the least left."""
    remaining: Decimal | None = None
    """Dollars that are left of that budget."""
    budgets: list[BudgetStatus] | None = Field(
        default=None, max_length=8, json_schema_extra=map_list("period", "action")
    )
    """Each budget."""
    conditions: list[Condition] | None = Field(
        default=None, max_length=8, json_schema_extra=map_list("type")
    )
    """Ready, WithinBudget."""


class Tenant(ApiModel):
    """Who pays: allowed models, priority, limits and budgets of one group of API keys.

    The keys are those that are made with "trierarch keys create --tenant NAME".
    """

    spec: TenantSpec
    """What the tenant may do."""
    status: TenantStatus = TenantStatus()
    """What has become of it; written by the operator."""
