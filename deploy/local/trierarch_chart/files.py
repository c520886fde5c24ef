"""Which files are generated, from what."""

from __future__ import annotations

from pathlib import Path

from trierarch.settings.gateway import GatewaySettings
from trierarch.settings.operator import OperatorSettings
from trierarch_chart.dashboards import DASHBOARDS, write_dashboard
from trierarch_chart.readme import build_readme
from trierarch_chart.schema import build_schema, build_settings_schema, write_schema
from trierarch_chart.values import read_values

CHART = Path("deploy/helm/trierarch")

GATEWAY_SETTINGS_OF_THE_CHART = {
    "host",
    "port",
    "admin_port",
    "ledger_url",
    "spool_dir",
    "ready_without_replicas",
    "otlp_endpoint",
}
"""The chart sets these itself, from values of its own."""

OPERATOR_SETTINGS_OF_THE_CHART = {
    "namespace",
    "namespaces",
    "identity",
    "host",
    "port",
    "announce_url",
    "gateway_admin_url",
    "ledger_url",
    "engine_image",
    "engine_service_account",
    "pod_template_file",
    "otlp_endpoint",
}
"""The same for the operator."""


def build_files(root: Path) -> dict[Path, str]:
    """Return every generated file's text by its path.

    Args:
        root: The checkout.

    Raises:
        ValuesError: If the values are not documented.
    """
    chart = root / CHART
    values = read_values((chart / "values.yaml").read_text(encoding="utf-8"))
    settings = {
        "gateway": build_settings_schema(
            GatewaySettings.model_json_schema(), GATEWAY_SETTINGS_OF_THE_CHART
        ),
        "operator": build_settings_schema(
            OperatorSettings.model_json_schema(), OPERATOR_SETTINGS_OF_THE_CHART
        ),
    }
    template = (chart / "README.template.md").read_text(encoding="utf-8")
    dashboards = {
        chart / "files" / "dashboards" / f"{dashboard.name}.json": write_dashboard(dashboard)
        for dashboard in DASHBOARDS
    }
    return {
        chart / "values.schema.json": write_schema(build_schema(values, settings)),
        chart / "README.md": build_readme(template, values),
        **dashboards,
    }
