"""What the chart makes of values."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from tests.chart.chart import CASES, CHART, CPU_VALUES, EXAMPLES, NAMESPACE, RELEASE, Helm, Rendered
from tests.chart.chart import environment as variables
from tests.cluster.node.environment import MODELS_ON_NODES, ON_NODES
from tests.cluster.node.our_images import ENGINE_TAG, PLATFORM_TAG

from trierarch.settings.gateway import GatewaySettings
from trierarch.settings.operator import OperatorSettings


@pytest.fixture(scope="module")
def defaults(helm: Helm) -> Rendered:
    return helm.render()


@pytest.fixture(scope="module")
def full(helm: Helm) -> Rendered:
    return helm.render(CHART / "ci" / "02-full-values.yaml")


@pytest.fixture(scope="module")
def cpu(helm: Helm) -> Rendered:
    return helm.render(CPU_VALUES)


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    everything = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    [found] = [each for each in everything if each["name"] == name]
    return found


@pytest.mark.parametrize("values", [*CASES, CPU_VALUES], ids=lambda path: path.stem)
class TestEveryCase:
    def test_objects_have_labels_and_names_of_their_own(self, helm: Helm, values: Any) -> None:
        objects = helm.render(values).objects
        names = [
            (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
            for one in objects
        ]
        assert len(names) == len(set(names))
        for one in objects:
            labels = one["metadata"]["labels"]
            assert labels["app.kubernetes.io/part-of"] == "trierarch"
            assert labels["app.kubernetes.io/managed-by"] == "Helm"

    def test_selectors_find_their_pods_and_never_a_version(self, helm: Helm, values: Any) -> None:
        rendered = helm.render(values)
        selectors = [
            one["spec"]["selector"].get("matchLabels", one["spec"]["selector"])
            for one in rendered.objects
            if one["kind"] in {"Deployment", "StatefulSet", "Service", "PodDisruptionBudget"}
        ]
        pods = [pod["metadata"]["labels"] for pod in rendered.pods().values()]
        for selector in selectors:
            assert not {"app.kubernetes.io/version", "helm.sh/chart"} & selector.keys()
            assert [pod for pod in pods if selector.items() <= pod.items()]

    def test_every_mount_has_its_volume(self, helm: Helm, values: Any) -> None:
        rendered = helm.render(values)
        claims = {
            one["metadata"]["name"]: {
                claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())
            }
            for one in rendered.all("StatefulSet").values()
        }
        for name, pod in rendered.pods().items():
            volumes = {volume["name"] for volume in pod["spec"]["volumes"]} | claims.get(
                name, set()
            )
            for each in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
                mounts = [mount["name"] for mount in each["volumeMounts"]]
                assert set(mounts) <= volumes
                paths = [mount["mountPath"] for mount in each["volumeMounts"]]
                assert len(paths) == len(set(paths))

    def test_configured_maps_and_secrets_exist_or_are_the_users(
        self, helm: Helm, values: Any
    ) -> None:
        rendered = helm.render(values)
        for pod in rendered.pods().values():
            for volume in pod["spec"]["volumes"]:
                if "configMap" in volume:
                    assert volume["configMap"]["name"] in rendered.all("ConfigMap")

    def test_no_password_is_in_an_address(self, helm: Helm, values: Any) -> None:
        for pod in helm.render(values).pods().values():
            assert not re.search(r"://[^/@\"]*:[^/@\"]*@", json.dumps(pod))


def test_defaults_start_no_model_and_take_no_accelerator(defaults: Rendered) -> None:
    assert set(defaults.all("Deployment")) == {"trierarch-gateway", "trierarch-operator"}
    assert set(defaults.all("StatefulSet")) == {"trierarch-postgresql"}
    assert "gpu" not in json.dumps(defaults.pods())
    optional = {"Ingress", "HTTPRoute", "HorizontalPodAutoscaler", "ServiceMonitor"}
    optional |= {"PrometheusRule", "PodDisruptionBudget"}
    assert not optional & {one["kind"] for one in defaults.objects}


def test_the_gateway_is_told_what_its_settings_know(full: Rendered) -> None:
    pod = full.pods()["trierarch-gateway"]
    told = variables(container(pod, "gateway"))
    mine = {name: value for name, value in told.items() if name.startswith("TRIERARCH_GATEWAY_")}
    known = {f"TRIERARCH_GATEWAY_{field}".upper() for field in GatewaySettings.model_fields}
    assert mine.keys() <= known
    assert mine["TRIERARCH_GATEWAY_QUEUE_TIMEOUT_SECONDS"] == "60.5"
    assert json.loads(mine["TRIERARCH_GATEWAY_MODELS"]) == ["a", "b"]
    assert mine["TRIERARCH_GATEWAY_ACCESS_LOG"] == "false"
    assert mine["TRIERARCH_GATEWAY_OTLP_ENDPOINT"] == "http://collector:4318"
    assert mine["TRIERARCH_GATEWAY_LEDGER_URL"] == "$(TRIERARCH_LEDGER_URL)"
    order = list(told)
    assert order.index("TRIERARCH_LEDGER_URL") < order.index("TRIERARCH_GATEWAY_LEDGER_URL")
    assert told["TZ"] == "UTC"


def test_every_setting_of_the_gateway_survives_the_way_into_its_pod(
    helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "replicaPollIntervalSeconds": 0.5,
        "maxBodyBytes": 104857600,
        "tokensPerMinute": 200000000,
        "traceSampleRatio": 0.01,
        "logLevel": "warning",
        "accessLog": False,
        "models": ["a b", 'c"d'],
        "staticReplicas": [{"model": "m", "port": 8000, "host": "10.0.0.1"}],
        "defaultMaxTokens": 100,
    }
    rendered = helm.render({"gateway": {"settings": given}})
    told = variables(container(rendered.pods()["trierarch-gateway"], "gateway"))
    for name, value in told.items():
        if name.startswith("TRIERARCH_GATEWAY_"):
            monkeypatch.setenv(name, value)
    settings = GatewaySettings.from_environment()
    assert settings.max_body_bytes == 104857600
    assert settings.tokens_per_minute == 200000000
    assert (settings.replica_poll_interval_seconds, settings.trace_sample_ratio) == (0.5, 0.01)
    assert (settings.log_level, settings.access_log) == ("warning", False)
    assert settings.models == ("a b", 'c"d')
    assert settings.static_replicas[0].host == "10.0.0.1"
    assert settings.default_max_tokens == 100
    assert settings.replicas_url == "", "fixed replicas need no list"
    assert settings.ready_without_replicas


def test_every_setting_of_the_operator_survives_the_way_into_its_pod(
    helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"drainSeconds": 90, "leaseSeconds": 5.5, "workers": 3, "logLevel": "debug"}
    template = {"spec": {"priorityClassName": "models"}}
    values = {
        "operator": {"settings": given},
        "engine": {"image": {"repository": "r/engine"}, "podTemplate": template},
        "rbac": {"scope": "namespace", "namespaces": ["team-a"]},
        "tracing": {"otlpEndpoint": "http://collector:4318"},
    }
    told = variables(container(helm.render(values).pods()["trierarch-operator"], "operator"))
    for name, value in told.items():
        if isinstance(value, str):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("POD_NAME", "operator-1")
    monkeypatch.setenv("POD_NAMESPACE", NAMESPACE)
    settings = OperatorSettings.from_environment()
    assert (settings.drain_seconds, settings.lease_seconds, settings.workers) == (90, 5.5, 3)
    assert (settings.host, settings.port, settings.log_level) == ("0.0.0.0", 8081, "debug")  # noqa: S104
    assert (settings.identity, settings.namespace) == ("operator-1", NAMESPACE)
    assert settings.namespaces == ("team-a",)
    assert settings.engine_image == "r/engine:0.1.0"
    assert settings.gateway_admin_url == "http://trierarch-gateway-admin:9090"
    address = f"http://trierarch-operator-announcements.{NAMESPACE}.svc:8081/announcements"
    assert settings.announce_url == address
    assert str(settings.pod_template_file) == "/etc/trierarch/engine/pod-template.yaml"
    assert settings.otlp_endpoint == "http://collector:4318"


def test_a_gateway_drains_before_it_is_killed(full: Rendered) -> None:
    spec = full.pods()["trierarch-gateway"]["spec"]
    pause = container(full.pods()["trierarch-gateway"], "gateway")["lifecycle"]["preStop"]
    assert spec["terminationGracePeriodSeconds"] >= pause["sleep"]["seconds"] + 45 + 10


def test_libraries_find_a_name_for_a_user_that_has_only_a_number(full: Rendered) -> None:
    for name in ("gateway", "operator"):
        assert variables(container(full.pods()[f"trierarch-{name}"], name))["USER"]


def test_service_links_cannot_be_mistaken_for_settings(full: Rendered) -> None:
    """A Service called trierarch-gateway would set TRIERARCH_GATEWAY_PORT=tcp://..."""
    assert all(
        pod["spec"].get("enableServiceLinks") is False
        for name, pod in full.pods().items()
        if "test" not in name
    )


