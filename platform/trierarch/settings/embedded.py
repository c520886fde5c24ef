"""How the supervisor of embedded mode behaves: times and limits.

Read once from ``TRIERARCH_EMBEDDED_*``. What runs is decided by the options of
``trierarch up``, not here.
"""

from __future__ import annotations

import os

from pydantic import PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class EmbeddedSettings(BaseSettings):
    """Settings of ``trierarch up``."""

    model_config = SettingsConfigDict(
        env_prefix="TRIERARCH_EMBEDDED_",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
    )

    start_timeout_seconds: PositiveFloat = 900.0
    """How long the platform may take from the first process to the first answer."""
    crash_limit: PositiveInt = 5
    """Crashes of one process within the window that end the run."""
    crash_window_seconds: PositiveFloat = 60.0
    """The window."""
    restart_delay_seconds: PositiveFloat = 0.5
    """Before the first restart; doubles with each crash in the window."""
    poll_interval_seconds: PositiveFloat = 0.2
    """How often processes are looked at."""


def inherited_environment() -> dict[str, str]:
    """Return the environment of this process, for its children."""
    return dict(os.environ)
