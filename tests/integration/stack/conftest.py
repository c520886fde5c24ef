"""One whole stack with the real engine, started once as a user starts it.

It ends with this package's tests: idle, it would take a sixth of a core from all later ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from trierarch.testing.running_stack import RunningStack, run_stack
from trierarch.testing.trace_collector import TraceCollector


@pytest.fixture(scope="package")
def collector() -> Iterator[TraceCollector]:
    with TraceCollector() as listening:
        yield listening


@pytest.fixture(scope="package")
def stack(
    tmp_path_factory: pytest.TempPathFactory, collector: TraceCollector
) -> Iterator[RunningStack]:
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        # Where other tests have most of two cores, a new replica takes longer than clients wait.
        "TRIERARCH_GATEWAY_QUEUE_TIMEOUT_SECONDS": "300",
    }
    with run_stack(tmp_path_factory.mktemp("stack"), environment) as running:
        yield running
