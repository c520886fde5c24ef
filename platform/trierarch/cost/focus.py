"""FOCUS export: reports in the FinOps Open Cost and Usage Specification, version 1.2.

Seen by the tenant: the billed cost is what the rate card charged. What serving cost the
platform stands beside it in columns of our own, which the specification wants to begin
with ``x_``. A row is one tenant, model and variant in one billing period, a calendar
month in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from trierarch.core.clock import utc_datetime
from trierarch.core.quantities import Money
from trierarch.cost.allocation import Part
from trierarch.cost.report import Report, ReportRow

PLATFORM_ACCOUNT = "platform"
"""Sub-account of cost that no tenant pays."""

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_Requests",
    "x_InputTokens",
    "x_CachedInputTokens",
    "x_OutputTokens",
    "x_ActualCost",
    "x_ServingCost",
    "x_IdleCost",
    "x_WarmUpCost",
    "x_DrainCost",
    "x_FailedCost",
    "x_Variance",
)
"""All mandatory columns of version 1.2, those of the optional ones that we know, ours."""


def _instant(unix_seconds: float) -> str:
    return f"{utc_datetime(unix_seconds):%Y-%m-%dT%H:%M:%SZ}"


def _month_start(unix_seconds: float) -> datetime:
    day = utc_datetime(unix_seconds)
    return datetime(day.year, day.month, 1, tzinfo=UTC)


def _next_month(start: datetime) -> datetime:
    return datetime(start.year + start.month // 12, start.month % 12 + 1, 1, tzinfo=UTC)


def billing_periods(
    since_unix_seconds: float, until_unix_seconds: float
) -> Iterator[tuple[float, float]]:
    """Cut a span of time at the first of each month."""
    start = since_unix_seconds
    while start < until_unix_seconds:
        end = min(_next_month(_month_start(start)).timestamp(), until_unix_seconds)
        yield start, end
        start = end


def focus_row(report: Report, row: ReportRow) -> dict[str, str]:
    """Return a row of a report by charge, as text by column.

    Args:
        report: On a span within one billing period.
        row: One of its rows.
    """
    tenant, model = row.subject.tenant or PLATFORM_ACCOUNT, row.subject.model or ""
    resource = f"{model}/{row.subject.variant}" if row.subject.variant else model
    period = _month_start(report.since_unix_seconds)
    charged, tokens = str(row.charged), row.tokens
    what = f"{row.requests} requests, {tokens.total_tokens} tokens of {model}"
    if not row.requests:
        what = f"Capacity of {resource}"

    def part(name: Part) -> Money:
        return row.part(name)

    return {
        "BilledCost": charged,
        "BillingAccountId": "trierarch",
        "BillingAccountName": "Trierarch",
        "BillingCurrency": row.charged.currency,
        "BillingPeriodEnd": _instant(_next_month(period).timestamp()),
        "BillingPeriodStart": _instant(period.timestamp()),
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": what,
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _instant(report.until_unix_seconds),
        "ChargePeriodStart": _instant(report.since_unix_seconds),
        "ConsumedQuantity": str(tokens.total_tokens),
        "ConsumedUnit": "Tokens",
        "ContractedCost": charged,
        "EffectiveCost": charged,
        "InvoiceIssuerName": "Trierarch",
        "ListCost": charged,
        "PricingCategory": "Standard",
        "PricingQuantity": str(tokens.total_tokens),
        "PricingUnit": "Tokens",
        "ProviderName": "Trierarch",
        "PublisherName": "Trierarch",
        "ResourceId": resource,
        "ResourceName": resource,
        "ResourceType": "Model variant",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Trierarch inference",
        "SkuId": model,
        "SubAccountId": tenant,
        "SubAccountName": tenant,
        "Tags": json.dumps({"model": model, "variant": row.subject.variant or ""}),
        "x_Requests": str(row.requests),
        "x_InputTokens": str(tokens.input_tokens),
        "x_CachedInputTokens": str(tokens.cached_tokens),
        "x_OutputTokens": str(tokens.output_tokens),
        "x_ActualCost": str(row.actual),
        "x_ServingCost": str(part(Part.SERVING)),
        "x_IdleCost": str(part(Part.IDLE)),
        "x_WarmUpCost": str(part(Part.WARM_UP)),
        "x_DrainCost": str(part(Part.DRAIN)),
        "x_FailedCost": str(part(Part.FAILED)),
        "x_Variance": str(row.variance),
    }
