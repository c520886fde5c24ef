"""What the controller shall run, from a file, and what that means for Ray Serve."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from pydantic.alias_generators import to_camel

from trierarch.autoscaling.specification import (
    Behavior,
    ScaleDown,
    ScaleToZero,
    ScaleUp,
    ScalingSpec,
    VariantSpec,
)
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import VariantName
from trierarch.serving.specification import EngineSpec

NAMESPACE = "local"
"""Stands before the slash of a deployment's name where there are no namespaces."""

IMPORT_PATH = "trierarch.serving.application:build_application"

_SCALE_UP_WINDOW_SECONDS = 4.0
_SCALE_DOWN_WINDOW_SECONDS = 30.0
_SCALE_DOWN_DWELL_SECONDS = 20.0
_COLD_START_SECONDS = 40.0
_STALE_AFTER_SECONDS = 30.0


class _Strict(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, alias_generator=to_camel
    )


class ScalingBounds(_Strict):
    """How far a model may be scaled."""

    min_replicas: NonNegativeInt = 1
    """Never fewer."""
    max_replicas: PositiveInt = 2
    """Never more."""
    target_queue_depth: float = Field(default=4.0, gt=0)
    """Waiting requests per ready replica."""


class ModelDeployment(_Strict):
    """One model to serve."""

    engine: EngineSpec
    """What a replica runs."""
    runner: Literal["vllm", "simulated"] = "vllm"
    """Which engine runs it."""
    scaling: ScalingBounds = ScalingBounds()
    """Limits of the autoscaler."""
    accelerators: PositiveInt = 1
    """Of one replica, in the price book's unit: cores on CPU."""

    @property
    def name(self) -> str:
        """Served model name."""
        return self.engine.served_name

    @property
    def deployment(self) -> str:
        """Name in decision records."""
        return f"{NAMESPACE}/{self.name}"

    @property
    def application(self) -> str:
        """Name of its Ray Serve application; Serve's addresses take no other characters."""
        return re.sub(r"[^A-Za-z0-9_.-]", "-", self.name)

    @property
    def accelerator(self) -> str:
        """Key of the price book."""
        return "CPU" if self.engine.device == "cpu" else "GPU"

    def build_spec(self, decision_interval_seconds: float) -> ScalingSpec:
        """Return what the autoscaler is asked for."""
        return ScalingSpec(
            variants=(
                VariantSpec(
                    name=VariantName(self.engine.variant),
                    accelerator=self.accelerator,
                    min_replicas=self.scaling.min_replicas,
                    max_replicas=self.scaling.max_replicas,
                    cold_start_seconds=_COLD_START_SECONDS,
                    max_running_requests=self.engine.max_running_requests
                    * self.engine.parallelism.data,
                ),
            ),
            target_queue_depth=self.scaling.target_queue_depth,
            behavior=Behavior(
                interval_seconds=decision_interval_seconds,
                scale_up=ScaleUp(window_seconds=_SCALE_UP_WINDOW_SECONDS),
                scale_down=ScaleDown(
                    window_seconds=_SCALE_DOWN_WINDOW_SECONDS,
                    dwell_seconds=_SCALE_DOWN_DWELL_SECONDS,
                ),
                scale_to_zero=ScaleToZero(enabled=self.scaling.min_replicas == 0),
                stale_after_seconds=_STALE_AFTER_SECONDS,
            ),
        )

    def build_application(
        self, replicas: int, announce_url: str, token_file: Path, otlp_endpoint: str
    ) -> dict[str, Any]:
        """Return the application as Ray Serve's REST interface takes it.

        Args:
            replicas: How many Serve shall work towards.
            announce_url: Where replicas announce themselves.
            token_file: Holds the token for that.
            otlp_endpoint: Base address of a trace collector; empty for none.
        """
        engine = self.engine
        if otlp_endpoint and not engine.otlp_traces_endpoint:
            engine = engine.model_copy(update={"otlp_traces_endpoint": otlp_endpoint})
        return {
            "name": self.application,
            "route_prefix": None,
            "import_path": IMPORT_PATH,
            "external_scaler_enabled": True,
            "args": {
                "engine": engine.model_dump(mode="json"),
                "runner": self.runner,
                "replicas": replicas,
                "announce": {"url": announce_url, "token_file": str(token_file)},
            },
        }


class ModelDeploymentFile(_Strict):
    """The file."""

    models: tuple[ModelDeployment, ...] = Field(min_length=1)
    """Every model of this run."""

    @staticmethod
    def read(path: Path) -> ModelDeploymentFile:
        """Return the file's content.

        Raises:
            InvalidInput: If it cannot be read or does not say what to run.
        """
        try:
            return ModelDeploymentFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
        except json.JSONDecodeError as error:
            raise InvalidInput(f"{path} is no JSON: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(f"{path}: {field}: {first['msg']}") from error
