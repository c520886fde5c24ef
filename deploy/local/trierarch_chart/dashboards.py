"""Grafana dashboards, written from the list of metrics so that no panel names another."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from trierarch.observability import names

GRAFANA_SCHEMA_VERSION = 39
"""Grafana 11 writes this version and every later one reads it."""

COLUMNS = 24
PANEL_WIDTH = 8
PANEL_HEIGHT = 8


@dataclasses.dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        title: Above it.
        unit: Grafana's word for the unit.
        queries: PromQL and legend of each line.
        description: What the reader should make of it.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """One dashboard.

    Attributes:
        name: File name without its ending; also in the stable identity.
        title: As Grafana lists it.
        panels: In rows of three.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


_MODEL = 'model=~"$model"'
_RATE = "$__rate_interval"


def _rate_by(metric: names.Metric, labels: str, selector: str = _MODEL) -> str:
    return f"sum by ({labels}) (rate({metric.name}{{{selector}}}[{_RATE}]))"


def _sum_by(metric: names.Metric, labels: str, selector: str = _MODEL) -> str:
    return f"sum by ({labels}) ({metric.name}{{{selector}}})"


def _quantile(metric: names.Metric, quantile: float) -> str:
    buckets = f"rate({metric.name}_bucket{{{_MODEL}}}[{_RATE}])"
    return f"histogram_quantile({quantile}, sum by (model, le) ({buckets}))"


def _quantiles(metric: names.Metric) -> tuple[tuple[str, str], ...]:
    return tuple(
        (_quantile(metric, quantile), f"{{{{model}}}} p{quantile * 100:g}")
        for quantile in (0.5, 0.95, 0.99)
    )


GATEWAY = Dashboard(
    "gateway",
    "Trierarch / Gateway",
    (
        Panel(
            "Requests",
            "reqps",
            ((_rate_by(names.GATEWAY_REQUESTS, "model, code"), "{{model}} {{code}}"),),
            "Answers per second by status; 499 is a client that left.",
        ),
        Panel(
            "Time to first token",
            "s",
            _quantiles(names.GATEWAY_TIME_TO_FIRST_TOKEN),
            "Streams only, the wait in the queue included.",
        ),
        Panel(
            "Time per output token",
            "s",
            _quantiles(names.GATEWAY_TIME_PER_OUTPUT_TOKEN),
            "Mean per stream, after its first token.",
        ),
        Panel(
            "Waiting requests",
            "short",
            ((_sum_by(names.GATEWAY_QUEUE_DEPTH, "model, tier"), "{{model}} {{tier}}"),),
            "What the autoscaler steers by: requests without a place at a replica.",
        ),
        Panel(
            "Queue wait",
            "s",
            _quantiles(names.GATEWAY_QUEUE_WAIT),
            "0 for a request that found a place at once.",
        ),
        Panel(
            "Lanes",
            "short",
            (
                (
                    f"min by (model) ({names.GATEWAY_FLEX_LANE_OPEN.name}{{{_MODEL}}})",
                    "flex open {{model}}",
                ),
                (_rate_by(names.GATEWAY_SHED_REQUESTS, "model, tier"), "shed {{model}} {{tier}}"),
                (_rate_by(names.GATEWAY_RELEGATED, "model, tier"), "relegated {{model}} {{tier}}"),
            ),
            "0: flex requests wait for idle capacity. Shed: refused per second to keep the cost."
            " Relegated: too late for the objective, so others go first.",
        ),
        Panel(
            "Ongoing requests",
            "short",
            ((_sum_by(names.GATEWAY_ONGOING_REQUESTS, "model"), "{{model}}"),),
            "At replicas and not finished.",
        ),
        Panel(
            "Tokens",
            "short",
            ((_rate_by(names.GATEWAY_TOKENS, "model, kind"), "{{model}} {{kind}}"),),
            "Metered tokens per second; input includes cached.",
        ),
        Panel(
            "Request duration",
            "s",
            _quantiles(names.GATEWAY_REQUEST_DURATION),
            "To the last byte of the answer.",
        ),
        Panel(
            "Trouble",
            "short",
            (
                (_rate_by(names.GATEWAY_RETRIES, "model, reason"), "retry {{model}} {{reason}}"),
                (
                    _rate_by(names.GATEWAY_CONTINUATIONS, "model, reason"),
                    "went on elsewhere {{model}} {{reason}}",
                ),
                (
                    _rate_by(names.GATEWAY_TELEMETRY_DROPPED, "reason", ""),
                    "dropped {{reason}}",
                ),
                (f"max({names.GATEWAY_REPLICA_LIST_AGE.name})", "age of the replica list (s)"),
            ),
            "Attempts repeated and streams continued on another replica, telemetry given up,"
            " a list that is not read.",
        ),
    ),
)

