"""A worker's side of a run: ask for a share of the plan, send it, count, report.

The worker asks, because locust calls it ready before its own code is loaded: a
share that came with the start of the run could come too early to be heard.
Counts travel as differences: each report carries what was counted since the
last one, with locust's own reports every few seconds and once more at the end.
"""

import logging
from typing import Any

from gevent.event import AsyncResult

from trierarch_loadtests.clock import monotonic_seconds, unix_seconds
from trierarch_loadtests.exchange import parse_endpoint
from trierarch_loadtests.open_loop import OpenLoop
from trierarch_loadtests.plan import Plan, PlannedRequest
from trierarch_loadtests.reporting.events import fire_rows
from trierarch_loadtests.reporting.tally import Measurement, Tally

logger = logging.getLogger(__name__)

ASK = "trierarch_ask"
"""Message from a worker whose user has started: what is my share?"""
BEGIN = "trierarch_begin"
"""Answer to it: the plan, the worker's share and when second zero is; ``None`` for no share."""
FINISHED = "trierarch_finished"
"""Message from a worker: its share is sent and answered."""
REPORT_KEY = "trierarch_tally"
"""Member of locust's regular report that carries the tally."""


class Worker:
    """Counts one process's requests; the only process of a local run has one too."""

    def __init__(self, environment: Any, runner: Any) -> None:
        self._environment = environment
        self._runner = runner
        self._answer = AsyncResult()
        self._tally = Tally()
        self._plan: Plan | None = None
        environment.events.cpu_warning.add_listener(self._on_cpu_warning)
        runner.register_message(BEGIN, self.on_begin)

    def on_begin(self, environment: Any, msg: Any, **_: Any) -> None:
        """Take what the coordinator answered."""
        self._answer.set(msg.data)

    def send_share(self) -> None:
        """Ask for the share and carry it out; called by the worker's one user."""
        self._answer = AsyncResult()
        self._runner.send_message(ASK)
        job: dict[str, Any] | None = self._answer.get()
        if job is None:
            logger.warning("this worker came after the run began, or has sent its share already")
            return
        self._tally = Tally()
        plan = Plan.from_message(job["plan"])
        self._plan = plan
        OpenLoop(
            plan,
            parse_endpoint(job["base_url"], job["api_key"]),
            job["model"],
            self,
            worker=job["worker"],
            workers=job["workers"],
            begin_seconds=monotonic_seconds() + job["begin_unix_seconds"] - unix_seconds(),
        ).run()
        message = {"worker": job["worker"], REPORT_KEY: self.take().to_message()}
        self._runner.send_message(FINISHED, message)

    def take(self) -> Tally:
        """Return what was counted since the last call."""
        taken, self._tally = self._tally, Tally()
        return taken

    def on_report_to_master(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        """Put the latest counts into locust's regular report."""
        data[REPORT_KEY] = self.take().to_message()

    def planned(self, planned: PlannedRequest) -> None:
        """Count a planned start that has come."""
        self._tally.plan(planned)

    def dropped(self, planned: PlannedRequest) -> None:
        """Count a request that was not sent."""
        self._tally.drop(planned)

    def ended(self, planned: PlannedRequest, done: Measurement, size_bytes: int) -> None:
        """Count a request that was sent and has ended."""
        if self._plan is not None:
            self._tally.record(planned, done, self._plan.scenario.slo)
            fire_rows(self._environment.events, planned, done, size_bytes)

    def _on_cpu_warning(self, **_: Any) -> None:
        self._tally.cpu_saturated = True
