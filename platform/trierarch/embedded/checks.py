"""What can be known to fail before anything is started, each as one line."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from trierarch.core.errors import InvalidInput

LOCALHOST = "127.0.0.1"

RAY_DISK_BYTES = 500_000_000
"""Logs, sockets and spilled objects of a session."""

PLATFORM_MEMORY_BYTES = 1_500_000_000
"""Ray's own processes, controller and gateway."""

VLLM_REPLICA_BYTES = 2_500_000_000
"""Interpreter, libraries, KV cache and buffers of one engine, without weights."""

SIMULATED_REPLICA_BYTES = 300_000_000
"""A replica that holds no weights."""

_GIB = 1 << 30


def check_port(port: int, option: str, host: str = LOCALHOST) -> None:
    """Check that a port can be listened on.

    Raises:
        InvalidInput: If it cannot.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InvalidInput(
                    f"port {port} is in use by another program; choose another with {option} PORT"
                ) from None
            raise InvalidInput(f"cannot listen on port {port}: {error.strerror}") from error


def find_free_ports(count: int, taken: frozenset[int], host: str = LOCALHOST) -> list[int]:
    """Return different ports that nobody listens on now."""
    sockets: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            listener = socket.create_server((host, 0))
            sockets.append(listener)
            port = int(listener.getsockname()[1])
            if port not in taken:
                ports.append(port)
    finally:
        for listener in sockets:
            listener.close()
    return ports


def need_memory_bytes(model_bytes: int, replicas: int, *, is_simulated: bool) -> int:
    """Return the memory a run takes, generously."""
    if is_simulated:
        return PLATFORM_MEMORY_BYTES + replicas * SIMULATED_REPLICA_BYTES
    return PLATFORM_MEMORY_BYTES + replicas * (model_bytes * 3 // 2 + VLLM_REPLICA_BYTES)


def parse_available_memory_bytes(meminfo: str) -> int | None:
    """Return ``MemAvailable`` of ``/proc/meminfo``; None if it is not there."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def check_memory(need_bytes: int, available_bytes: int | None, replicas: int) -> None:
    """Check that the replicas fit; an unknown amount passes.

    Raises:
        InvalidInput: If they do not.
    """
    if available_bytes is not None and available_bytes < need_bytes:
        raise InvalidInput(
            f"{replicas} replica(s) of this model need about {need_bytes / _GIB:.1f} GiB of memory"
            f" and {available_bytes / _GIB:.1f} GiB are available;"
            " lower --max-replicas or choose a smaller --model"
        )


def check_disk(needs: Mapping[Path, int]) -> None:
    """Check that folders have room.

    Args:
        needs: Bytes by existing folder.

    Raises:
        InvalidInput: If one has not.
    """
    for folder, need_bytes in needs.items():
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < need_bytes:
            raise InvalidInput(
                f"{folder} has {free_bytes / 1e6:,.0f} MB of free disk space and"
                f" {need_bytes / 1e6:,.0f} MB are needed; free some or choose another --data-dir"
            )


def computes_bfloat16(cpuinfo: str) -> bool:
    """Return whether a processor has instructions for bfloat16, from ``/proc/cpuinfo``."""
    flags = set(cpuinfo.split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