def test_a_kept_spool_makes_a_stateful_set_and_the_autoscaler_knows(full: Rendered) -> None:
    assert "trierarch-gateway" not in full.all("Deployment")
    gateway = full.one("StatefulSet", "gateway")
    [claim] = gateway["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert "replicas" not in gateway["spec"], "the autoscaler decides"
    scaler = full.one("HorizontalPodAutoscaler", "gateway")
    assert scaler["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"


@pytest.mark.parametrize(
    ("image", "own", "wanted"),
    [
        ({}, {}, "trierarch:0.1.0"),
        ({"repository": "r/t", "tag": "2"}, {}, "r/t:2"),
        ({"tag": "2"}, {"tag": "3"}, "trierarch:3"),
        ({"digest": "sha256:" + "a" * 64}, {}, "trierarch@sha256:" + "a" * 64),
        ({"digest": "sha256:" + "a" * 64}, {"tag": "3"}, "trierarch:3"),
    ],
)
def test_a_digest_wins_and_a_component_may_differ(
    helm: Helm, image: dict[str, str], own: dict[str, str], wanted: str
) -> None:
    rendered = helm.render({"image": image, "gateway": {"image": own}})
    pod = rendered.pods()["trierarch-gateway"]
    assert {container(pod, name)["image"] for name in ("migrate", "gateway")} == {wanted}


def test_ones_own_database_is_reached_through_its_secret(full: Rendered) -> None:
    assert "trierarch-postgresql" not in full.all("StatefulSet")
    assert not full.all("Secret")
    told = variables(container(full.pods()["trierarch-gateway"], "migrate"))
    assert told["TRIERARCH_LEDGER_URL"] == {"secretKeyRef": {"name": "ledger", "key": "address"}}
    assert "PGPASSWORD" not in told


def test_the_bundled_database_keeps_its_secret_and_offers_a_name_for_its_user(
    defaults: Rendered,
) -> None:
    secret = defaults.one("Secret", "postgresql")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "ledger:x:999:999:" in defaults.one("ConfigMap", "postgresql")["data"]["passwd"]
    told = variables(container(defaults.pods()["trierarch-gateway"], "gateway"))
    assert told["PGPASSWORD"]["secretKeyRef"]["name"] == secret["metadata"]["name"]


class TestRights:
    def test_the_gateway_has_none(self, full: Rendered) -> None:
        assert full.pods()["trierarch-gateway"]["spec"]["automountServiceAccountToken"] is False
        subjects = [
            subject["name"]
            for kind in ("RoleBinding", "ClusterRoleBinding")
            for binding in full.all(kind).values()
            for subject in binding["subjects"]
        ]
        assert set(subjects) == {"trierarch-operator"}

    def test_nothing_is_allowed_by_a_star_and_no_secret_is_read(self, defaults: Rendered) -> None:
        roles = [*defaults.all("ClusterRole").values(), *defaults.all("Role").values()]
        for role in roles:
            for rule in role["rules"]:
                assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
                assert "secrets" not in rule["resources"]

    def test_namespaced_rights_end_at_the_namespaces(self, helm: Helm) -> None:
        values = {"rbac": {"scope": "namespace", "namespaces": ["team-a", "team-b"]}}
        rendered = helm.render(values)
        [cluster_role] = rendered.all("ClusterRole").values()
        reached = {resource for rule in cluster_role["rules"] for resource in rule["resources"]}
        assert reached == {"acceleratorclasses", "pricebooks", "tokenreviews"}
        places = [
            one["metadata"]["namespace"]
            for one in rendered.objects
            if one["kind"] == "Role" and one["metadata"]["name"] == "trierarch-operator"
        ]
        assert places == ["team-a", "team-b"]
        told = variables(container(rendered.pods()["trierarch-operator"], "operator"))
        assert json.loads(told["TRIERARCH_OPERATOR_NAMESPACES"]) == ["team-a", "team-b"]

    def test_without_names_it_is_the_releases_own_namespace(self, helm: Helm) -> None:
        rendered = helm.render({"rbac": {"scope": "namespace"}})
        told = variables(container(rendered.pods()["trierarch-operator"], "operator"))
        assert json.loads(told["TRIERARCH_OPERATOR_NAMESPACES"]) == [NAMESPACE]

    def test_roles_can_be_left_to_somebody_else(self, helm: Helm) -> None:
        rendered = helm.render({"rbac": {"create": False}})
        kinds = {one["kind"] for one in rendered.objects}
        assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & kinds


class TestDefinitions:
    def test_they_are_kept_on_uninstall(self, defaults: Rendered) -> None:
        definitions = defaults.all("CustomResourceDefinition")
        assert set(definitions) == {
            f"{plural}.trierarch.dev"
            for plural in ("modeldeployments", "acceleratorclasses", "pricebooks", "tenants")
        }
        for one in definitions.values():
            assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"

    def test_they_are_what_the_models_generate(self, defaults: Rendered) -> None:
        for one in defaults.all("CustomResourceDefinition").values():
            source = CHART / "files" / "crds" / f"{one['spec']['names']['plural']}.yaml"
            assert one["spec"] == yaml.safe_load(source.read_text())["spec"]

    @pytest.mark.parametrize(
        ("values", "count", "kept"),
        [({"enabled": False}, 0, False), ({"keep": False}, 4, False)],
        ids=["left-out", "not-kept"],
    )
    def test_both_can_be_chosen(
        self, helm: Helm, values: dict[str, bool], count: int, kept: bool
    ) -> None:
        definitions = helm.render({"crds": values}).all("CustomResourceDefinition")
        assert len(definitions) == count
        policies = ["helm.sh/resource-policy" in json.dumps(one) for one in definitions.values()]
        assert policies == [kept] * count


@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1)], ids=["one-pod", "two-pods"])
def test_a_disruption_budget_never_blocks_the_only_pod(
    helm: Helm, replicas: int, budgets: int
) -> None:
    rendered = helm.render({"gateway": {"replicas": replicas}})
    assert len(rendered.all("PodDisruptionBudget")) == budgets


