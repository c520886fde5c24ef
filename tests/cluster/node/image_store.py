"""Images on the nodes: unpacked once per cluster, then shared by all nodes through hard links.

Each node would else read, check and unpack the same gigabyte. containerd never changes a file
that it has stored, but for its databases, so those alone are copied for each node.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.cluster.node.engine import Engine
from tests.cluster.node.environment import Mount
from tests.cluster.node.node_image import TAG
from tests.cluster.node.work import Work

ON_NODES = "/var/lib/containerd"

_IMPORT = """
set -euo pipefail
printf 'version = 2\\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\\n' >/run/import.toml
containerd --config /run/import.toml --log-level warn &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for archive in /archives/*.tar; do ctr --namespace k8s.io images import "$archive"; done
kill %1
wait
"""

_SHARE = """
set -euo pipefail
cp --archive --link "$1" "$2"
cd "$1"
find . -name '*.db' -exec cp --archive --remove-destination {} "$2/{}" ';'
"""


def fill_stores(
    work: Work, engine: Engine, archives: Sequence[Path], nodes: int
) -> Sequence[Mount]:
    """Unpack archives into a store for each node; return each node's mount.

    Args:
        work: Progress and log.
        engine: Has the node image, whose containerd unpacks.
        archives: Of the images that nodes shall have.
        nodes: How many stores.
    """
    # Hard links need one file system, which the engine's data lies on too.
    folder = work.place.state / "engine" / "stores"
    unpacked = folder / "unpacked"
    with work.step("Unpacking images for the nodes") as step:
        run = ["docker", "run", "--rm", "--privileged", "--network", "none", "--entrypoint", "bash"]
        for number, archive in enumerate(archives):
            run += ["--volume", f"{archive}:/archives/{number}.tar:ro"]
        run += ["--volume", f"{unpacked}:{ON_NODES}", TAG, "-c", _IMPORT]
        work.run(step, run, engine.environment)
        stores = [folder / str(number) for number in range(nodes)]
        for store in stores:
            engine.enter("bash", "-c", _SHARE, "share", str(unpacked), str(store))
    return [{"hostPath": str(store), "containerPath": ON_NODES} for store in stores]
