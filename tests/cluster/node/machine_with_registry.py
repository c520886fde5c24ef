"""A machine with Docker and a registry, made where there is neither, for one command.

    python -m tests.cluster.node.machine_with_registry COMMAND ...

The command finds what it would find on such a machine: ``docker`` on its path, an engine behind
the usual socket, and images that this engine pulls by their public names. What stands behind the
names is made here, so the digests are not the published ones. Everything ends with the command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.go_command import BuildError
from tests.cluster.node import engine as engines
from tests.cluster.node import packages
from tests.cluster.node.cluster import TOOLS, build_tools
from tests.cluster.node.images import BASE_PACKAGES, BASE_TAG, DATABASE_PACKAGES, make_archives
from tests.cluster.node.images import KUBERNETES_VERSION as VERSION
from tests.cluster.node.node_image import PACKAGES as NODE_PACKAGES
from tests.cluster.node.node_image import TAG, make_node_image
from tests.cluster.node.place import CHECKOUT, find_place
from tests.cluster.node.work import ClusterFailure, Work

NODE_IMAGE = f"kindest/node:{VERSION}"

REGISTRY = "127.0.0.1:5000"
"""In the engine's own network."""

PROXY_PORT = 8888
"""On the machine's end of the link: builds reach the package indexes through it and nothing else
does."""

START_SECONDS = 30.0

_IMPORT = """
set -euo pipefail
containerd --log-level warn &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
ctr --namespace k8s.io images import --no-unpack /archive.tar >/dev/null
kill %1
wait
"""
"""As kind's own images are made: the nodes unpack what they run."""

_BASE = f"""
FROM {BASE_TAG}
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY apt.conf /etc/apt/apt.conf.d/proxy
COPY pip.conf /etc/pip.conf
COPY uv.toml /etc/uv/uv.toml
"""


def main(command: Sequence[str]) -> int:
    """Run one command on such a machine and return its exit code."""
    work = Work(find_place("machine-with-registry"))
    try:
        with machine(work) as engine:
            return subprocess.run([*enter(engine), *command], check=False).returncode
    except (ClusterFailure, BuildError) as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def machine(work: Work) -> Iterator[engines.Engine]:
    """Run the engine, the registry with its images and the proxy."""
    place = work.place
    engines.stop_engine(place)
    try:
        build_tools(work, TOOLS)
        wanted = (*packages.PACKAGES, "docker-registry", "tinyproxy")
        root = packages.make_engine_root(work, wanted)
        node_system = packages.make_system(work, root, "node", NODE_PACKAGES)
        node_image = make_node_image(work, node_system)
        base_system = packages.make_system(work, root, "base", BASE_PACKAGES)
        database = packages.make_system(work, root, "database", DATABASE_PACKAGES)
        archives = make_archives(work, base_system, database)
        engine = engines.start_engine(
            work, root, ends_with_this_process=True, registry=f"http://{REGISTRY}"
        )
        with _running_registry(engine), _running_proxy(engine, root):
            _fill_registry(work, engine, node_image, archives.nodes, archives.base)
            yield engine
    finally:
        engines.stop_engine(place)


def enter(engine: engines.Engine) -> list[str]:
    """Return what runs a command in the engine's namespaces, in this checkout."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    script = f"cd '{CHECKOUT}' && exec env PATH={path}:'{os.environ['PATH']}' \"$@\""
    return ["nsenter", "-t", str(engine.pid), "-m", "-n", "-p", "--", "bash", "-c", script, "in"]


@contextlib.contextmanager
def _running_registry(engine: engines.Engine) -> Iterator[None]:
    folder = engine.place.state / "registry"
    folder.mkdir()
    settings = folder / "config.yml"
    settings.write_text(
        f"version: 0.1\nhttp: {{addr: '{REGISTRY}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}'}}}}\n"
    )
    with (folder / "log").open("w") as log:
        command = [*enter(engine), "docker-registry", "serve", str(settings)]
        registry = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            registry.kill()
            registry.wait()


@contextlib.contextmanager
def _running_proxy(engine: engines.Engine, root: Path) -> Iterator[None]:
    settings = engine.place.state / "tinyproxy.conf"
    settings.write_text(
        f"Listen {engine.network.host}\nPort {PROXY_PORT}\nTimeout 600\nMaxClients 100\n"
        f"Allow {engine.network.whole}\nConnectPort 443\nLogLevel Warning\n"
    )
    command = [str(root / "usr/bin/tinyproxy"), "-d", "-c", str(settings)]
    with (engine.place.state / "tinyproxy.log").open("w") as log:
        proxy = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            proxy.kill()
            proxy.wait()


def _fill_registry(
    work: Work, engine: engines.Engine, node_image: Path, inside_nodes: Path, base: Path
) -> None:
    """Put the images where the engine pulls the published ones from, and forget them."""
    with work.step("Filling the registry") as step:
        _wait_for_registry(engine)
        work.run(step, ["docker", "load", "--input", node_image], engine.environment)
        run = ["docker", "run", "--name", "filled", "--privileged", "--network", "none"]
        run += ["--volume", f"{inside_nodes}:/archive.tar:ro", "--entrypoint", "bash", TAG]
        work.run(step, [*run, "-c", _IMPORT], engine.environment)
        entry = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        commit = ["docker", "commit", "--change", entry, "--change", "CMD []", "filled"]
        work.run(step, [*commit, NODE_IMAGE], engine.environment)
        work.run(step, ["docker", "load", "--input", base], engine.environment)
        context = _write_base_context(engine)
        build = ["docker", "build", "--tag", BASE_TAG, str(context)]
        work.run(step, build, engine.environment)
        # What the product pulls to see whether there is a registry: any small image will do.
        small = ["docker", "build", "--tag", "hello-world", "--file", str(context / "small")]
        work.run(step, [*small, str(context)], engine.environment)
        for name in (NODE_IMAGE, BASE_TAG, "hello-world"):
            path = name if "/" in name else f"library/{name}"
            work.run(step, ["docker", "tag", name, f"{REGISTRY}/{path}"], engine.environment)
            work.run(step, ["docker", "push", f"{REGISTRY}/{path}"], engine.environment)
        forget = ["docker", "system", "prune", "--all", "--force", "--volumes"]
        work.run(step, forget, engine.environment)


def _write_base_context(engine: engines.Engine) -> Path:
    """Return what makes the base image reach the package indexes from this machine."""
    context = engine.place.state / "base-image"
    context.mkdir()
    (context / "Dockerfile").write_text(_BASE)
    (context / "small").write_text("FROM scratch\nCOPY pip.conf /\n")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
    proxy = f"http://{engine.network.host}:{PROXY_PORT}"
    (context / "apt.conf").write_text(f'Acquire::http::Proxy "{proxy}";\n')
    (context / "pip.conf").write_text(
        f"[global]\nproxy = {proxy}\ncert = /etc/ssl/certs/ca-certificates.crt\ntimeout = 180\n"
    )
    (context / "uv.toml").write_text(
        f'http-proxy = "{proxy}"\nhttps-proxy = "{proxy}"\nsystem-certs = true\n'
    )
    return context


def _wait_for_registry(engine: engines.Engine) -> None:
    deadline_seconds = time.monotonic() + START_SECONDS
    while True:
        try:
            engine.enter("bash", "-c", f"exec 3<>/dev/tcp/{REGISTRY.replace(':', '/')}")
            return
        except ClusterFailure as failure:
            if time.monotonic() > deadline_seconds:
                tail = (engine.place.state / "registry" / "log").read_text()[-1500:]
                raise ClusterFailure(f"the registry does not answer\n{tail}") from failure
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
