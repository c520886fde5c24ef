"""The further data-parallel ranks of a replica, one Ray actor each in the replica's own group.

A group is whole or it is nothing: experts are spread over all ranks, so a rank
that ends takes the group with it, and Ray Serve makes a new one. The actors are
owned by the replica's process; Ray ends them when it ends.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
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

_QUIET_PORTS = range(20000, 30000)
"""Above those of Ray and its workers (up to 19999), below those that the kernel gives to outgoing
connections (from 32768 on Linux)."""

_GROUP_PORTS = 5
"""What vLLM sets aside for the process groups of one configuration."""

_PORT_TRIES = 100

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
    """Return this node's address and ports that are free now and still will be in a minute.

    Ranks open them only when they have read their configuration. A port that the kernel gives to
    outgoing connections may be taken by then, and the ranks would wait for each other for half an
    hour. So they come from below those.
    """
    address = str(get_node_ip_address())
    for _ in range(_PORT_TRIES):
        # Chosen at random, so that two groups that start on one node do not meet.
        first = random.SystemRandom().choice(_QUIET_PORTS[:-_GROUP_PORTS])
        if all(_is_free(address, port) for port in range(first, first + 1 + _GROUP_PORTS)):
            return Rendezvous(address, first, first + 1)
    raise RuntimeError(
        f"no {1 + _GROUP_PORTS} free ports in a row between {_QUIET_PORTS[0]} and "
        f"{_QUIET_PORTS[-1]} on {address}"
    )


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


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
        watched = {
            rank: RankWatch(functools.partial(_ask, actor)) for rank, actor in self._ranks.items()
        }
        while not self._stop.wait(_LOOK_INTERVAL_SECONDS):
            for rank, watch in watched.items():
                problem = watch.look()
                if problem and not self._stop.is_set():
                    self._on_failure(f"rank {rank} of the expert-parallel group {problem}")
                    return
                if not watch.has_answered:
                    _logger.info("rank %d of the expert-parallel group has not started yet", rank)


@dataclasses.dataclass
class RankWatch:
    """Tells a rank that is lost from one that only takes long to start.

    Attributes:
        ask: Returns the rank's exit code, None while it runs; raises ``RayError``.
        has_answered: Whether it ever did.
    """

    ask: Callable[[], int | None]
    has_answered: bool = False

    def look(self) -> str:
        """Return what is wrong with the rank; empty for nothing."""
        try:
            code = self.ask()
        except GetTimeoutError as error:
            # Until the first answer its actor waits for a place, or its process for a core.
            return _describe(error) if self.has_answered else ""
        except RayError as error:
            return _describe(error)
        self.has_answered = True
        return "" if code is None else f"ended with exit code {code}"


def _ask(actor: Any) -> int | None:
    code: int | None = ray.get(actor.exit_code.remote(), timeout=_LOOK_TIMEOUT_SECONDS)
    return code


def _describe(error: RayError) -> str:
    return f"cannot be asked: {str(error).splitlines()[0]}"
