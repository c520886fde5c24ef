"""What a run's options become."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trierarch.core.errors import InvalidInput
from trierarch.embedded.folder import RAY_TEMP_DIR_MAX_CHARACTERS, RunFolder
from trierarch.embedded.leftovers import is_marked
from trierarch.embedded.options import (
    InternalPorts,
    RunOptions,
    build_children,
    build_deployment,
)
from trierarch.embedded.run import describe_endpoints, describe_status
from trierarch.serving.models import LocalModel
from trierarch.serving.specification import EngineSpec
from trierarch.settings.gateway import GatewaySettings

PORTS = InternalPorts(*range(40001, 40001 + len(dataclasses.fields(InternalPorts))))
FOLDER = RunFolder(Path("/data"))
MODEL = LocalModel("pocket", Path("/data/models/pocket"), "bfloat16", 8192)


def options(**fields: object) -> RunOptions:
    return RunOptions(data_dir=Path("/data"), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"port": 9090}, "--port and --admin-port are both 9090"),
        ({"min_replicas": 3}, "--max-replicas 2 is below --min-replicas 3"),
        ({"min_replicas": 0, "max_replicas": 0}, "--max-replicas must be 1 or more"),
    ],
    ids=["one-port-for-two", "bounds-cross", "no-replica-ever"],
)
def test_contradicting_options_are_one_line(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        options(**fields).check("linux")


def test_another_system_is_told_so() -> None:
    with pytest.raises(InvalidInput, match="Linux only"):
        options().check("darwin")


def test_the_deployment_passes_the_number_format_and_shares_the_cores() -> None:
    (model,) = build_deployment(options(max_replicas=2), MODEL, cores=8)["models"]
    engine = EngineSpec.model_validate(model["engine"])
    assert engine.dtype == "bfloat16"
    assert engine.threads_per_rank == 4
    assert engine.max_model_tokens == 2048
    assert model["scaling"] == {"minReplicas": 1, "maxReplicas": 2}


def children(**inherited: str) -> dict[str, dict[str, str]]:
    specs = build_children(
        options(port=8081),
        FOLDER,
        PORTS,
        run_id="abc",
        cores=2,
        model_name="pocket",
        inherited=inherited,
    )
    return {spec.name: dict(spec.environment) for spec in specs}


def test_every_process_carries_the_marker_it_is_found_by() -> None:
    for environment in children().values():
        raw = b"\0".join(f"{name}={value}".encode() for name, value in environment.items())
        assert is_marked(raw, "/data")
        assert is_marked(raw, "/data", "abc")
        assert not is_marked(raw, "/data", "other")
        assert not is_marked(raw, "/dat")
        # Ray's processes would overwrite it.
        assert environment["SPT_NOENV"] == "1"


def test_the_gateway_gets_only_settings_it_knows() -> None:
    environment = children()["gateway"]
    fields = {f"TRIERARCH_GATEWAY_{name}".upper() for name in GatewaySettings.model_fields}
    given = {name for name in environment if name.startswith("TRIERARCH_GATEWAY_")}
    assert given
    assert given <= fields
    assert environment["TRIERARCH_GATEWAY_PORT"] == "8081"


def test_what_the_user_set_for_the_gateway_stays() -> None:
    name = "TRIERARCH_GATEWAY_DRAIN_TIMEOUT_SECONDS"
    assert children(**{name: "9"})["gateway"][name] == "9"


def test_ray_is_given_a_path_its_sockets_fit_in() -> None:
    deep = RunFolder(Path("/" + "very-long/" * 30))
    assert len(str(deep.ray_temp_dir)) <= RAY_TEMP_DIR_MAX_CHARACTERS
    assert deep.ray_temp_dir != FOLDER.ray_temp_dir


def test_the_status_tells_why_it_waits() -> None:
    model = {"name": "pocket", "ready": 0, "desired": 1, "message": "loading weights"}
    line = describe_status({"phase": "starting replicas", "models": [model]})
    assert line == "Engine: starting replicas; pocket 0 of 1 ready (loading weights)"


def test_the_printed_curl_line_names_the_port_and_the_model() -> None:
    text = "\n".join(describe_endpoints(options(port=8081), FOLDER, "pocket"))
    assert "curl http://127.0.0.1:8081/v1/chat/completions" in text
    assert '"model": "pocket"' in text
    assert "set -a; . '/data/client.env'" in text
