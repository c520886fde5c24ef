"""The Ray Serve application of one model; ``import_path`` of a Serve configuration.

``trierarch.serving.application:build_application`` with ``args`` as in
``ApplicationArguments``: the same words in a Serve file, in embedded mode and
from the operator.
"""

from __future__ import annotations

from typing import Any

from pydantic import NonNegativeInt, PositiveFloat
from ray import serve
from ray.serve import Application

from trierarch.serving.layout import build_engine_environment, plan_group
from trierarch.serving.names import DEPLOYMENT_NAME
from trierarch.serving.replica import Replica, ReplicaArguments


class ApplicationArguments(ReplicaArguments):
    """What a model's application is made from."""

    replicas: NonNegativeInt = 1
    """How many to begin with; afterwards the autoscaler sets the number."""
    drain_seconds: PositiveFloat = 3600.0
    """The longest that an answer may hold up the end of its replica."""
    health_check_period_seconds: PositiveFloat = 2.0
    """How soon a dead engine is noticed."""


def build_application(arguments: ApplicationArguments) -> Application:
    """Return the application of one model."""
    # Ray Serve hands over a dict where annotations are strings.
    arguments = ApplicationArguments.model_validate(arguments)
    spec = arguments.engine
    layout = plan_group(spec)
    actor_options: dict[str, Any] = {
        "num_cpus": layout.bundles[0]["CPU"],
        "num_gpus": layout.bundles[0].get("GPU", 0),
        "runtime_env": {"env_vars": build_engine_environment(spec)},
    }
    placement: dict[str, Any] = {}
    if layout.is_group:
        placement = {
            "placement_group_bundles": [dict(bundle) for bundle in layout.bundles],
            "placement_group_strategy": layout.strategy,
        }
    deployment = serve.deployment(serve.ingress()(Replica)).options(
        name=DEPLOYMENT_NAME,
        num_replicas=arguments.replicas,
        ray_actor_options=actor_options,
        # Admission is the gateway's: a limit here would only hide the queue from it.
        max_ongoing_requests=1_000_000,
        graceful_shutdown_wait_loop_s=0.05,
        graceful_shutdown_timeout_s=arguments.drain_seconds,
        health_check_period_s=arguments.health_check_period_seconds,
        health_check_timeout_s=30.0,
        **placement,
    )
    replica_fields = set(ReplicaArguments.model_fields)
    application: Application = deployment.bind(
        arguments.model_dump(mode="json", include=replica_fields)
    )
    return application
