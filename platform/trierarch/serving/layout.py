"""From an engine's description to placement bundles and vLLM options: pure.

One bundle is one data-parallel rank with all its tensor-parallel accelerators,
so that a rank never straddles two nodes and the group is placed whole or not at
all. Bundle 0 holds the replica itself: its rank 0 and the OpenAI server.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from trierarch.core.errors import InvalidInput
from trierarch.serving.specification import CPU_KV_CACHE_BYTES_DEFAULT, EngineSpec

_STRATEGIES = {"pack": "PACK", "strict-pack": "STRICT_PACK", "strict-spread": "STRICT_SPREAD"}

_OWNED_ARGUMENTS = frozenset(
    {
        "model",
        "host",
        "port",
        "served-model-name",
        "tensor-parallel-size",
        "data-parallel-size",
        "data-parallel-size-local",
        "data-parallel-address",
        "data-parallel-rpc-port",
        "data-parallel-start-rank",
        "enable-expert-parallel",
        "distributed-executor-backend",
        "headless",
        "api-key",
        "max-model-len",
        "max-num-seqs",
        "dtype",
    }
)
"""Set from typed fields; a second source for the same option would hide mistakes."""


@dataclasses.dataclass(frozen=True, slots=True)
class GroupLayout:
    """Where the ranks of one replica go.

    Attributes:
        bundles: Ray resources of each data-parallel rank; the first is the replica's.
        strategy: Ray placement strategy of the group.
    """

    bundles: tuple[Mapping[str, float], ...]
    strategy: str

    @property
    def is_group(self) -> bool:
        """Whether the replica needs more than its own process."""
        return len(self.bundles) > 1


@dataclasses.dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ranks of one group meet.

    Attributes:
        address: Of rank 0's node.
        port: TCP port of vLLM's data-parallel handshake.
        first_group_port: Where rank 0 looks upwards for the ports of the ranks' process groups;
            0 leaves them to the kernel.
    """

    address: str
    port: int
    first_group_port: int = 0


def plan_group(spec: EngineSpec) -> GroupLayout:
    """Return one bundle per data-parallel rank."""
    bundle: dict[str, float] = {"CPU": 1.0}
    if spec.device == "cuda":
        bundle["GPU"] = float(spec.parallelism.tensor)
    return GroupLayout(
        bundles=tuple(dict(bundle) for _ in range(spec.parallelism.data)),
        strategy=_STRATEGIES[spec.spread_ranks],
    )


def build_engine_environment(spec: EngineSpec) -> dict[str, str]:
    """Return the environment of every process of the group."""
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TRIERARCH_ENGINE_FATE_SHARING": "1",
        # vLLM's lines go to the replica's own JSON stream.
        "VLLM_CONFIGURE_LOGGING": "0",
        "OTEL_SERVICE_NAME": "trierarch-engine",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    }
    if spec.device == "cpu":
        kv_cache_bytes = spec.kv_cache_bytes or CPU_KV_CACHE_BYTES_DEFAULT
        environment |= {
            "CUDA_VISIBLE_DEVICES": "",
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(kv_cache_bytes / (1 << 30)))),
            # Pinning ranks to cores would put two replicas on the same core.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(spec.threads_per_rank),
            # Images have no compiler. Also an engine told to compile nothing does it, for the
            # vocabulary that tensor-parallel ranks share.
            "TORCH_COMPILE_DISABLE": "1",
        }
        if spec.parallelism.ranks == 1:
            # Keeps the worker in the engine's process; vLLM would start one more only to set
            # the threads, which the environment does already. It saves seconds and memory.
            environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return environment


def build_vllm_arguments(
    spec: EngineSpec, rendezvous: Rendezvous | None = None, rank: int = 0
) -> list[str]:
    """Return vLLM's command line for one data-parallel rank.

    Args:
        spec: The engine.
        rendezvous: Where the ranks meet; required for more than one data-parallel rank.
        rank: Data-parallel rank; 0 carries the OpenAI server, others are headless.

    Raises:
        InvalidInput: If ``engine_arguments`` repeats an option that has a typed field.
    """
    arguments = [
        "--model", spec.model_path,
        "--served-model-name", spec.served_name,
        "--dtype", spec.dtype,
        "--max-model-len", str(spec.max_model_tokens),
        "--max-num-seqs", str(spec.max_running_requests),
        "--tensor-parallel-size", str(spec.parallelism.tensor),
        "--disable-uvicorn-access-log",
        "--enable-prompt-tokens-details",
        "--enable-request-id-headers",
    ]  # fmt: skip
    if spec.device == "cpu":
        arguments.append("--enforce-eager")
    elif spec.kv_cache_bytes is not None:
        arguments += ["--kv-cache-memory-bytes", str(spec.kv_cache_bytes)]
    if spec.trust_remote_code:
        arguments.append("--trust-remote-code")
    if spec.parallelism.expert:
        arguments.append("--enable-expert-parallel")
    if spec.otlp_traces_endpoint:
        traces = spec.otlp_traces_endpoint.rstrip("/") + "/v1/traces"
        arguments += ["--otlp-traces-endpoint", traces]
    # Inside a placement group vLLM would choose its Ray executor, which cannot
    # share the group's bundles with the replica that already holds them.
    backend = "uni" if spec.parallelism.ranks == 1 else "mp"
    arguments += ["--distributed-executor-backend", backend]
    arguments += _data_parallel_arguments(spec, rendezvous, rank)
    arguments += _further_arguments(spec.engine_arguments)
    return arguments


def _data_parallel_arguments(
    spec: EngineSpec, rendezvous: Rendezvous | None, rank: int
) -> list[str]:
    if spec.parallelism.data == 1:
        return []
    if rendezvous is None:
        raise ValueError("more than one data-parallel rank needs a rendezvous")
    arguments = [
        "--data-parallel-size", str(spec.parallelism.data),
        "--data-parallel-size-local", "1",
        "--data-parallel-address", rendezvous.address,
        "--data-parallel-rpc-port", str(rendezvous.port),
    ]  # fmt: skip
    if rank > 0:
        arguments += ["--headless", "--data-parallel-start-rank", str(rank)]
    return arguments


def _further_arguments(engine_arguments: Mapping[str, object]) -> Sequence[str]:
    arguments: list[str] = []
    for name, value in engine_arguments.items():
        option = name.replace("_", "-").lstrip("-")
        if option in _OWNED_ARGUMENTS:
            raise InvalidInput(
                f"engineArgs.{name}: has a field of its own; set it there, not in engineArgs"
            )
        if value is False or value is None:
            continue
        arguments.append(f"--{option}")
        if value is not True:
            arguments.append(value if isinstance(value, str) else json.dumps(value))
    return arguments
