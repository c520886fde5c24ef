"""``make kind``, ``make cluster-status`` and ``make cluster-down``."""

from __future__ import annotations

import argparse
import sys

from tests.cluster.__main__ import main as run_tier
from tests.cluster.go_command import BuildError
from tests.cluster.node.access import kubectl, list_nodes
from tests.cluster.node.cluster import PulledImages, bring_up, take_down
from tests.cluster.node.engine import find_engine
from tests.cluster.node.place import find_place
from tests.cluster.node.situation import find_situation
from tests.cluster.node.work import ClusterFailure, Work

NEXT = """
Try next:
  kubectl apply -f deploy/examples/rayservice.yaml
  kubectl get rayservice pocket -w            # about two minutes until it is Running
  kubectl port-forward service/pocket-serve-svc 8000
  curl localhost:8000/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "pocket", "messages": [{"role": "user", "content": "What is 2+2?"}]}'
  make cluster-down                           # deletes all of it

In this shell:
"""


def main() -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="make", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring the cluster up (make kind)")
    commands.add_parser("status", help="say how it is; exit code 1 if it is not up")
    commands.add_parser("down", help="delete it and all that belongs to it")
    for command in commands.choices.values():
        command.add_argument(
            "--name", default="", help="a further cluster of this checkout, by any word"
        )
    for option, image in (
        ("--node-image", "kind's node image"),
        ("--base-image", "the image that deploy/images builds on"),
    ):
        up.add_argument(option, default="", help=f"pull this instead of {image}")
    arguments = parser.parse_args()
    work = Work(find_place(arguments.name))
    try:
        if arguments.command == "up":
            return _up(work, PulledImages(arguments.node_image, arguments.base_image))
        return {"status": _status, "down": _down}[arguments.command](work)
    except (ClusterFailure, BuildError) as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: `make kind` goes on from here, `make cluster-down` cleans up")
        return 130


def _up(work: Work, pulled: PulledImages) -> int:
    situation = find_situation()
    if situation.kind == "api-tier-only":
        print(situation.sentence)
        return run_tier(["up-api", "--nodes", "2"])
    environment = bring_up(work, pulled=pulled)
    print(kubectl(work.place, "get", "nodes"), end="")
    print(NEXT, end="")
    for name, value in environment.items():
        print(f"export {name}={value}")
    return 0


def _status(work: Work) -> int:
    place = work.place
    print(find_situation().sentence)
    engine = find_engine(place)
    where = f"engine: process {engine.pid}, network {engine.network.whole}" if engine else ""
    print(f"cluster {place.name}: {where or 'no engine of its own'}")
    nodes = list_nodes(place)
    print(kubectl(place, "get", "nodes", "--output", "wide"), end="")
    print(kubectl(place, "get", "pods", "--all-namespaces"), end="")
    print(f"export KUBECONFIG={place.kubeconfig}\nexport PATH={place.programs}:$PATH")
    return 0 if nodes and all(nodes.values()) else 1


def _down(work: Work) -> int:
    take_down(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
