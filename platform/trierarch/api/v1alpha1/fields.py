"""Field types of custom resources: exact text instead of floats, and words for rules.

A JSON number with a fraction is read differently by every client, so money, rates
and durations with fractions are strings with a pattern. Bounds on lengths are not
decoration: the API server refuses rules whose worst case it cannot bound.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

RULES = "x-kubernetes-validations"
"""Key of a schema's list of CEL rules."""

MOST_VARIANTS = 32
"""Ways to run one model; far above any real fleet, and few enough for the rules' cost."""

MOST_REPLICAS = 10_000
"""Whole groups of one variant; catches a misplaced digit."""


class ApiModel(BaseModel):
    """One object of a manifest.

    Unknown fields are ignored when read: the API server has already dropped or refused
    what the installed definition does not know, and a newer definition may know more.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        alias_generator=to_camel,
        populate_by_name=True,
    )


class CapacityType(StrEnum):
    """How capacity is bought."""

    ON_DEMAND = "OnDemand"
    SPOT = "Spot"
    RESERVED = "Reserved"


def rule(expression: str, message: str, field_path: str = "") -> dict[str, Any]:
    """Return one CEL rule.

    Args:
        expression: True for what is allowed; ``self`` is the object that carries the rule.
        message: What a person reads; names the field and says what to do.
        field_path: Below the carrier; where the API server says the error is.
    """
    found: dict[str, Any] = {"rule": expression, "message": message, "reason": "FieldValueInvalid"}
    if field_path:
        found["fieldPath"] = field_path
    return found


def rules(*found: dict[str, Any]) -> dict[str, Any]:
    """Return the schema extension that carries rules."""
    return {RULES: list(found)}


def map_list(*keys: str) -> dict[str, JsonValue]:
    """Return the schema extension of a list whose entries are told apart by ``keys``.

    Two field managers can then each own entries of one list.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def open_object() -> dict[str, JsonValue]:
    """Return the schema extension of an object whose fields are not ours to name."""
    return {"x-kubernetes-preserve-unknown-fields": True}


SET_LIST: dict[str, JsonValue] = {"x-kubernetes-list-type": "set"}

_DECIMAL = r"^[0-9]{1,12}(\.[0-9]{1,9})?$"

Decimal = Annotated[str, Field(pattern=_DECIMAL, max_length=22)]
"""An exact number of zero or more, as text."""

PositiveDecimal = Annotated[
    str,
    Field(
        pattern=_DECIMAL,
        max_length=22,
        json_schema_extra=rules(rule("double(self) > 0.0", "must be above 0")),
    ),
]
"""An exact number above zero, as text."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$")]
"""As in Kubernetes: ``141Gi``, ``4.8T``, ``500m``."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1)]
"""A DNS label; becomes part of other objects' names."""

ServedName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", min_length=1, max_length=128)
]
"""What clients write in ``model``."""

ResourceName = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"),
]
"""An extended resource of nodes, for example ``nvidia.com/gpu``."""

Seconds = Annotated[int, Field(ge=0, le=604_800)]
"""At most a week."""

Percent = Annotated[int, Field(ge=0, le=100)]

Labels = dict[str, Annotated[str, Field(max_length=63)]]
"""Labels that a node must carry."""


class Toleration(ApiModel):
    """As in a pod."""

    key: str | None = None
    """The taint's key; left out, every key matches."""
    operator: str | None = Field(default=None, json_schema_extra={"enum": ["Exists", "Equal"]})
    """Whether only the key or also the value must match."""
    value: str | None = None
    """The taint's value, for Equal."""
    effect: str | None = Field(
        default=None,
        json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
    )
    """The taint's effect; left out, every effect matches."""
    toleration_seconds: int | None = None
    """How long a NoExecute taint is tolerated."""
