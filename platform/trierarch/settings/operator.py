"""How the operator's processes behave; read once from ``TRIERARCH_OPERATOR_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from trierarch.settings.environment import read_settings

ENVIRONMENT_PREFIX = "TRIERARCH_OPERATOR_"


class OperatorSettings(BaseSettings):
    """Settings of ``python -m trierarch_operators``."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
    )

    namespace: str = Field(
        default="default",
        validation_alias=AliasChoices(
            "namespace", f"{ENVIRONMENT_PREFIX}NAMESPACE", "POD_NAMESPACE"
        ),
    )
    """Where the operator itself runs: its Lease lies there."""
    namespaces: tuple[str, ...] = ()
    """Namespaces of the model deployments it looks after; empty for all."""
    identity: str = Field(
        default="",
        validation_alias=AliasChoices("identity", f"{ENVIRONMENT_PREFIX}IDENTITY", "POD_NAME"),
    )
    """Name in the Lease, unique among the operator's pods; empty for the host's name."""
    host: str = "127.0.0.1"
    """Address on which it listens; 0.0.0.0 in a pod."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Where it listens for announcements, probes and metrics; 0 chooses a free port."""
    announce_url: str = ""
    """Where replicas announce themselves, as engine pods reach it; empty for no announcements."""
    gateway_admin_url: str = ""
    """Base address of gateways' admin ports, each address of the name a process; empty leaves
    gateway signals missing."""
    ledger_url: str = ""
    """Address of the ledger; empty writes no decision records and reads no spend."""
    engine_image: str = "trierarch-engine:latest"
    """Image of Ray head and engine pods."""
    ray_version: str = "2.60.0"
    """Ray in that image."""
    download_image: str = ""
    """Image with the AWS command line, for sources with s3://; empty takes the engine image."""
    huggingface_token_secret: str = "huggingface-token"  # noqa: S105  # a Secret's name
    """Secret whose key "token" is used for downloads from Hugging Face, where it exists."""
    engine_service_account: str = "default"
    """Service account of engine pods; its token is what replicas announce themselves with."""
    pod_template_file: Path | None = None
    """YAML of a partial pod template that is merged over every engine pod's."""
    drain_seconds: PositiveFloat = 600.0
    """The longest that an answer may hold up the end of its replica."""
    lease_seconds: PositiveFloat = 15.0
    """A leader that has not renewed for so long is followed by another."""
    resync_seconds: PositiveFloat = 60.0
    """Between two full lists that repair what a broken watch has missed."""
    workers: PositiveInt = 8
    """Objects that are reconciled at the same time."""
    placement_grace_seconds: NonNegativeFloat = 30.0
    """How long a group may be placed in part before all of it is given back."""
    placement_pause_seconds: PositiveFloat = 30.0
    """Until a group that was given back is tried again; doubles each time, up to ten minutes."""
    update_observation_seconds: NonNegativeFloat = 120.0
    """How long an update's groups serve beside those from before, until these go."""
    update_deadline_seconds: PositiveFloat = 1800.0
    """How long an update may take until its first group serves; then it is rolled back."""
    capacity_interval_seconds: PositiveFloat = 5.0
    """Between two entries of what exists into the ledger."""
    cost_interval_seconds: PositiveFloat = 15.0
    """Between two splits of what capacity cost over who used it."""
    cost_window_seconds: PositiveFloat = 300.0
    """Over which spend and tokens are compared."""
    otlp_endpoint: str = ""
    """Base address of an OTLP/HTTP collector; empty for none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings once.

        Raises:
            InvalidInput: If a value is wrong, or a name with our prefix is unknown.
        """
        return read_settings(cls, "operator")
