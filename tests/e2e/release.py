"""A release of the chart on real nodes, as those who run and use it reach it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import openai
import yaml
from tests.chart.chart import EXAMPLES
from tests.cluster.node.fixtures import KindCluster, wait_for

RELEASE = "trierarch"

MODEL, TENANT = "pocket", "default"
"""Of the examples: the ModelDeployment and what it serves, and who asks it."""

COMPONENTS = ("gateway", "operator", "postgresql")
"""Of a release; each has one pod, with a container of the same name."""

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
"""The label and the taint of the node that no test kills."""

ROLE = "trierarch.dev/role"


@dataclasses.dataclass(frozen=True)
class Release:
    """A release in a namespace of its own.

    Attributes:
        cluster: Where.
        namespace: Of the release and of its models.
    """

    cluster: KindCluster
    namespace: str

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace and return what it printed."""
        where = ("--namespace", self.namespace)
        return self.cluster.kubectl(*where, *arguments, stdin=stdin, check=check)

    def apply_examples(self) -> None:
        """Apply ``docs/examples``, with two groups from the start, on two nodes if it can be."""
        apart = {
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {ROLE: "engine"}},
            },
        }
        affinity = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}}
        for file in sorted(EXAMPLES.glob("*.yaml")):
            document = yaml.safe_load(file.read_text())
            if document["kind"] == "ModelDeployment":
                document["spec"]["variants"][0]["minReplicas"] = 2
                document["spec"]["podTemplate"] = {"spec": {"affinity": affinity}}
            self.kubectl("apply", "--filename", "-", stdin=json.dumps(document))

    def change(self, source: str | None = None, **fields: Any) -> None:
        """Change where the model deployment's model comes from, and fields of its variant."""
        places = {f"/spec/variants/0/{name}": value for name, value in fields.items()}
        if source is not None:
            places["/spec/model/source"] = source
        patch = [{"op": "replace", "path": path, "value": value} for path, value in places.items()]
        self.kubectl(*("patch", "modeldeployment", MODEL, "--type=json", "-p", json.dumps(patch)))

    def get(self, *arguments: str) -> Any:
        """Return what ``kubectl get`` finds in the namespace."""
        return self.cluster.get("--namespace", self.namespace, *arguments)

    def explain(self) -> str:
        """Return what an SRE would look at first."""
        logs = [
            self.kubectl(
                *("logs", "--all-containers", "--prefix", "--tail=20"),
                *("--selector", f"app.kubernetes.io/component={component}"),
                check=False,
            )
            for component in COMPONENTS
        ]
        pods = self.kubectl("get", "pods", "--output", "wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        models = self.kubectl("describe", "modeldeployments", check=False)
        return "\n".join([pods, events[-4000:], models, *logs])

    def ready_pods(self, component: str) -> int:
        """Return how many ready pods a component has."""
        selector = f"app.kubernetes.io/component={component}"
        return sum(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in self.get("pods", "--selector", selector)["items"]
            for condition in pod["status"].get("conditions", ())
        )

    def trierarch(self, *arguments: str) -> str:
        """Run the command line where the chart's notes do."""
        command = ("python", "-m", "trierarch.cli.main", *arguments)
        gateway = f"deployment/{RELEASE}-gateway"
        return self.kubectl("exec", gateway, "-c", "gateway", "--", *command)

    def make_key(self, tenant: str = TENANT) -> str:
        """Return a new API key."""
        return self.trierarch("keys", "create", "--tenant", tenant).strip()

    def report(self) -> dict[str, Any]:
        """Return what the ledger says of tenants."""
        found: dict[str, Any] = json.loads(self.trierarch("report", "--by", "tenant", "--json"))
        return found

    @property
    def url(self) -> str:
        """The gateway's Service at a node's own address, which stays when pods go."""
        [port] = self.get(self._gateway)["spec"]["ports"]
        nodes = self.cluster.get("nodes", f"--selector={CONTROL_PLANE}")
        [node] = nodes["items"]
        [host] = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
        return f"http://{host}:{port['nodePort']}"

    def kill(self, component: str) -> float:
        """End a component by SIGKILL and return how long it took to be ready again."""
        selector = f"app.kubernetes.io/component={component}"

        def look() -> tuple[dict[str, Any], dict[str, Any]]:
            [pod] = self.get("pods", "--selector", selector)["items"]
            [container] = pod["status"]["containerStatuses"]
            return pod, container

        pod, before = look()
        self.cluster.faults.kill_container(pod["spec"]["nodeName"], before["containerID"])

        def is_back() -> bool:
            now = look()[1]
            return bool(now["ready"]) and now["restartCount"] > before["restartCount"]

        return wait_for(is_back, 120, 0.5, self.explain)

    def address_of(self, component: str) -> str:
        """Return the address of a component's only pod."""
        selector = f"app.kubernetes.io/component={component}"
        [pod] = self.get("pods", "--selector", selector)["items"]
        return str(pod["status"]["podIP"])

    def nodes_of(self, role: str) -> set[str]:
        """Return the nodes with running Ray pods of a role, ``head`` or ``engine``."""
        pods = self.get("pods", "--selector", f"{ROLE}={role}")["items"]
        return {pod["spec"]["nodeName"] for pod in pods if pod["status"]["phase"] == "Running"}

    def clusters(self) -> set[str]:
        """Return the names of the Ray clusters."""
        return {one["metadata"]["name"] for one in self.get("rayclusters")["items"]}

    def events(self, reason: str) -> list[str]:
        """Return what was said of the model deployment for a reason."""
        found = self.get("events", "--field-selector", f"reason={reason}")["items"]
        return [one.get("note") or one.get("message", "") for one in found]

    def list_models(self, key: str) -> list[str]:
        """Return the models that the gateway's Service names."""
        with (
            self.cluster.port_forward(self._gateway, 8080, self.namespace) as port,
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key) as client,
        ):
            return [model.id for model in client.models.list()]

    def knows(self, key: str) -> bool:
        """Whether the gateway takes a key."""
        try:
            self.list_models(key)
        except openai.AuthenticationError:
            return False
        return True

    def ask(self, key: str, question: str) -> tuple[str, Any]:
        """Return a streamed answer and its usage, through the gateway's Service."""
        with (
            self.cluster.port_forward(self._gateway, 8080, self.namespace) as port,
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key) as client,
        ):
            stream = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": question}],
                max_tokens=24,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = list(stream)
        words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        return "".join(words), chunks[-1].usage

    def status(self) -> dict[str, Any]:
        """Return the model deployment's status."""
        found: dict[str, Any] = self.get("modeldeployment", MODEL).get("status", {})
        return found

    @property
    def _gateway(self) -> str:
        return f"service/{RELEASE}-gateway"
