"""The master's side of a run: check, plan, start, add up, judge.

A local run takes the same path as a distributed one: locust delivers a lone
process's messages to itself.
"""

import dataclasses
import logging
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent

from trierarch_loadtests.clock import monotonic_seconds, unix_seconds
from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.options import RunOptions, hide_api_key, read_options
from trierarch_loadtests.plan import Plan, make_plan
from trierarch_loadtests.preflight import (
    EndpointClient,
    discover_model,
    probe_embeddings,
    read_engine_version,
)
from trierarch_loadtests.reporting.facts import describe_engine, read_commit, read_environment
from trierarch_loadtests.reporting.ledger import (
    LedgerResult,
    Reading,
    TokenCounts,
    read_account,
    settle,
)
from trierarch_loadtests.reporting.markdown import render_markdown, render_verdict
from trierarch_loadtests.reporting.recording import FILE_NAME, Recording
from trierarch_loadtests.reporting.slo import judge
from trierarch_loadtests.reporting.summary import RunFacts, build_summary, write_results
from trierarch_loadtests.reporting.tally import Tally
from trierarch_loadtests.shapes.stages import total_seconds
from trierarch_loadtests.shapes.trace_replay import TraceReplayShape, read_trace
from trierarch_loadtests.worker import ASK, BEGIN, FINISHED, REPORT_KEY

logger = logging.getLogger(__name__)

LOCAL = "local"
"""What locust calls the sender of a lone process's messages."""
LOCAL_START_DELAY_SECONDS = 0.5
WORKERS_START_DELAY_SECONDS = 3.0
"""From the start of the run to second zero: by then every worker has asked for its share."""
WORKER_GRACE_SECONDS = 30.0
"""How long after the drain time a worker that says nothing is waited for."""
EXIT_PASSED, EXIT_MISSED, EXIT_UNUSABLE = 0, 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Preparation:
    """What is known before the first request."""

    options: RunOptions
    plan: Plan
    requests: int
    """How many requests the plan has."""
    model: str
    engine: str | None
    notes: tuple[str, ...]


@dataclasses.dataclass(slots=True)
class Progress:
    """What is known while a run goes on."""

    run_id: str
    begin_unix_seconds: float
    deadline_seconds: float
    before: Reading
    workers: dict[str, int]
    """Number of each worker's share, by locust's id of the worker."""
    recording: Recording
    unwritten: OSError | None = None
    """Why the recording is not complete."""
    begun: set[int] = dataclasses.field(default_factory=set)
    finished: set[int] = dataclasses.field(default_factory=set)
    tally: Tally = dataclasses.field(default_factory=Tally)

    def take(self, tally: Tally) -> None:
        """Add what was counted since the last report."""
        self.tally.merge(tally)
        try:
            self.recording.add(tally.requests)
        except OSError as error:
            self.unwritten = self.unwritten or error


