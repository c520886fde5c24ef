"""The CustomResourceDefinitions, one per kind, as Kubernetes takes them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic import BaseModel

from trierarch.api.v1alpha1 import GROUP, VERSION
from trierarch.api.v1alpha1.accelerator_class import AcceleratorClass
from trierarch.api.v1alpha1.model_deployment import ModelDeployment
from trierarch.api.v1alpha1.price_book import PriceBook
from trierarch.api.v1alpha1.schema import build_schema
from trierarch.api.v1alpha1.tenant import Tenant


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``.

    Attributes:
        wide: Shown only with ``-o wide``.
    """

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One custom resource.

    Attributes:
        model: Its fields below ``metadata``.
        has_scale: Whether ``kubectl scale`` works on it.
    """

    model: type[BaseModel]
    plural: str
    short_names: tuple[str, ...]
    scope: Literal["Namespaced", "Cluster"]
    columns: tuple[Column, ...]
    has_status: bool = False
    has_scale: bool = False

    @property
    def name(self) -> str:
        """As in a manifest's ``kind``."""
        return self.model.__name__

    @property
    def definition_name(self) -> str:
        """Of the CustomResourceDefinition object."""
        return f"{self.plural}.{GROUP}"


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since it was created.", "date")


def _status_of(condition: str) -> str:
    return f'.status.conditions[?(@.type=="{condition}")].status'


KINDS = (
    Kind(
        ModelDeployment,
        "modeldeployments",
        ("md",),
        "Namespaced",
        (
            Column("Model", ".spec.model.name", "What clients write in model."),
            Column("Ready", ".status.readyReplicas", "Whole groups that serve.", "integer"),
            Column("Desired", ".status.desiredReplicas", "Whole groups decided on.", "integer"),
            Column("$/Mtok", ".status.costPerMillionTokens", "Dollars per million tokens."),
            Column("SLO", _status_of("SLOMet"), "Whether the latency objective is met."),
            Column("Reason", ".status.lastDecision.reason", "Why that many groups."),
            Column(
                "Target",
                ".spec.scaling.costPerMillionTokens.target",
                "Dollars per million tokens asked for.",
                wide=True,
            ),
            Column("Message", ".status.lastDecision.message", "The newest decision.", wide=True),
            _AGE,
        ),
        has_status=True,
        has_scale=True,
    ),
    Kind(
        AcceleratorClass,
        "acceleratorclasses",
        ("accel",),
        "Cluster",
        (
            Column("Resource", ".spec.resourceName", "Resource that nodes offer."),
            Column("Memory", ".spec.memory", "Of one accelerator."),
            Column("Per-Node", ".spec.acceleratorsPerNode", "Accelerators of a node.", "integer"),
            Column("Domain", ".spec.links.scaleUpAccelerators", "Of a domain.", "integer"),
            _AGE,
        ),
    ),
    Kind(
        PriceBook,
        "pricebooks",
        ("pb",),
        "Cluster",
        (Column("Currency", ".spec.currency", "Of every price."), _AGE),
    ),
    Kind(
        Tenant,
        "tenants",
        ("tn",),
        "Namespaced",
        (
            Column("Priority", ".spec.priority", "Higher goes first.", "integer"),
            Column("Tokens/min", ".spec.limits.tokensPerMinute", "Input plus output.", "integer"),
            Column("Spent", ".status.spent", "Dollars of the budget with the least left."),
            Column("Remaining", ".status.remaining", "Dollars left of that budget."),
            Column("Ready", _status_of("Ready"), "Whether gateways enforce it."),
            _AGE,
        ),
        has_status=True,
    ),
)
"""Every kind, in the order of the reference page."""


def build_definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of one kind."""
    schema = build_schema(kind.model)
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_build_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": schema},
    }
    subresources: dict[str, Any] = {}
    if kind.has_status:
        subresources["status"] = {}
        # A default would be written by whoever creates the object, and the status is ours.
        schema["properties"]["status"].pop("default", None)
    if kind.has_scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    if subresources:
        version["subresources"] = subresources
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.definition_name},
        "spec": {
            "group": GROUP,
            "scope": kind.scope,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["trierarch"],
            },
            "versions": [version],
        },
    }


def _build_column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.wide:
        found["priority"] = 1
    return found
