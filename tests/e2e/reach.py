"""Who may reach what of a release: its network policies, as the nodes enforce them."""

from __future__ import annotations

import json

from tests.e2e.release import RELEASE, Release

STRANGER = "stranger"
"""A pod in the release's own namespace that is nothing of it."""

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": STRANGER},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": STRANGER,
                "image": "python:3.11-slim-bookworm",
                "command": ["sleep", "3600"],
            }
        ],
    },
}

_CONNECT = """
import concurrent.futures, socket, sys
def reaches(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except TimeoutError:
        return False
    return True
with concurrent.futures.ThreadPoolExecutor() as pool:
    for target, reached in zip(sys.argv[1:], pool.map(reaches, sys.argv[1:])):
        if reached:
            print(target)
"""
"""A forbidden packet is dropped. Any other failure, such as a closed port, ends the program."""

_LIST = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


def expect_policies_to_hold(release: Release) -> None:
    """Connect to every part from those that may, and from a pod that may not."""
    release.kubectl("apply", "--filename", "-", stdin=json.dumps(POD))
    operator, database = f"{RELEASE}-operator:8081", f"{RELEASE}-postgresql:5432"
    gateway = release.address_of("gateway")
    data, admin = f"{gateway}:8080", f"{gateway}:9090"
    listing = json.loads(run(release, "gateway", _LIST, f"http://{operator}/replicas"))
    engines = [f"{one['host']}:{one['port']}" for one in listing["replicas"]]
    assert len(engines) == 2, listing
    assert reached(release, "gateway", database, operator, *engines) == {
        database,
        operator,
        *engines,
    }
    assert reached(release, "operator", admin, database) == {admin, database}
    release.kubectl("wait", "--for=condition=Ready", f"pod/{STRANGER}", "--timeout=60s")
    targets = (data, admin, database, operator, *engines)
    assert reached(release, STRANGER, *targets) == {data}
    release.kubectl("delete", "pod", STRANGER, "--wait=false")


def reached(release: Release, who: str, *targets: str) -> set[str]:
    """Return to which of some addresses a component or the stranger can connect."""
    return set(run(release, who, _CONNECT, *targets).split())


def run(release: Release, who: str, program: str, *arguments: str) -> str:
    """Run a Python program in a pod of a component, or in the stranger."""
    pod = STRANGER if who == STRANGER else f"deployment/{RELEASE}-{who}"
    return release.kubectl(
        *("exec", pod, "--container", who, "--", "python3", "-c", program, *arguments)
    )