class TestNetworkPolicies:
    def test_the_admin_port_and_the_database_are_not_for_tenants(self, defaults: Rendered) -> None:
        gateway = defaults.one("NetworkPolicy", "gateway")["spec"]
        by_port = {rule["ports"][0]["port"]: rule for rule in gateway["ingress"]}
        assert "from" not in by_port["http"]
        assert "from" in by_port["admin"]
        database = defaults.one("NetworkPolicy", "postgresql")["spec"]
        [rule] = database["ingress"]
        components = [
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for peer in rule["from"]
        ]
        assert components == ["gateway", "operator"]

    def test_tenants_can_be_named(self, full: Rendered) -> None:
        [rule] = [
            rule
            for rule in full.one("NetworkPolicy", "gateway")["spec"]["ingress"]
            if rule["ports"][0]["port"] == "http"
        ]
        tenants, tests = rule["from"]
        assert tenants == {"namespaceSelector": {"matchLabels": {"tenant": "yes"}}}
        wanted = tests["podSelector"]["matchLabels"].items()
        assert wanted <= full.one("Pod", "test-models")["metadata"]["labels"].items()

    def test_replicas_are_closed_in_every_named_namespace(self, full: Rendered) -> None:
        policies = [
            one
            for one in full.objects
            if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "trierarch-engine"
        ]
        assert [one["metadata"]["namespace"] for one in policies] == ["team-a", "team-b"]
        for one in policies:
            assert all(peer for rule in one["spec"]["ingress"] for peer in rule["from"])


