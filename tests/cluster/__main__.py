"""Start a test cluster by hand: ``python -m tests.cluster up-api``.

It runs in the foreground until Ctrl-C, and nothing is left of it afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from pathlib import Path

from kubernetes import client
from tests.cluster.accelerator_nodes import CAPACITY_TYPES, AcceleratorNodes, simulated_kubelets
from tests.cluster.api_server import ApiServer
from tests.cluster.api_tier import running_api_tier
from tests.cluster.build import BuildError
from tests.cluster.run_folder import ClusterError, RunProcess
from tests.cluster.tool_modules import binary_path

WATCH_SECONDS = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    # A request to end is like Ctrl-C: both leave the blocks below in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _up_api(options)
    except (BuildError, ClusterError) as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ended; nothing is left of it", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description="Start a test cluster by hand."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up_api = commands.add_parser(
        "up-api",
        help="a real API server with simulated nodes, until Ctrl-C",
        description="Start etcd, an API server, a controller manager and a scheduler on loopback, "
        "and run until Ctrl-C. The first start builds them from source (minutes).",
    )
    up_api.add_argument("--nodes", type=int, default=0, metavar="N", help="simulated nodes to add")
    up_api.add_argument("--accelerator", default="H200", help="of each node (default: H200)")
    up_api.add_argument(
        "--per-node", type=int, default=8, metavar="N", help="accelerators on a node (default: 8)"
    )
    up_api.add_argument("--capacity-type", choices=list(CAPACITY_TYPES), default="OnDemand")
    up_api.add_argument("--zone", default="zone-a", help="of each node (default: zone-a)")
    up_api.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="put the administrator's kubeconfig here"
    )
    return parser


def _up_api(options: argparse.Namespace) -> None:
    """Run an API tier with the nodes asked for until this process is interrupted."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print("starting the API tier ...", file=sys.stderr, flush=True)
        tier = stack.enter_context(running_api_tier())
        server = ApiServer(tier.admin_kubeconfig, scratch, tier)
        kubeconfig = tier.admin_kubeconfig
        if options.kubeconfig is not None:
            kubeconfig = options.kubeconfig.absolute()
            kubeconfig.touch(mode=0o600)
            kubeconfig.write_bytes(tier.admin_kubeconfig.read_bytes())
            stack.callback(kubeconfig.unlink, missing_ok=True)
        kubelets: RunProcess | None = None
        if options.nodes:
            kubelets = stack.enter_context(simulated_kubelets(server))
            connection = stack.enter_context(server.connect())
            AcceleratorNodes(client.CoreV1Api(connection), kubelets)(
                options.nodes,
                accelerator=options.accelerator,
                per_node=options.per_node,
                capacity_type=options.capacity_type,
                zone=options.zone,
            )
        print(f"export KUBECONFIG={kubeconfig}", flush=True)
        print(
            f"ready; try `{binary_path('kubectl')} get nodes`. Ctrl-C ends it.",
            file=sys.stderr,
            flush=True,
        )
        while True:
            tier.require_alive()
            if kubelets is not None:
                kubelets.require_alive()
            time.sleep(WATCH_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
