"""A worker's side of a run: send a share of the plan, count, report to the coordinator.

Counts travel as differences: each report carries what was counted since the
last one, with locust's own reports every few seconds and once more at the end.
"""

import logging
from typing import Any

from trierarch_loadtests.clock import monotonic_seconds, unix_seconds
from trierarch_loadtests.exchange import parse_endpoint
from trierarch_loadtests.open_loop import OpenLoop
from trierarch_loadtests.plan import Plan, PlannedRequest
from trierarch_loadtests.reporting.events import fire_rows
from trierarch_loadtests.reporting.tally import Measurement, Tally

logger = logging.getLogger(__name__)

BEGIN = "trierarch_begin"
"""Message to a worker: the plan, its share and when second zero is."""
FINISHED = "trierarch_finished"
"""Message from a worker: its share is sent and answered."""
REPORT_KEY = "trierarch_tally"
"""Member of locust's regular report that carries the tally."""


class Worker:
    """Counts one process's requests; the only process of a local run has one too."""

    def __init__(self, environment: Any, runner: Any) -> None:
        self._environment = environment
        self._runner = runner
        self._job: dict[str, Any] | None = None
        self._tally = Tally()
        self._plan: Plan | None = None
        environment.events.cpu_warning.add_listener(self._on_cpu_warning)
        runner.register_message(BEGIN, self.on_begin)

    def on_begin(self, environment: Any, msg: Any, **_: Any) -> None:
        """Take the job that the coordinator sent; the user that locust starts next does it."""
        self._job = msg.data
        self._tally = Tally()

    def send_share(self) -> None:
        """Carry the job out; called by the worker's one user."""
        job, self._job = self._job, None
        if job is None:
            logger.error("this worker has no share of the plan to send, or has sent it already")
            return
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