class TestMonitoring:
    def test_monitors_find_services_that_have_the_port(self, full: Rendered) -> None:
        monitors = full.all("ServiceMonitor")
        assert set(monitors) == {"trierarch-gateway", "trierarch-operator"}
        for monitor in monitors.values():
            assert monitor["metadata"]["labels"]["release"] == "prometheus"
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            [service] = [
                one
                for one in full.all("Service").values()
                if wanted <= one["metadata"]["labels"].items()
            ]
            ports = [port["name"] for port in service["spec"]["ports"]]
            assert monitor["spec"]["endpoints"][0]["port"] in ports

    def test_rules_arrive_whole(self, full: Rendered) -> None:
        [rule] = full.all("PrometheusRule").values()
        source = yaml.safe_load((CHART / "files/rules/trierarch.yaml").read_text())
        assert rule["spec"] == source

    def test_runbook_links_begin_where_people_read_them(self, helm: Helm) -> None:
        values = {
            "monitoring": {
                "prometheusRule": {"enabled": True, "runbookUrl": "https://wiki.example/runbook/"}
            }
        }
        [rule] = helm.render(values).all("PrometheusRule").values()
        for group in rule["spec"]["groups"]:
            for one in group["rules"]:
                url = one["annotations"]["runbook_url"]
                assert url == f"https://wiki.example/runbook/{one['alert']}.md"

    def test_dashboards_arrive_whole(self, full: Rendered) -> None:
        boards = {
            key: text
            for one in full.all("ConfigMap").values()
            for key, text in one["data"].items()
            if one["metadata"]["labels"].get("grafana_dashboard")
        }
        for name, text in boards.items():
            file = CHART / "files" / "dashboards" / name.removeprefix("trierarch-")
            assert json.loads(text) == json.loads(file.read_text())
        assert len(boards) == len(list((CHART / "files" / "dashboards").glob("*.json")))