class Coordinator:
    """Runs a scenario once, or as often as the web page asks."""

    def __init__(self, environment: Any, runner: Any) -> None:
        self._environment = environment
        self._runner = runner
        self._preparation: Preparation | None = None
        self._progress: Progress | None = None
        self._failed: str | None = None
        runner.register_message(ASK, self.on_ask)
        runner.register_message(FINISHED, self.on_finished)

    @property
    def is_running(self) -> bool:
        """Whether a run has begun and its results are not written yet."""
        return self._progress is not None

    @property
    def over(self) -> bool:
        """Whether every worker has finished, is gone, or has had all the time it may have."""
        if self._failed is not None:
            return True
        progress = self._progress
        if progress is None:
            return False
        if monotonic_seconds() >= progress.deadline_seconds:
            return True
        clients = getattr(self._runner, "clients", None)
        gone = {client.id for client in clients.missing} if clients is not None else set()
        left = {number for client_id, number in progress.workers.items() if client_id not in gone}
        return left <= progress.finished

    def prepare(self) -> None:
        """Check the options and the endpoint and make the plan.

        Raises:
            UsageError: If any of them cannot be used.
        """
        options = read_options(self._environment.parsed_options)
        scenario = options.scenario
        client = EndpointClient(options.endpoint, monotonic_seconds)
        model, note = discover_model(client, options.served_model)
        notes = [note] if note else []
        kinds = {entry.kind for entry in scenario.mix}
        if "embedding" in kinds and (reason := probe_embeddings(client, model)):
            kinds.discard("embedding")
            notes.append(f"no embeddings sent, their share went to the others ({reason})")
        if not kinds:
            raise UsageError(f"scenario {scenario.name} has only embeddings: {notes[-1]}")
        trace = None
        if isinstance(scenario.shape, TraceReplayShape):
            trace = read_trace(Path(scenario.shape.path))
        plan = make_plan(
            scenario,
            kinds=frozenset(kinds),
            trace=trace,
            duration_factor=options.duration_factor,
        )
        self._preparation = Preparation(
            options=options,
            plan=plan,
            requests=sum(1 for _ in plan.requests()),
            model=model,
            engine=read_engine_version(client),
            notes=tuple(notes),
        )
        print(
            f"scenario {scenario.name}, seed {scenario.seed}, "
            f"{plan.arrivals_summary['law']} arrivals: {self._preparation.requests} requests in "
            f"{total_seconds(plan.stages):g} s to {model} at {options.endpoint.base_url}",
            flush=True,
        )
        for line in notes:
            print(f"note: {line}", flush=True)

    def on_test_start(self, **_: Any) -> None:
        """Read the ledger and deal the plan out to the workers."""
        try:
            if self._environment.web_ui is not None:
                self.prepare()  # the form may have changed the options
            self._begin()
        except UsageError as error:
            self._failed = str(error)
            logger.error("%s", error)

    def on_ask(self, environment: Any, msg: Any, **_: Any) -> None:
        """Give a worker its share, once; say nothing if the run did not begin."""
        preparation, progress = self._preparation, self._progress
        if preparation is None or progress is None:
            return  # the run is over before it began: locust stops the worker's user
        job = None
        number = progress.workers.get(msg.node_id)
        if number is not None and number not in progress.begun:
            progress.begun.add(number)
            job = {
                "plan": preparation.plan.to_message(),
                "base_url": preparation.options.endpoint.base_url,
                "api_key": preparation.options.endpoint.api_key,
                "model": preparation.model,
                "worker": number,
                "workers": len(progress.workers),
                "begin_unix_seconds": progress.begin_unix_seconds,
            }
        self._runner.send_message(BEGIN, job, msg.node_id)

    def on_finished(self, environment: Any, msg: Any, **_: Any) -> None:
        """Take a worker's last counts."""
        if self._progress is not None:
            self._progress.take(Tally.from_message(msg.data[REPORT_KEY]))
            self._progress.finished.add(msg.data["worker"])

    def on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        """Take the counts of a regular report."""
        if self._progress is not None and REPORT_KEY in data:
            self._progress.take(Tally.from_message(data[REPORT_KEY]))

    def add(self, tally: Tally) -> None:
        """Take counts that no message carried: those of a local run on its way."""
        if self._progress is not None:
            self._progress.take(tally)

    def finish(self) -> tuple[int, str]:
        """Compare with the ledger, judge, write the files; return the exit code and what to say."""
        preparation, progress, failed = self._preparation, self._progress, self._failed
        self._progress = self._failed = None
        if failed is not None or preparation is None or progress is None:
            return EXIT_UNUSABLE, f"error: {failed or 'the run never started'}"
        unfinished = self._unfinished(preparation, progress)
        ledger = self._check_ledger(preparation, progress)
        scenario = preparation.plan.scenario
        verdict = judge(scenario, progress.tally, ledger, unfinished=unfinished)
        facts = self._facts(preparation, progress, unfinished)
        summary = build_summary(facts, preparation.plan, progress.tally, ledger, verdict)
        verdict_text = render_verdict(summary)
        directory = progress.recording.path.parent
        try:
            write_results(directory, summary, render_markdown(summary), preparation.plan)
            progress.recording.close()
            if progress.unwritten is not None:
                raise progress.unwritten
        except OSError as error:
            text = f"{verdict_text}\nerror: cannot write results to {directory}: {error.strerror}"
            return EXIT_UNUSABLE, text
        text = f"results: {directory}/summary.md, summary.json and {FILE_NAME}\n{verdict_text}"
        return EXIT_PASSED if verdict.passed else EXIT_MISSED, text

    def _begin(self) -> None:
        preparation = self._preparation
        if preparation is None:
            raise UsageError("the run was not prepared")
        options, plan = preparation.options, preparation.plan
        before = self._read_account(preparation)
        workers = self._workers()
        delay_seconds = WORKERS_START_DELAY_SECONDS if workers else LOCAL_START_DELAY_SECONDS
        begin_unix_seconds = unix_seconds() + delay_seconds
        workers = workers or {LOCAL: 0}
        drain_seconds = plan.scenario.timeouts.drain_seconds
        run_id = uuid.uuid4().hex
        stamp = datetime.fromtimestamp(begin_unix_seconds, tz=UTC)
        name = f"{stamp:%Y%m%dT%H%M%SZ}-{plan.scenario.name}-{run_id[:8]}"
        directory = Path(options.results) / name
        try:
            recording = Recording(directory)
        except OSError as error:
            raise UsageError(
                f"cannot write results to {directory}: {error.strerror or error}"
            ) from error
        self._progress = Progress(
            run_id=run_id,
            begin_unix_seconds=begin_unix_seconds,
            deadline_seconds=monotonic_seconds()
            + delay_seconds
            + total_seconds(plan.stages)
            + drain_seconds
            + WORKER_GRACE_SECONDS,
            before=before,
            workers=workers,
            recording=recording,
        )

    def _workers(self) -> dict[str, int]:
        """Return the number of each connected worker's share; none for a local run."""
        clients = getattr(self._runner, "clients", None)
        if clients is None:
            return {}
        active = clients.ready + clients.spawning + clients.running
        return {client_id: number for number, client_id in enumerate(sorted(c.id for c in active))}

    def _read_account(self, preparation: Preparation) -> Reading:
        client = EndpointClient(preparation.options.endpoint, monotonic_seconds)
        return read_account(client.get("/usage"))

    def _check_ledger(self, preparation: Preparation, progress: Progress) -> LedgerResult:
        counts = progress.tally.everything().counts
        return settle(
            lambda: self._read_account(preparation),
            progress.before,
            TokenCounts(counts["input_tokens"], counts["cached_tokens"], counts["output_tokens"]),
            usage_unknown_requests=counts["usage_unknown"],
            limit_seconds=preparation.plan.scenario.ledger.settle_seconds,
            now=monotonic_seconds,
            sleep=gevent.sleep,
        )

    def _unfinished(self, preparation: Preparation, progress: Progress) -> str | None:
        """Return why not every planned request was sent or dropped, and answered."""
        row = progress.tally.everything()
        planned, reached = preparation.requests, row.counts["planned"]
        if reached != planned:
            left = len(progress.workers) - len(progress.finished)
            return (
                f"{reached} of {planned} planned requests were reported, "
                f"{left} of {len(progress.workers)} workers did not finish"
            )
        ongoing = row.counts["cancelled"] + reached - row.sent - row.counts["dropped"]
        return f"{ongoing} requests were still ongoing when the run ended" if ongoing else None

    def _facts(
        self, preparation: Preparation, progress: Progress, unfinished: str | None
    ) -> RunFacts:
        started = datetime.fromtimestamp(progress.begin_unix_seconds, tz=UTC)
        return RunFacts(
            run_id=progress.run_id,
            started_at=started.isoformat(timespec="seconds"),
            workers=len(progress.workers),
            duration_factor=preparation.options.duration_factor,
            requests=preparation.requests,
            base_url=preparation.options.endpoint.base_url,
            model=preparation.model,
            engine=describe_engine(preparation.engine, progress.tally.fingerprints),
            environment=read_environment(),
            commit=read_commit(Path(__file__).parent),
            command=hide_api_key(sys.argv),
            notes=preparation.notes,
            cpu_saturated=progress.tally.cpu_saturated,
            unfinished=unfinished,
        )
