"""What one replica of a variant runs: from a custom resource to the serving application.

The arguments are those of ``trierarch.serving.application``, the same words as in
embedded mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from trierarch.api.v1alpha1.accelerator_class import AcceleratorClassSpec
from trierarch.api.v1alpha1.model_deployment import ModelDeploymentSpec, Variant
from trierarch.core.errors import InvalidInput
from trierarch.serving.elastic import ELASTIC_OPTIONS, find_obstacles
from trierarch.serving.layout import Rendezvous, build_vllm_arguments
from trierarch.serving.names import DEPLOYMENT_NAME
from trierarch.serving.specification import EngineSpec, Parallelism
from trierarch_operators.group_plan import CannotRun, GroupPlan, parse_quantity

IMPORT_PATH = "trierarch.serving.application:build_application"

MODEL_FOLDER = "/models/weights"
"""Where pods find the weights, unless they are on the nodes."""

MAX_MODEL_TOKENS = 8_192
"""Of variants on accelerators that do not say max-model-len: fits beside the weights wherever
these fit, and holds the requests of every chat trace's 95th percentile."""

MAX_RUNNING_REQUESTS = 256
"""Of variants on accelerators that do not say max-num-seqs; vLLM's own default."""

_TYPED = {
    "max-model-len": "max_model_tokens",
    "max-num-seqs": "max_running_requests",
    "dtype": "dtype",
    "kv-cache-memory-bytes": "kv_cache_bytes",
    "trust-remote-code": "trust_remote_code",
}
"""Options of vLLM that an engine's description has fields for."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSource:
    """Where weights come from.

    Attributes:
        scheme: How they reach a pod.
        place: Repository, claim, bucket or folder.
        folder: Below the claim or bucket.
        path: Where the engine finds them.
    """

    scheme: Literal["hf", "pvc", "s3", "file"]
    place: str
    folder: str
    path: str


def parse_source(source: str) -> ModelSource:
    """Return a source's parts.

    Raises:
        InvalidInput: If it is no source.
    """
    scheme, separator, rest = source.partition("://")
    if not separator or not rest:
        raise InvalidInput(
            f"model.source: must begin with hf://, pvc://, s3:// or file://: {source}"
        )
    place, _, folder = rest.partition("/")
    match scheme:
        case "hf":
            return ModelSource("hf", rest, "", MODEL_FOLDER)
        case "s3":
            return ModelSource("s3", place, folder, MODEL_FOLDER)
        case "pvc":
            path = f"{MODEL_FOLDER}/{folder}" if folder else MODEL_FOLDER
            return ModelSource("pvc", place, folder, path.rstrip("/"))
        case "file":
            return ModelSource("file", rest, "", rest)
        case _:
            raise InvalidInput(f"model.source: {scheme}:// is not known")


def build_engine_spec(
    spec: ModelDeploymentSpec,
    variant: Variant,
    accelerator_class: AcceleratorClassSpec,
    plan: GroupPlan,
    otlp_endpoint: str = "",
) -> EngineSpec:
    """Return the description that a replica starts its engine from.

    Raises:
        InvalidInput: If an engine argument is wrong; names it.
    """
    is_cpu = accelerator_class.cpu_only
    layout = plan.layout
    fields: dict[str, Any] = {
        "model_path": parse_source(spec.model.source).path,
        "served_name": spec.model.name,
        "variant": variant.name,
        "device": "cpu" if is_cpu else "cuda",
        "parallelism": Parallelism(
            data=layout.data, tensor=layout.tensor, expert=layout.expert and layout.accelerators > 1
        ),
        "spread_ranks": "strict-pack" if plan.hosts == 1 else "pack",
        "otlp_traces_endpoint": otlp_endpoint or None,
    }
    if is_cpu:
        fields["threads_per_rank"] = max(1, int(parse_quantity(accelerator_class.host.cpu)))
    else:
        fields["max_model_tokens"] = MAX_MODEL_TOKENS
        fields["max_running_requests"] = MAX_RUNNING_REQUESTS
    further: dict[str, Any] = {}
    for name, value in variant.engine_args.items():
        option = name.replace("_", "-").lstrip("-")
        if option in _TYPED:
            fields[_TYPED[option]] = value
        else:
            further[option] = value
    what = f"variants[{variant.name}].engineArgs"
    try:
        found = EngineSpec(**fields, engine_arguments=further)
        build_vllm_arguments(found, Rendezvous("", 0))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        option = next((name for name, typed in _TYPED.items() if typed == field), field)
        raise InvalidInput(f"{what}.{option}: {first['msg']}") from error
    except InvalidInput as error:
        raise InvalidInput(f"variants[{variant.name}].{error}") from error
    if asked := sorted(ELASTIC_OPTIONS & further.keys()):
        raise CannotRun("ElasticUnavailable", f"{what}.{asked[0]}: {find_obstacles(found)[0]}")
    return found


def build_arguments(
    engine: EngineSpec, *, runner: str, announce: Mapping[str, str] | None, drain_seconds: float
) -> dict[str, Any]:
    """Return what a replica is made from.

    Args:
        engine: What it runs.
        runner: ``vllm`` or ``simulated``.
        announce: Where it tells of itself; None tells nobody.
        drain_seconds: The longest that an answer may hold up its end.
    """
    arguments: dict[str, Any] = {
        "engine": engine.model_dump(mode="json"),
        "runner": runner,
        "drain_seconds": drain_seconds,
    }
    if announce is not None:
        arguments["announce"] = dict(announce)
    return arguments


def build_serve_config(
    application: str, arguments: Mapping[str, Any], serve_replicas: int
) -> dict[str, Any]:
    """Return Ray Serve's configuration of one variant.

    The number of replicas stands beside the arguments and not in them: Serve restarts every
    replica when an argument changes, and only adds or drains when the number does.
    Serve knows no deployment of no replica: it then has no application, and drains what it had.

    Args:
        application: Name of the application.
        arguments: What a replica is made from.
        serve_replicas: How many Serve shall work towards.
    """
    document: dict[str, Any] = {
        "name": application,
        "route_prefix": f"/{application}",
        "import_path": IMPORT_PATH,
        "args": dict(arguments),
    }
    applications = []
    if serve_replicas:
        document["deployments"] = [{"name": DEPLOYMENT_NAME, "num_replicas": serve_replicas}]
        applications = [document]
    # KubeRay counts a worker as serving when the proxy on its node answers.
    return {"proxy_location": "EveryNode", "applications": applications}
