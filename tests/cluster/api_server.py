"""What a test needs of an API server, whether this harness started it or the user named it."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Iterator
from pathlib import Path

from kubernetes import client, config
from tests.cluster.api_tier import ApiTier, wait_until
from tests.cluster.kubeconfig import write_kubeconfig

TOKEN_SECONDS = 3600
"""Longer than any run of the tests."""


@dataclasses.dataclass(frozen=True)
class ApiServer:
    """A cluster's API server, seen by an administrator.

    Attributes:
        kubeconfig: The administrator's; ``kubectl``, ``helm`` and kopf take it too.
        tier: The API tier it belongs to; None if it is a cluster that was there already.
        scratch: Where kubeconfigs are written.
    """

    kubeconfig: Path
    scratch: Path
    tier: ApiTier | None = None

    def require_alive(self) -> None:
        """Raise `ClusterError` with a log's end if a process of its own tier has ended."""
        if self.tier is not None:
            self.tier.require_alive()

    @contextlib.contextmanager
    def connect(self, kubeconfig: Path | None = None) -> Iterator[client.ApiClient]:
        """Yield a client for the Python library's API classes.

        Args:
            kubeconfig: Who asks; the administrator when left out.
        """
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig or self.kubeconfig), client_configuration=settings)
        with client.ApiClient(settings) as connection:
            yield connection

    @contextlib.contextmanager
    def new_namespace(self, prefix: str = "test") -> Iterator[str]:
        """Make a namespace and delete it at the end, with everything in it.

        The deletion is not waited for: the next namespace has another name. Nothing that runs in
        the namespace may outlast the block: nobody else lets go of what has finalizers.
        """
        name = f"{prefix}-{secrets.token_hex(4)}"
        with self.connect() as connection:
            core = client.CoreV1Api(connection)
            core.create_namespace({"metadata": {"name": name}})
            try:
                # Pods are refused until the namespace has its service account.
                wait_until(lambda: _has_service_account(core, name), f"namespace {name}")
                yield name
            finally:
                _remove_finalizers(connection, name)
                core.delete_namespace(name)

    def service_account_kubeconfig(self, namespace: str, service_account: str) -> Path:
        """Write a kubeconfig with which one acts as a service account, and return its path.

        This is how a test runs an operator with no more rights than its chart gives it.
        """
        with self.connect() as connection:
            request = {"spec": {"audiences": [], "expirationSeconds": TOKEN_SECONDS}}
            answer = client.CoreV1Api(connection).create_namespaced_service_account_token(
                service_account, namespace, request
            )
            settings = connection.configuration
            authority = Path(settings.ssl_ca_cert).read_bytes()
        return write_kubeconfig(
            self.scratch / f"{namespace}-{service_account}-{secrets.token_hex(4)}.kubeconfig",
            server=settings.host,
            authority=authority,
            token=answer.status.token,
            namespace=namespace,
        )


def _has_service_account(core: client.CoreV1Api, namespace: str) -> bool:
    listing = core.list_namespaced_service_account(namespace)
    return any(account.metadata.name == "default" for account in listing.items)


def _remove_finalizers(connection: client.ApiClient, namespace: str) -> None:
    """Let all custom objects of a namespace go, whose operator has ended with its test.

    Else their namespace never ends, and the controller manager deletes it again and again: a dozen
    of them took a third of a core from all later tests.
    """
    definitions = client.ApiextensionsV1Api(connection).list_custom_resource_definition().items
    custom = client.CustomObjectsApi(connection)
    for definition in definitions:
        if definition.spec.scope != "Namespaced":
            continue
        group, plural = definition.spec.group, definition.spec.names.plural
        [version] = [each.name for each in definition.spec.versions if each.storage]
        where = (group, version, namespace, plural)
        found = []
        # What goes by itself meanwhile, definition or object, is as good as gone.
        with contextlib.suppress(client.exceptions.NotFoundException):
            found = custom.list_namespaced_custom_object(*where)["items"]
        for each in found:
            if each["metadata"].get("finalizers"):
                change = {"metadata": {"finalizers": None}}
                with contextlib.suppress(client.exceptions.NotFoundException):
                    name = each["metadata"]["name"]
                    custom.patch_namespaced_custom_object(*where, name, change)
