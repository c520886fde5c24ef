"""The alerts fire where they should, by Prometheus's own evaluation."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml
from tests.chart.chart import CHART

ROOT = Path(__file__).resolve().parents[2]
RULES = CHART / "files" / "rules" / "trierarch.yaml"
TESTS = Path(__file__).with_name("rules_test.yaml")


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    rules = {
        rule["alert"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
    }
    fires = {
        case["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fires == rules


def test_every_alert_leads_to_its_page() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            page = rule["annotations"]["runbook_url"]
            assert page == f"docs/runbook/{rule['alert']}.md"
            assert (ROOT / page).is_file()


def test_alerts_fire_and_stay_silent_as_written(promtool_program: Path, tmp_path: Path) -> None:
    for file in (RULES, TESTS):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        [str(promtool_program), "test", "rules", TESTS.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