AUTOSCALER = Dashboard(
    "autoscaler",
    "Trierarch / Autoscaler",
    (
        Panel(
            "Replicas",
            "short",
            (
                (
                    _sum_by(names.AUTOSCALER_DESIRED_REPLICAS, "model, variant"),
                    "desired {{model}} {{variant}}",
                ),
                (
                    _sum_by(names.AUTOSCALER_READY_REPLICAS, "model, variant"),
                    "ready {{model}} {{variant}}",
                ),
            ),
            "A replica is one whole expert-parallel group.",
        ),
        Panel(
            "Waiting requests per ready replica",
            "short",
            (
                (
                    f"{_sum_by(names.GATEWAY_QUEUE_DEPTH, 'model')} / "
                    f"{_sum_by(names.AUTOSCALER_READY_REPLICAS, 'model')}",
                    "{{model}}",
                ),
            ),
            "Compare with the ModelDeployment's targetQueueDepth.",
        ),
        Panel(
            "Decisions",
            "short",
            ((_rate_by(names.AUTOSCALER_DECISIONS, "model, reason"), "{{model}} {{reason}}"),),
            "Per second, by the reason that bound them; holding is a decision.",
        ),
        Panel(
            "Age of the oldest signal",
            "s",
            (
                (
                    f"max by (model) ({names.AUTOSCALER_SIGNAL_AGE.name}{{{_MODEL}}})",
                    "{{model}}",
                ),
            ),
            "Old signals hold the count rather than move it.",
        ),
        Panel(
            "Decision time",
            "s",
            _quantiles(names.AUTOSCALER_DECISION_DURATION),
            "Arithmetic only; a second would be a defect.",
        ),
    ),
)

COST = Dashboard(
    "cost",
    "Trierarch / Cost",
    (
        Panel(
            "Dollars per million tokens",
            "currencyUSD",
            (
                (
                    f"max by (model, variant) ({names.COST_PER_MILLION_TOKENS.name}{{{_MODEL}}})",
                    "{{model}} {{variant}}",
                ),
                (
                    f"max by (model) ({names.COST_TARGET_PER_MILLION_TOKENS.name}{{{_MODEL}}})",
                    "target {{model}}",
                ),
            ),
            "What capacity cost over what was produced, in a rolling window, and its target.",
        ),
        Panel(
            "Spend per hour",
            "currencyUSD",
            (
                (
                    _sum_by(names.COST_HOURLY_SPEND, "model, variant, capacity_type"),
                    "{{model}} {{variant}} {{capacity_type}}",
                ),
            ),
            "What the replicas that exist cost now, used or not.",
        ),
        Panel(
            "Charged per hour",
            "currencyUSD",
            (
                (
                    f"3600 * ({_rate_by(names.GATEWAY_SPEND, 'model, tenant')})",
                    "{{model}} {{tenant}}",
                ),
            ),
            "Charges by the rate card. The ledger holds the exact amounts.",
        ),
        Panel(
            "Idle cost per hour",
            "currencyUSD",
            ((f"3600 * ({_rate_by(names.COST_IDLE, 'model, variant')})", "{{model}} {{variant}}"),),
            "Ready capacity that nobody used.",
        ),
        Panel(
            "Budget left",
            "currencyUSD",
            ((f"min by (tenant) ({names.COST_BUDGET_REMAINING.name})", "{{tenant}}"),),
            "In the current period.",
        ),
        Panel(
            "Budget burn rate",
            "short",
            ((f"max by (tenant) ({names.COST_BUDGET_BURN_RATE.name})", "{{tenant}}"),),
            "1 uses the budget up exactly at the end of its period.",
        ),
        Panel(
            "Ledger drift",
            "currencyUSD",
            ((f"max({names.COST_LEDGER_DRIFT.name})", "drift"),),
            "Anything but 0 is a defect.",
        ),
    ),
)

DASHBOARDS = (GATEWAY, AUTOSCALER, COST)


def write_dashboard(dashboard: Dashboard) -> str:
    """Return the text of a dashboard's file."""
    document = {
        "uid": f"trierarch-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["trierarch"],
        "schemaVersion": GRAFANA_SCHEMA_VERSION,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_data_source(), _model_variable()]},
        "panels": [_build_panel(panel, index) for index, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(document, indent=1) + "\n"


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def _model_variable() -> dict[str, Any]:
    return {
        "name": "model",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": f"label_values({names.GATEWAY_REQUESTS.name}, model)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _build_panel(panel: Panel, index: int) -> dict[str, Any]:
    per_row = COLUMNS // PANEL_WIDTH
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {
            "h": PANEL_HEIGHT,
            "w": PANEL_WIDTH,
            "x": index % per_row * PANEL_WIDTH,
            "y": index // per_row * PANEL_HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.queries)
        ],
    }
