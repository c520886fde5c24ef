"""What an engine's processes read from their environment, set by the replica that owns them."""

from __future__ import annotations

import os

FATE_SHARING_VARIABLE = "TRIERARCH_ENGINE_FATE_SHARING"
"""Set to 1 by a replica: its engine's processes end when it ends."""


def is_fate_sharing_requested() -> bool:
    """Return whether this process shall end when its parent does."""
    return os.environ.get(FATE_SHARING_VARIABLE) == "1"


def inherited_environment() -> dict[str, str]:
    """Return the environment of this process, for the processes of a rank."""
    return dict(os.environ)
