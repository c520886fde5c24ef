"""The controller's Prometheus metrics and its traces of decisions."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterable

from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trierarch import __version__
from trierarch.adapters.ledger.reports import CurrentSpend
from trierarch.autoscaling.decision import ScalingDecision, Stage
from trierarch.core.quantities import Money
from trierarch.cost.budgets import SECONDS_PER_DAY, day_of, end_of, first_day, spent_in
from trierarch.cost.unit_cost import UnitCost, UnitCostMissing
from trierarch.observability import names
from trierarch.observability.tracing import SpanNote, Tracer, start_otlp_writer
from trierarch.ports import TenantBook

_logger = logging.getLogger(__name__)

_LEAST_ELAPSED_SECONDS = 3600.0
"""The first requests of a period say nothing about how fast its budget is spent."""

_STAGES = {
    "analyze": (Stage.ANALYZE, Stage.RECOMMEND),
    "optimize": (Stage.PLACE,),
    "constrain": (Stage.STABILIZE, Stage.CONSTRAIN),
}
"""Spans of a decision, and the steps of the pipeline that each covers."""


class ControllerMetrics:
    """What the controller exposes.

    Attributes:
        registry: For ``/metrics``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._desired = self._gauge(names.AUTOSCALER_DESIRED_REPLICAS)
        self._ready = self._gauge(names.AUTOSCALER_READY_REPLICAS)
        self._signal_age = self._gauge(names.AUTOSCALER_SIGNAL_AGE)
        self._unit_cost = self._gauge(names.COST_PER_MILLION_TOKENS)
        self._hourly_spend = self._gauge(names.COST_HOURLY_SPEND)
        self._drift = self._gauge(names.COST_LEDGER_DRIFT)
        self._budget_remaining = self._gauge(names.COST_BUDGET_REMAINING)
        self._budget_burn_rate = self._gauge(names.COST_BUDGET_BURN_RATE)
        decisions, duration = names.AUTOSCALER_DECISIONS, names.AUTOSCALER_DECISION_DURATION
        self._decisions = Counter(
            decisions.name.removesuffix("_total"),
            decisions.meaning,
            decisions.labels,
            registry=self.registry,
        )
        self._duration = Histogram(
            duration.name,
            duration.meaning,
            duration.labels,
            buckets=duration.buckets,
            registry=self.registry,
        )

    def _gauge(self, metric: names.Metric) -> Gauge:
        return Gauge(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def note_decision(
        self, decision: ScalingDecision, duration_seconds: float, signal_age_seconds: float | None
    ) -> None:
        """Count a decision."""
        model = decision.model
        self._decisions.labels(model, decision.binding.value).inc()
        self._duration.labels(model).observe(duration_seconds)
        for variant, count in decision.replicas.items():
            self._desired.labels(model, variant).set(count)
        for observed in decision.inputs.observation.variants:
            self._ready.labels(model, observed.name).set(observed.ready)
        age_seconds = float("nan") if signal_age_seconds is None else signal_age_seconds
        self._signal_age.labels(model).set(age_seconds)

    def set_unit_cost(self, model: str, variant: str, cost: UnitCost | UnitCostMissing) -> None:
        """Set the unit cost; NaN where there is none."""
        found = float(cost.usd_per_million_tokens) if isinstance(cost, UnitCost) else float("nan")
        self._unit_cost.labels(model, variant).set(found)

    def set_spend(self, spends: Iterable[CurrentSpend]) -> None:
        """Set what exists costs per hour."""
        self._hourly_spend.clear()
        for spend in spends:
            labels = (spend.model, spend.variant, spend.capacity_type.value)
            self._hourly_spend.labels(*labels).set(float(spend.usd_per_hour))

    def set_drift(self, drift: Money) -> None:
        """Set what capacity cost less what was allocated."""
        self._drift.set(float(drift.amount))

    def set_budgets(self, book: TenantBook, now_unix_seconds: float) -> None:
        """Set what tenants have left, and how fast they spend it; of the tightest budget."""
        self._budget_remaining.clear()
        self._budget_burn_rate.clear()
        day = day_of(now_unix_seconds)
        for tenant, terms in book.terms.items():
            found = []
            for budget in terms.budgets:
                spent = spent_in(budget.period, book.spent_by_day.get(tenant, {}), day)
                begun = first_day(budget.period, day) * SECONDS_PER_DAY
                elapsed = max(_LEAST_ELAPSED_SECONDS, now_unix_seconds - begun)
                share = elapsed / (end_of(budget.period, day) - begun)
                burn_rate = float(spent / budget.amount_usd) / share
                found.append((float(budget.amount_usd - spent), burn_rate))
            if found:
                remaining, burn_rate = min(found)
                self._budget_remaining.labels(tenant).set(remaining)
                self._budget_burn_rate.labels(tenant).set(burn_rate)


def build_tracer(otlp_endpoint: str, stack: contextlib.AsyncExitStack) -> Tracer:
    """Return the tracer of decisions; its writer ends with the stack.

    Args:
        otlp_endpoint: Base address of a collector; empty exports nothing.
        stack: Of the process.
    """
    export = None
    if otlp_endpoint:
        writer = start_otlp_writer(
            otlp_endpoint,
            service_name="trierarch-controller",
            service_version=__version__,
            on_drop=functools.partial(_logger.warning, "gave up %d traces"),
        )
        stack.callback(writer.close)
        export = writer.put
    return Tracer(sample_ratio=1.0, random_bytes=os.urandom, export=export)


def trace_decision(
    tracer: Tracer,
    decision: ScalingDecision,
    began_unix_seconds: float,
    observed_unix_seconds: float,
    decided_unix_seconds: float,
    ended_unix_seconds: float,
) -> None:
    """Export a decision as a trace, with its id on every span.

    The stages are one pass of arithmetic; their spans share its times.

    Args:
        tracer: Exports it, if an exporter is configured.
        decision: The decision.
        began_unix_seconds: When signals began to be collected.
        observed_unix_seconds: When they were there.
        decided_unix_seconds: When it was decided.
        ended_unix_seconds: When Ray Serve had taken it.
    """
    if not tracer.is_exporting:
        return
    trace = tracer.start(None, None)
    common = {
        "trierarch.decision.id": str(decision.id),
        "trierarch.deployment": decision.deployment,
        "trierarch.decision.reason": decision.reason.value,
        "trierarch.decision.binding": decision.binding.value,
    }

    def note(name: str, start: float, end: float, **attributes: str) -> None:
        trace.spans.append(
            SpanNote(
                name=name,
                kind=SpanKind.INTERNAL,
                span_id=trace.new_span_id(),
                parent_span_id=trace.server_span_id,
                start_unix_seconds=start,
                end_unix_seconds=end,
                attributes={**common, **attributes},
            )
        )

    note("observe", began_unix_seconds, observed_unix_seconds)
    for name, stages in _STAGES.items():
        messages = [step.message for step in decision.steps if step.stage in stages]
        steps = "; ".join(messages)
        note(name, observed_unix_seconds, decided_unix_seconds, **{"trierarch.steps": steps})
    note("actuate", decided_unix_seconds, ended_unix_seconds)
    trace.spans.append(
        SpanNote(
            name="decide",
            kind=SpanKind.INTERNAL,
            span_id=trace.server_span_id,
            parent_span_id="",
            start_unix_seconds=began_unix_seconds,
            end_unix_seconds=ended_unix_seconds,
            attributes={**common, "trierarch.decision.message": decision.message},
        )
    )
    tracer.finish(trace)