class TestRoutes:
    def test_only_the_tenants_paths_are_routed(self, full: Rendered) -> None:
        ingress = full.one("Ingress", "gateway")["spec"]
        [path] = ingress["rules"][0]["http"]["paths"]
        assert (path["path"], path["backend"]["service"]["port"]) == ("/v1", {"name": "http"})
        route = full.one("HTTPRoute", "gateway")["spec"]
        assert route["rules"][0]["matches"][0]["path"]["value"] == "/v1"
        assert route["rules"][0]["backendRefs"][0]["port"] == 80


class TestCpuMode:
    def test_only_replicas_take_their_environment_from_the_node(self, cpu: Rendered) -> None:
        assert "hostPath" not in json.dumps(cpu.pods())
        text = cpu.one("ConfigMap", "engine")["data"]["pod-template.yaml"]
        spec = yaml.safe_load(text)["spec"]
        [ray] = spec["containers"]
        mounts = {mount["name"]: mount for mount in ray["volumeMounts"]}
        assert all(mount["readOnly"] for mount in mounts.values())
        places = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"]}
        assert places == {name: mount["mountPath"] for name, mount in mounts.items()}

    def test_images_and_folders_are_those_of_the_kind_cluster(self, cpu: Rendered) -> None:
        told = variables(container(cpu.pods()["trierarch-operator"], "operator"))
        assert told["TRIERARCH_OPERATOR_ENGINE_IMAGE"] == ENGINE_TAG
        assert container(cpu.pods()["trierarch-gateway"], "gateway")["image"] == PLATFORM_TAG
        text = cpu.one("ConfigMap", "engine")["data"]["pod-template.yaml"]
        assert ON_NODES in set(re.findall(r"/trierarch/[a-z]+", text))
        example = yaml.safe_load((EXAMPLES / "model-deployment.yaml").read_text())
        source = example["spec"]["model"]["source"]
        assert source.removeprefix("file://").rpartition("/")[0] == MODELS_ON_NODES


def test_notes_give_the_next_command(helm: Helm) -> None:
    notes = helm.run("install", RELEASE, CHART, "--dry-run=client", "--namespace", NAMESPACE)
    assert f"kubectl exec -n {NAMESPACE} deployment/trierarch-gateway" in notes
    assert "keys create --tenant default" in notes
    assert f"kubectl port-forward -n {NAMESPACE} service/trierarch-gateway 8080:8080" in notes
