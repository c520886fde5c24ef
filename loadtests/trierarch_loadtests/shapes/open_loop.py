"""What locust calls a shape: how many users, and when the run is over.

The load itself is in the plan; locust only needs one user for each worker until
every share has been sent and answered.
"""

from locust import LoadTestShape


class OpenLoopShape(LoadTestShape):  # type: ignore[misc]  # locust has no types that mypy follows here
    """Keeps one open-loop user per worker until the run is over."""

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users and how fast to start them, or ``None`` at the end."""
        if self.runner.environment.trierarch_coordinator.over:
            return None
        workers = max(1, self.runner.worker_count)
        return workers, float(workers)
