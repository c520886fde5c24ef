"""Settings of the gateway."""

from __future__ import annotations

import pytest

from trierarch.core.errors import InvalidInput
from trierarch.settings.gateway import GatewaySettings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


def test_the_defaults_are_the_contracts() -> None:
    settings = GatewaySettings.from_environment()
    assert (settings.host, settings.port, settings.admin_port) == ("127.0.0.1", 8080, 9090)


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIERARCH_GATEWAY_PORT", "81")
    monkeypatch.setenv("TRIERARCH_GATEWAY_MODELS", '["a", "b"]')
    monkeypatch.setenv("TRIERARCH_GATEWAY_STATIC_REPLICAS", '[{"model": "m", "port": 5}]')
    settings = GatewaySettings.from_environment()
    assert settings.port == 81
    assert settings.models == ("a", "b")
    assert settings.static_replicas[0].host == "127.0.0.1"


@pytest.mark.parametrize("name", ["TRIERARCH_GATEWAY_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_the_collector_has_two_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://c:4318")
    assert GatewaySettings.from_environment().otlp_endpoint == "http://c:4318"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRIERARCH_GATEWAY_PORT", "0"),
        ("TRIERARCH_GATEWAY_PORT", "eighty"),
        ("TRIERARCH_GATEWAY_MAX_BODY_BYTES", "-1"),
        ("TRIERARCH_GATEWAY_TRACE_SAMPLE_RATIO", "1.5"),
        ("TRIERARCH_GATEWAY_LOG_LEVEL", "loud"),
        ("TRIERARCH_GATEWAY_STATIC_REPLICAS", '[{"model": "m", "port": 5, "colour": "red"}]'),
    ],
)
def test_wrong_values_name_the_setting(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=name):
        GatewaySettings.from_environment()


def test_a_misspelt_setting_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIERARCH_GATEWAY_PROT", "81")
    with pytest.raises(InvalidInput, match="TRIERARCH_GATEWAY_PROT is not a setting"):
        GatewaySettings.from_environment()


def test_settings_cannot_be_changed() -> None:
    settings = GatewaySettings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1
