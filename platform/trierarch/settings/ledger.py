"""Where the ledger is and how long to wait for it; read once from ``TRIERARCH_LEDGER_*``."""

from __future__ import annotations

from typing import Self

from pydantic import NonNegativeFloat
from pydantic_settings import BaseSettings, SettingsConfigDict

from trierarch.settings.environment import read_settings

ENVIRONMENT_PREFIX = "TRIERARCH_LEDGER_"


class LedgerSettings(BaseSettings):
    """Settings of ``python -m trierarch.adapters.ledger``."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    url: str
    """SQLAlchemy address of the database; the same variable names it to every command."""
    wait_seconds: NonNegativeFloat = 60.0
    """How long a database may take to answer, which starts at the same time perhaps."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings once.

        Raises:
            InvalidInput: If a value is missing or wrong, or a name with our prefix is unknown.
        """
        return read_settings(cls, "ledger")
