"""Labels and annotations by which objects of one model deployment find each other."""

from __future__ import annotations

from trierarch.api.v1alpha1 import GROUP

DEPLOYMENT_LABEL = f"{GROUP}/model-deployment"
"""Name of the model deployment that an object was made for."""

VARIANT_LABEL = f"{GROUP}/variant"
"""The variant."""

ROLE_LABEL = f"{GROUP}/role"
"""``head`` or ``engine``, on pods."""

REVISION_ANNOTATION = f"{GROUP}/revision"
"""What groups run, on RayServices and on pods: see ``revisions.py``."""

RUNNER_ANNOTATION = f"{GROUP}/runner"
"""``simulated`` on a model deployment runs engines without weights, to rehearse."""

APPROVAL_ANNOTATION = f"{GROUP}/approved-hourly-cost"
"""Dollars per hour that a person has approved, on a model deployment."""

GROUP_LABEL = "ray.io/worker-group-replica-name"
"""KubeRay's label with one value per multi-host replica: all pods of one group."""

CLUSTER_LABEL = "ray.io/cluster"
"""KubeRay's label with the name of the RayCluster."""

TOKEN_AUDIENCE = "trierarch.dev/announcements"  # noqa: S105  # an audience, no secret
"""Of the tokens with which replicas announce themselves."""
