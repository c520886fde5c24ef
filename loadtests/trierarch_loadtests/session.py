"""Wires worker and coordinator to locust's events.

In a headless run the verdict becomes locust's exit code: 0 passed, 1 a threshold
was missed, 2 the run could not be made. With the web page each run prints its
verdict and writes its files when it stops.
"""

import signal
import sys
from typing import Any

import gevent
from locust import runners
from locust.runners import STATE_STOPPED, STATE_STOPPING, MasterRunner, WorkerRunner

from trierarch_loadtests.coordinator import EXIT_UNUSABLE, Coordinator
from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.options import add_arguments
from trierarch_loadtests.worker import Worker

SILENT_HEARTBEATS = 30
"""Heartbeats, one a second, that a worker may miss before it counts as lost. Locust allows three;
a generator on a busy machine is silent for longer, and without its workers a run ends at once."""


def install(events: Any) -> None:
    """Register the load tests with locust; called once by the locustfile."""
    runners.HEARTBEAT_LIVENESS = SILENT_HEARTBEATS
    events.init_command_line_parser.add_listener(add_arguments)
    events.init.add_listener(_on_init)


REPORT_SECONDS = 3.0
"""Between two takings of a local run's counts; locust's own workers report as often."""


def _hand_over(worker: Worker, coordinator: Coordinator) -> None:
    while True:
        gevent.sleep(REPORT_SECONDS)
        if coordinator.is_running:
            coordinator.add(worker.take())


def _on_init(environment: Any, runner: Any, web_ui: Any = None, **_: Any) -> None:
    worker = None if isinstance(runner, MasterRunner) else Worker(environment, runner)
    environment.trierarch_worker = worker
    if worker is not None and isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(worker.on_report_to_master)
        return
    coordinator = environment.trierarch_coordinator = Coordinator(environment, runner)
    try:
        coordinator.prepare()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_UNUSABLE)
    environment.events.test_start.add_listener(coordinator.on_test_start)
    environment.events.worker_report.add_listener(coordinator.on_worker_report)

    if worker is not None:
        # A local run has no regular reports; what it has counted must not pile up either.
        gevent.spawn(_hand_over, worker, coordinator)

    def finish(**_: Any) -> None:
        if runner.state not in (STATE_STOPPED, STATE_STOPPING):
            runner.quit()  # ended from outside: first let the users count what they cancel
        if worker is not None:
            coordinator.add(worker.take())
        environment.process_exit_code, text = coordinator.finish()
        if web_ui is None:  # the verdict comes after locust's own tables
            environment.events.quit.add_listener(lambda **_: print(text, flush=True))
        else:
            print(text, flush=True)

    if web_ui is None:
        environment.events.quitting.add_listener(finish)
        # Locust handles SIGTERM only after a headless run, so a timeout would leave no results.
        gevent.signal_handler(signal.SIGTERM, runner.quit)
    else:
        environment.events.test_stop.add_listener(finish)
