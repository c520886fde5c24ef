"""From an engine's description to bundles, environment and vLLM's options."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trierarch.core.errors import InvalidInput
from trierarch.serving.layout import (
    Rendezvous,
    build_engine_environment,
    build_vllm_arguments,
    plan_group,
)
from trierarch.serving.specification import EngineSpec


def spec(**fields: Any) -> EngineSpec:
    return EngineSpec.model_validate({"model_path": "/m", "served_name": "m", **fields})


def value_of(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_a_bundle_is_a_whole_data_parallel_rank() -> None:
    group = plan_group(
        spec(
            device="cuda",
            parallelism={"data": 2, "tensor": 4, "expert": True},
            spread_ranks="strict-spread",
        )
    )
    assert group.bundles == ({"CPU": 1.0, "GPU": 4.0},) * 2
    assert group.strategy == "STRICT_SPREAD"
    assert group.is_group
    assert not plan_group(spec()).is_group


def test_ranks_of_one_group_meet_at_rank_zero() -> None:
    group = spec(parallelism={"data": 2, "expert": True})
    meeting = Rendezvous("10.0.0.1", 4321)
    first = build_vllm_arguments(group, meeting)
    second = build_vllm_arguments(group, meeting, rank=1)
    assert "--headless" not in first
    assert "--enable-expert-parallel" in first
    assert value_of(first, "--data-parallel-address") == "10.0.0.1"
    assert value_of(second, "--data-parallel-rpc-port") == "4321"
    assert value_of(second, "--data-parallel-start-rank") == "1"
    assert "--headless" in second
    with pytest.raises(ValueError, match="rendezvous"):
        build_vllm_arguments(group)


def test_experts_need_ranks_to_spread_over() -> None:
    with pytest.raises(ValidationError, match=r"parallelism\.expert"):
        spec(parallelism={"expert": True})


def test_an_option_has_one_source() -> None:
    with pytest.raises(InvalidInput, match=r"engineArgs\.max_model_len"):
        build_vllm_arguments(spec(engine_arguments={"max_model_len": 9}))
    extra = build_vllm_arguments(
        spec(engine_arguments={"seed": 7, "enable_lora": True, "x": None, "limit": {"image": 1}})
    )
    assert value_of(extra, "--seed") == "7"
    assert value_of(extra, "--limit") == '{"image": 1}'
    assert "--enable-lora" in extra
    assert "--x" not in extra


def test_cpu_and_gpu_differ_in_environment_only_where_they_must() -> None:
    cpu = build_engine_environment(spec(threads_per_rank=2, kv_cache_bytes=3 << 30))
    assert (cpu["OMP_NUM_THREADS"], cpu["VLLM_CPU_KVCACHE_SPACE"]) == ("2", "3")
    assert cpu["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    group = build_engine_environment(spec(parallelism={"tensor": 2}))
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in group
    assert group["TORCH_COMPILE_DISABLE"] == "1"  # images have no compiler
    gpu = build_engine_environment(spec(device="cuda"))
    assert not {"OMP_NUM_THREADS", "TORCH_COMPILE_DISABLE"} & set(gpu)
    assert gpu["TRIERARCH_ENGINE_FATE_SHARING"] == "1"


def test_traces_go_where_the_engine_is_told() -> None:
    arguments = build_vllm_arguments(spec(otlp_traces_endpoint="http://c:4318/"))
    assert value_of(arguments, "--otlp-traces-endpoint") == "http://c:4318/v1/traces"
    assert "--otlp-traces-endpoint" not in build_vllm_arguments(spec())
