"""Pick the network of one cluster so that it meets no other and none of the machine's."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import subprocess
from collections.abc import Iterable

from tests.cluster.node.work import ClusterFailure

RANGE = ipaddress.IPv4Network("10.213.0.0/16")
"""Private addresses from which each cluster takes 256."""

NODE_NETWORKS = (str(RANGE), "172.16.0.0/12", "10.89.0.0/16")
"""Where nodes have their addresses: of an engine of our own, and by default Docker's, Podman's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """The addresses of one cluster.

    Attributes:
        whole: The part of ``RANGE`` that is this cluster's.
    """

    whole: ipaddress.IPv4Network

    @property
    def host(self) -> ipaddress.IPv4Address:
        """The machine's end of the link."""
        return self.whole[1]

    @property
    def engine(self) -> ipaddress.IPv4Address:
        """The engine's end of the link: where the API server answers."""
        return self.whole[2]

    @property
    def builds(self) -> ipaddress.IPv4Interface:
        """The engine's own bridge."""
        return ipaddress.IPv4Interface(f"{self.whole[65]}/26")

    @property
    def nodes(self) -> ipaddress.IPv4Network:
        """Where the nodes have their addresses, and so where NodePorts answer."""
        return list(self.whole.subnets(new_prefix=25))[1]


def pick_network(taken: Iterable[ipaddress.IPv4Network]) -> Network:
    """Return the first network that overlaps none of those taken.

    Raises:
        ClusterFailure: If there is none left.
    """
    known = list(taken)
    for candidate in RANGE.subnets(new_prefix=24):
        if not any(candidate.overlaps(network) for network in known):
            return Network(candidate)
    raise ClusterFailure(f"no part of {RANGE} is free: every one has a route on this machine")


def find_taken() -> list[ipaddress.IPv4Network]:
    """Return the networks that the machine has routes to or addresses in."""
    found = []
    for listing, key in ((["ip", "-j", "-4", "route"], "dst"), (["ip", "-j", "-4", "addr"], "")):
        answer = subprocess.run(listing, capture_output=True, text=True, check=True)
        for entry in json.loads(answer.stdout):
            names = [entry.get(key, "default")] if key else _addresses(entry)
            found += [ipaddress.ip_network(n, strict=False) for n in names if n != "default"]
    return [network for network in found if isinstance(network, ipaddress.IPv4Network)]


def _addresses(entry: dict[str, list[dict[str, object]]]) -> list[str]:
    return [f"{one['local']}/{one['prefixlen']}" for one in entry.get("addr_info", [])]
