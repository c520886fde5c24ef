"""The kinds of objects that the operators read and write."""

from __future__ import annotations

from trierarch.adapters.kubernetes import Resource
from trierarch.api.v1alpha1 import GROUP, VERSION

MODEL_DEPLOYMENTS = Resource(GROUP, VERSION, "modeldeployments")
ACCELERATOR_CLASSES = Resource(GROUP, VERSION, "acceleratorclasses", is_namespaced=False)
PRICE_BOOKS = Resource(GROUP, VERSION, "pricebooks", is_namespaced=False)
TENANTS = Resource(GROUP, VERSION, "tenants")
RAY_SERVICES = Resource("ray.io", "v1", "rayservices")
RAY_CLUSTERS = Resource("ray.io", "v1", "rayclusters")
PODS = Resource("", "v1", "pods")

WATCHED = (
    MODEL_DEPLOYMENTS,
    ACCELERATOR_CLASSES,
    PRICE_BOOKS,
    TENANTS,
    RAY_SERVICES,
    RAY_CLUSTERS,
    PODS,
)
"""Read from the cache and never asked for one by one."""

LABELLED = frozenset({RAY_SERVICES, RAY_CLUSTERS, PODS})
"""Only objects with the label of a model deployment are watched."""
