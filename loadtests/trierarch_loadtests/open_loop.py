"""The open loop: every planned request starts at its planned time, answered or not.

One greenlet walks the plan and spawns one greenlet for each request. It never
waits for an answer. If the cap on ongoing requests is reached, the request is
dropped and counted, because sending it later would be another load than the
planned one. Latencies count from the planned start, so time lost here or in the
server's accept queue is never hidden.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import gevent
import gevent.pool

from trierarch_loadtests.clock import monotonic_seconds
from trierarch_loadtests.exchange import Endpoint, Exchange, exchange
from trierarch_loadtests.openai_stream import Answer, Outcome, read_answer
from trierarch_loadtests.plan import Plan, PlannedRequest
from trierarch_loadtests.reporting.tally import Measurement
from trierarch_loadtests.users.kinds import KINDS
from trierarch_loadtests.users.request import PreparedRequest

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Where the open loop reports to."""

    def planned(self, planned: PlannedRequest) -> None:
        """Count a planned start that has come."""
        ...

    def dropped(self, planned: PlannedRequest) -> None:
        """Count a request that was not sent."""
        ...

    def ended(self, planned: PlannedRequest, done: Measurement, size_bytes: int) -> None:
        """Count a request that was sent and has ended."""
        ...


class OpenLoop:
    """One worker's share of a plan."""

    def __init__(
        self,
        plan: Plan,
        endpoint: Endpoint,
        model: str,
        recorder: Recorder,
        *,
        worker: int,
        workers: int,
        begin_seconds: float,
        now: Callable[[], float] = monotonic_seconds,
    ) -> None:
        self._plan = plan
        self._endpoint = endpoint
        self._model = model
        self._recorder = recorder
        self._worker = worker
        self._workers = workers
        self._begin_seconds = begin_seconds
        self._now = now
        cap = plan.scenario.maximum_ongoing_requests
        self._cap = max(1, cap // workers + (worker < cap % workers))
        self._ongoing = gevent.pool.Group()

    def run(self) -> None:
        """Send the share, wait for the answers, cancel what is left after the drain time.

        Killing the greenlet that runs this cancels and counts the ongoing requests.
        """
        seed = self._plan.scenario.seed
        warned = False
        try:
            for planned in self._plan.share(self._worker, self._workers):
                prepared = KINDS[planned.entry.kind](planned, model=self._model, seed=seed)
                due_seconds = self._begin_seconds + planned.seconds
                gevent.sleep(max(0.0, due_seconds - self._now()))
                self._recorder.planned(planned)
                if len(self._ongoing) < self._cap:
                    self._ongoing.spawn(self._perform, planned, prepared, due_seconds)
                    continue
                self._recorder.dropped(planned)
                if not warned:
                    logger.warning("%d requests ongoing: dropping planned ones", self._cap)
                    warned = True
            self._ongoing.join(timeout=self._plan.scenario.timeouts.drain_seconds)
        finally:
            self._ongoing.kill()

    def _perform(
        self, planned: PlannedRequest, prepared: PreparedRequest, due_seconds: float
    ) -> None:
        timeouts = self._plan.scenario.timeouts
        started_seconds = self._now()
        try:
            done = exchange(
                self._endpoint,
                "POST",
                self._endpoint.target(prepared.path),
                prepared.payload,
                connect_seconds=timeouts.connect_seconds,
                silence_seconds=timeouts.silence_seconds,
                now=self._now,
            )
            answer = read_answer(done, stream=prepared.stream)
        except gevent.GreenletExit:
            done = Exchange(started_seconds=started_seconds, ended_seconds=self._now())
            answer = Answer(Outcome.CANCELLED, "cancelled by the load generator", (), None, None)
        self._recorder.ended(
            planned,
            Measurement(
                planned_seconds=due_seconds,
                started_seconds=done.started_seconds,
                connected_seconds=done.connected_seconds,
                ended_seconds=done.ended_seconds,
                answer=answer,
                request_id=done.headers.get("x-request-id"),
                variant=done.headers.get("x-trierarch-model-variant"),
            ),
            len(done.body),
        )
