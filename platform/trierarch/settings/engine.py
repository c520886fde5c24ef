"""What an engine's processes read from their environment, set by the replica that owns them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

FATE_SHARING_VARIABLE = "TRIERARCH_ENGINE_FATE_SHARING"
"""Set to 1 by a replica: its engine's processes end when it ends."""

FIRST_PORT_VARIABLE = "VLLM_PORT"
"""Where vLLM looks upwards for free ports."""


def is_fate_sharing_requested() -> bool:
    """Return whether this process shall end when its parent does."""
    return os.environ.get(FATE_SHARING_VARIABLE) == "1"


def inherited_environment() -> dict[str, str]:
    """Return the environment of this process, for the processes of a rank."""
    return dict(os.environ)


@contextlib.contextmanager
def first_port(port: int) -> Iterator[None]:
    """Let vLLM look for free ports from here on; 0 changes nothing.

    Only while it settles its configuration, which takes several ports at once: later it asks for
    one at a time, and would be given the first again and again until somebody listens there.
    """
    before = os.environ.get(FIRST_PORT_VARIABLE)
    if port:
        os.environ[FIRST_PORT_VARIABLE] = str(port)
    try:
        yield
    finally:
        if port and before is None:
            del os.environ[FIRST_PORT_VARIABLE]
        elif port and before is not None:
            os.environ[FIRST_PORT_VARIABLE] = before
