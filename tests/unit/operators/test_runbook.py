"""Every reason that a condition can give has a page."""

from __future__ import annotations

import re
from pathlib import Path

from trierarch.autoscaling.decision import Reason
from trierarch_operators.model_deployment.failures import REASONS
from trierarch_operators.runbook import PAGES

ROOT = Path(__file__).resolve().parents[3]
SOURCES = (
    "operators/trierarch_operators/model_deployment/status.py",
    "operators/trierarch_operators/model_deployment/reconcile.py",
    "operators/trierarch_operators/group_plan.py",
    "platform/trierarch/autoscaling/outlook.py",
)

NOT_REASONS = {
    "Available", "Progressing", "MetricsFresh", "ScalingLimited", "SLOMet", "CostTargetMet",
    "True", "False", "Unknown",
}  # fmt: skip
"""Other quoted words of the same calls."""

LIMITS = {
    Reason.MIN_REPLICAS, Reason.MAX_REPLICAS, Reason.INVENTORY, Reason.BUDGET,
    Reason.APPROVAL_REQUIRED, Reason.COST_TARGET, Reason.METRICS_MISSING, Reason.METRICS_STALE,
    Reason.PRICES_MISSING,
}  # fmt: skip
"""Reasons of decisions that become reasons of conditions."""

CALL = re.compile(r"(?:[Ff]inding|CannotRun|[Cc]ondition)\((.*?)\)", re.DOTALL)
WORD = re.compile(r"\"([A-Z][A-Za-z]+)\"")


def test_every_reason_in_the_source_has_a_page() -> None:
    found = {
        word
        for source in SOURCES
        for call in CALL.findall((ROOT / source).read_text())
        for word in WORD.findall(call)
    }
    assert len(found) > 20
    assert found - NOT_REASONS - PAGES.keys() == set()


def test_every_failure_of_a_group_has_a_page() -> None:
    assert set(REASONS) <= PAGES.keys()


def test_every_limit_of_the_pipeline_has_a_page() -> None:
    assert {reason.value for reason in LIMITS} <= PAGES.keys()


def test_pages_say_what_to_do_in_whole_sentences() -> None:
    for reason, page in PAGES.items():
        assert page.conditions, reason
        assert page.meaning.endswith("."), reason
        assert page.act.endswith("."), reason
