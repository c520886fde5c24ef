"""Values, schema, README and dashboards of the chart say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import trierarch
from trierarch.observability.names import METRICS
from trierarch.settings.gateway import GatewaySettings
from trierarch.settings.operator import OperatorSettings
from trierarch_chart.dashboards import DASHBOARDS
from trierarch_chart.files import CHART, build_files
from trierarch_chart.readme import build_readme
from trierarch_chart.schema import build_schema, build_settings_schema, camel_case
from trierarch_chart.values import ValuesError, read_values

ROOT = Path(__file__).resolve().parents[3]
FILES = build_files(ROOT)

SERIES = {
    name
    for metric in METRICS
    for name in (
        (metric.name, f"{metric.name}_bucket", f"{metric.name}_sum", f"{metric.name}_count")
        if metric.kind == "histogram"
        else (metric.name,)
    )
}

DOCUMENTED = """\
group:
  # -- How many.
  # @schema {"minimum": 1}
  count: 2
# -- What it is | called.
name: ""
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_generated_files_follow_from_their_source(path: Path) -> None:
    """If this fails: make generate."""
    assert path.read_text(encoding="utf-8") == FILES[path]


def test_chart_and_program_have_one_version() -> None:
    chart = yaml.safe_load((ROOT / CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (trierarch.__version__,) * 2


def test_sentences_and_limits_reach_the_schema() -> None:
    schema = build_schema(read_values(DOCUMENTED), {})
    assert schema["additionalProperties"] is False
    group = schema["properties"]["group"]
    assert group["additionalProperties"] is False
    assert group["properties"]["count"] == {
        "description": "How many.",
        "type": "integer",
        "minimum": 1,
    }
    assert schema["properties"]["name"]["type"] == "string"


def test_readme_names_every_value_once() -> None:
    readme = build_readme("# T\n{{ values }}\n", read_values(DOCUMENTED))
    assert "| `group.count` | `2` | How many. |" in readme
    assert '| `name` | `""` | What it is \\| called. |' in readme


def test_a_template_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="needs one"):
        build_readme("# T\n", read_values(DOCUMENTED))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\n", "a has no sentence"),
        ("a:\n  b: {}\n", r"a\.b has no sentence"),
        ("# -- An object.\na: {}\n", "a needs '# @schema"),
        ("# -- Something.\n# @schema {oops\na: 1\n", "a: # @schema .* is no JSON"),
        ("# -- Of nothing.\n\n# -- A number.\na: 1\n", "2 sentences for 1 values"),
        ("- a\n", "no mapping"),
    ],
    ids=["no-sentence", "no-sentence-below", "no-type", "no-json", "lost-sentence", "a-list"],
)
def test_an_undocumented_value_is_an_error_that_names_it(text: str, says: str) -> None:
    with pytest.raises(ValuesError, match=says):
        read_values(text)


def test_settings_become_values_without_what_the_chart_sets() -> None:
    schema = build_settings_schema(GatewaySettings.model_json_schema(), {"port"})
    assert "port" not in schema["properties"]
    timeout = schema["properties"]["queueTimeoutSeconds"]
    assert (timeout["type"], timeout["exclusiveMinimum"]) == ("number", 0)
    assert "default" not in timeout
    replica = schema["properties"]["staticReplicas"]["items"]
    assert replica["required"] == ["model", "port"], "definitions are put in their place"
    assert "$ref" not in json.dumps(schema)


@pytest.mark.parametrize("settings", [GatewaySettings, OperatorSettings])
def test_camel_case_is_undone_by_the_charts_snake_case(
    settings: type[GatewaySettings] | type[OperatorSettings],
) -> None:
    """Sprig's snakecase puts an underscore before each capital letter."""
    for name in settings.model_fields:
        snake = re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", camel_case(name))
        assert snake == name


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\btrierarch_[a-z_]+", expression))


def test_dashboards_name_metrics_that_exist_and_all_of_the_gateways_and_the_autoscalers() -> None:
    used = {
        name
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for expression, _ in panel.queries
        for name in metrics_in(expression)
    }
    assert used <= SERIES
    shown = {name.removesuffix("_bucket") for name in used}
    assert {metric.name for metric in METRICS} - shown == set()


def rules() -> list[dict[str, object]]:
    document = yaml.safe_load((ROOT / CHART / "files/rules/trierarch.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alerts_name_metrics_and_labels_that_exist(rule: dict[str, object]) -> None:
    used = metrics_in(str(rule["expr"]))
    assert used
    assert used <= SERIES
    labels = {label for metric in METRICS if metric.name in used for label in metric.labels}
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    assert set(annotations) == {"summary", "description", "runbook_url"}
    text = " ".join([*annotations.values(), str(rule["expr"])])
    named = set(re.findall(r"\$labels\.([a-z_]+)", text))
    for group in re.findall(r"\b(?:by|on) \(([a-z_, ]+)\)", text):
        named |= {label.strip() for label in group.split(",")}
    assert named <= labels


def test_alerts_have_names_of_their_own() -> None:
    names = [str(rule["alert"]) for rule in rules()]
    assert len(names) == len(set(names))
    assert all(name.startswith("Trierarch") for name in names)
