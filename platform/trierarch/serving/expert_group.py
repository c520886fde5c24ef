"""The further data-parallel ranks of a replica, one Ray actor each in the replica's own group.

A group is whole or it is nothing: experts are spread over all ranks, so a rank
that ends takes the group with it, and Ray Serve makes a new one. The actors are
owned by the replica's process; Ray ends them when it ends.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from trierarch.serving.layout import (
    Rendezvous,
    build_engine_environment,
    build_vllm_arguments,
    plan_group,
)
from trierarch.serving.specification import EngineSpec
from trierarch.settings.engine import inherited_environment

_logger = logging.getLogger(__name__)

_LOOK_INTERVAL_SECONDS = 1.0
_LOOK_TIMEOUT_SECONDS = 30.0
"""A machine whose cores all load weights answers late; that is no death."""


class RankProcess:
    """Runs one headless rank as a child process; a Ray actor."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own module, no shell
            [sys.executable, "-m", "trierarch.serving.headless", *arguments],
            env={**inherited_environment(), **environment},
        )

    def exit_code(self) -> int | None:
        """Return the rank's exit code; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End the rank."""
        self._process.terminate()


def choose_rendezvous() -> Rendezvous:
    """Return this node's address and a port that is free now."""
    address = str(get_node_ip_address())
    with socket.socket() as probe:
        probe.bind((address, 0))
        return Rendezvous(address, int(probe.getsockname()[1]))


class ExpertGroup:
    """The ranks 1 and above of the replica that runs in this process.

    Args:
        spec: The engine.
        rendezvous: Where the ranks meet.
        on_failure: Called once, from another thread, with a sentence when a rank has ended.
    """

    def __init__(
        self, spec: EngineSpec, rendezvous: Rendezvous, on_failure: Callable[[str], None]
    ) -> None:
        self._on_failure = on_failure
        self._stop = threading.Event()
        environment = build_engine_environment(spec)
        layout = plan_group(spec)
        group = get_current_placement_group()
        self._ranks: dict[int, Any] = {}
        for rank in range(1, spec.parallelism.data):
            bundle = layout.bundles[rank]
            actor = ray.remote(RankProcess).options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=rank
                ),
            )
            arguments = build_vllm_arguments(spec, rendezvous, rank)
            self._ranks[rank] = actor.remote(arguments, environment)
        self._thread = threading.Thread(target=self._watch, name="expert-group", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all ranks."""
        self._stop.set()
        for actor in self._ranks.values():
            actor.stop.remote()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_INTERVAL_SECONDS):
            for rank, actor in self._ranks.items():
                problem = self._look(actor)
                if problem and not self._stop.is_set():
                    self._on_failure(f"rank {rank} of the expert-parallel group {problem}")
                    return

    def _look(self, actor: Any) -> str:
        try:
            code = ray.get(actor.exit_code.remote(), timeout=_LOOK_TIMEOUT_SECONDS)
        except RayError as error:
            return f"cannot be asked: {str(error).splitlines()[0]}"
        return "" if code is None else f"ended with exit code {code}"
