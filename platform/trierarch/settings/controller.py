"""How the controller of embedded mode behaves; read once from ``TRIERARCH_CONTROLLER_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, PositiveFloat
from pydantic_settings import BaseSettings, SettingsConfigDict

from trierarch.settings.environment import read_settings

ENVIRONMENT_PREFIX = "TRIERARCH_CONTROLLER_"


class ControllerSettings(BaseSettings):
    """Settings of ``python -m trierarch.controller``."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
    )

    data_dir: Path
    """Folder of the run's state."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Where it listens, on the loopback interface."""
    ray_dashboard_url: str
    """Base address of Ray's dashboard, which takes Serve's REST calls."""
    gateway_admin_url: str
    """Base address of the gateway's admin port."""
    deployment_file: Path
    """What to run; see ``trierarch.controller.deployment``."""
    token_file: Path
    """Holds the token that replicas announce themselves with."""
    ledger_url: str
    """Address of the ledger."""
    look_interval_seconds: PositiveFloat = 0.5
    """Between two looks at Ray Serve."""
    decision_interval_seconds: PositiveFloat = 3.0
    """Between two scaling decisions."""
    capacity_interval_seconds: PositiveFloat = 2.0
    """Between two entries of what exists into the ledger."""
    allocation_interval_seconds: PositiveFloat = 15.0
    """Between two splits of what capacity cost over who used it."""
    cost_window_seconds: PositiveFloat = 300.0
    """Over which spend and tokens are compared."""
    otlp_endpoint: str = Field(
        default="",
        validation_alias=AliasChoices(
            "otlp_endpoint",
            f"{ENVIRONMENT_PREFIX}OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    )
    """Base address of an OTLP/HTTP collector for all but the gateway; empty for none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings once.

        Raises:
            InvalidInput: If a value is missing or wrong, or a name with our prefix is unknown.
        """
        return read_settings(cls, "controller")
