"""The one locust user of each worker: it lets all others arrive.

Locust's own users are a closed loop: each waits for its answer before it asks
again, so a slow server gets less load. Here locust starts a single user for
each worker, which sends that worker's share of the plan.
"""

import gevent
from locust import User
from locust.exception import StopUser


class OpenLoopUser(User):  # type: ignore[misc]  # locust has no types that mypy follows here
    """Carries out the worker's share of the plan and stops."""

    def send_share(self) -> None:
        """Run until the share is sent and answered."""
        # Locust may start users before it has told anybody that it has started itself.
        while (worker := getattr(self.environment, "trierarch_worker", None)) is None:
            gevent.sleep(0.05)
        worker.send_share()
        raise StopUser

    tasks = [send_share]  # noqa: RUF012  # the attribute that locust reads
