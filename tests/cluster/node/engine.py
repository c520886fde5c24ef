"""A Docker engine in namespaces of its own: one process to end, and nothing of it is left.

The engine belongs to no service. It is found by a mark in its environment, not by a file that a
crash could leave behind or leave out.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.lock_file import locked
from tests.cluster.node.addresses import Network, find_taken, pick_network
from tests.cluster.node.control_groups import remove_control_groups
from tests.cluster.node.limits import lacks_resource_capability, raise_limit, restore_limit
from tests.cluster.node.place import Place, write_json
from tests.cluster.node.work import ClusterFailure, Work

MARK = "TRIERARCH_KIND_ENGINE"
"""Environment variable of the engine's outermost process; its value is the cluster's name."""

START_SECONDS = 60.0
"""An engine with an empty data folder answers within 5 s here."""

_HERE = Path(__file__).parent

_ADDRESSES = "addresses.lock"
"""Held by whoever picks addresses or changes the machine's limit, in the shared cache folder."""

_OTHERS = "the start or end of another engine"
"""What the holder of that lock is doing."""

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Engines that this process has started, to be asked about when they have ended."""
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        place: The cluster it is for.
        pid: Of the first process inside its namespaces.
        network: Its addresses.
    """

    place: Place
    pid: int
    network: Network

    @property
    def environment(self) -> dict[str, str]:
        """What lets docker and kind find the engine."""
        programs = self.place.state / "bin"
        return {
            # A path through the process, because the socket lies in its namespace.
            "DOCKER_HOST": f"unix:///proc/{self.pid}/root/run/docker.sock",
            "DOCKER_CONFIG": str(self.place.state / "docker"),
            "KIND_EXPERIMENTAL_PROVIDER": "docker",
            "PATH": f"{programs}:{os.environ['PATH']}",
        }

    def docker(self, *arguments: str, timeout_seconds: float = 120.0) -> str:
        """Run a docker command and return what it printed.

        Raises:
            ClusterFailure: If it fails.
        """
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
        if done.returncode != 0:
            raise ClusterFailure(f"docker {' '.join(arguments[:3])} failed: {done.stderr.strip()}")
        return done.stdout

    def enter(self, *command: str) -> str:
        """Run a command of the engine's packages in its mounts and network."""
        entry = ["nsenter", "-t", str(self.pid), "-m", "-n", "--", *command]
        done = subprocess.run(entry, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterFailure(f"{command[0]} failed: {done.stderr.strip()}")
        return done.stdout


def find_engine_processes(name: str | None) -> list[int]:
    """Return the outermost process of each engine with a cluster's name; None means any."""
    mark = f"{MARK}={name or ''}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            program = Path(f"/proc/{pid}/comm").read_text().strip()
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        marks = [word for word in environment if word.startswith(mark)]
        if program == "unshare" and (mark in marks or (name is None and marks)):
            found.append(int(pid))
    return found


def find_engine(place: Place) -> Engine | None:
    """Return the running engine of a cluster, or None."""
    note = place.state / "network.json"
    processes = find_engine_processes(place.name)
    if len(processes) != 1 or not note.exists():
        return None
    inner = _find_child(processes[0])
    if inner is None:
        return None
    whole = ipaddress.IPv4Network(json.loads(note.read_text())["whole"])
    return Engine(place, inner, Network(whole))


def start_engine(
    work: Work, root: Path, *, ends_with_this_process: bool, registry: str = ""
) -> Engine:
    """Start an engine with an empty data folder and a link to the machine.

    Args:
        work: Progress and log.
        root: Folder of the engine's packages.
        ends_with_this_process: Whether a kill of this process ends the engine too.
        registry: Address to pull the public images from; without one nothing can be pulled.

    Raises:
        ClusterFailure: If it does not answer.
    """
    place = work.place
    place.state.mkdir(parents=True, exist_ok=True)
    with work.step("Starting a Docker engine in namespaces of its own") as step:
        # Held until the link exists, so that two starts never pick the same addresses.
        with locked(place.cache / _ADDRESSES, work.stream, _OTHERS):
            network = pick_network(find_taken())
            write_json(place.state / "network.json", {"whole": str(network.whole)})
            write_json(place.state / "dockerd.json", _configure(place, network, registry))
            raise_limit(place.cache)
            outer = _spawn(place, root, ends_with_this_process)
            inner = _wait_for_child(outer)
            _link(place, network, inner)
        engine = Engine(place, inner, network)
        began_seconds = time.monotonic()
        while True:
            step.tick()
            try:
                engine.docker("version", timeout_seconds=10.0)
                break
            except (ClusterFailure, subprocess.TimeoutExpired) as failure:
                if outer.poll() is not None or time.monotonic() - began_seconds > START_SECONDS:
                    tail = (place.state / "engine.log").read_text(errors="replace")[-1500:]
                    raise ClusterFailure(f"the engine does not answer\n{tail}") from failure
                time.sleep(0.2)
        _join(engine)
    return engine


def stop_engine(place: Place) -> None:
    """End a cluster's engine and with it every node, mount and interface; delete its folder."""
    for pid in find_engine_processes(place.name):
        os.kill(pid, signal.SIGKILL)
        if pid in _children:
            _children[pid].wait()
        while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
            time.sleep(0.05)
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]
    remove_control_groups(place.name)
    # The kernel removes it too, but on a busy machine later.
    link = ["ip", "link", "delete", interface_name(place.name)]
    if Path("/sys/class/net", link[-1]).exists():
        subprocess.run(link, capture_output=True, check=False)
    with locked(place.cache / _ADDRESSES, sys.stdout, _OTHERS):
        if not find_engine_processes(None):
            restore_limit(place.cache)
    if place.state.exists():
        shutil.rmtree(place.state)


def _configure(place: Place, network: Network, registry: str) -> Mapping[str, object]:
    configuration: dict[str, object] = {
        "data-root": str(place.state / "engine"),
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "hosts": ["unix:///run/docker.sock"],
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "storage-driver": "overlay2",
        "bip": str(network.builds),
        "features": {"buildkit": True},
        "registry-mirrors": [registry] if registry else [],
    }
    if lacks_resource_capability():
        configuration["runtimes"] = {"eased": {"path": str(_HERE / "runc.sh")}}
        configuration["default-runtime"] = "eased"
    return configuration


def _spawn(place: Place, root: Path, ends_with_this_process: bool) -> subprocess.Popen[bytes]:
    programs = place.state / "bin"
    programs.mkdir(exist_ok=True)
    docker = programs / "docker"
    docker.unlink(missing_ok=True)
    found = root / "usr/bin/docker"
    docker.symlink_to(found if found.exists() else "/usr/bin/docker")
    tini = next(p for p in (root / "usr/bin/tini", Path("/usr/bin/tini")) if p.exists())
    command = ["unshare", "-m", "-n", "-u", "-i", "-C", "-p", "--fork", "--mount-proc"]
    command += ["--kill-child", str(tini), "-s", "--", "bash", str(_HERE / "inside.sh")]
    command += [str(root), str(place.state), place.name]
    with (place.state / "engine.log").open("ab") as log:
        outer = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "HOME": "/root", MARK: place.name},
            preexec_fn=functools.partial(_prepare, ends_with_this_process),
        )
    _children[outer.pid] = outer
    return outer


def _prepare(ends_with_this_process: bool) -> None:
    if ends_with_this_process:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _find_child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _wait_for_child(outer: subprocess.Popen[bytes]) -> int:
    while outer.poll() is None:
        inner = _find_child(outer.pid)
        if inner is not None:
            return inner
        time.sleep(0.02)
    raise ClusterFailure("the kernel refuses namespaces of their own (unshare failed)")


def _link(place: Place, network: Network, inner: int) -> None:
    """Connect the machine and the engine by a pair of interfaces, which ends with the engine."""
    name = interface_name(place.name)
    _ip("link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", str(inner))
    _ip("address", "add", f"{network.host}/30", "dev", name)
    _ip("link", "set", name, "up")
    _ip("route", "add", str(network.nodes), "via", str(network.engine), "onlink", "dev", name)
    inside = ["nsenter", "-t", str(inner), "-n", "ip"]
    subprocess.run([*inside, "link", "set", "uplink", "up"], check=True)
    address = [*inside, "address", "add", f"{network.engine}/30", "dev", "uplink"]
    subprocess.run(address, check=True)


def _join(engine: Engine) -> None:
    """Let the machine reach the nodes directly; the engine's rules would drop that."""
    engine.enter("iptables", "-I", "DOCKER-USER", "-i", "uplink", "-j", "ACCEPT")
    subnet = str(engine.network.nodes)
    engine.docker("network", "create", "--driver", "bridge", "--subnet", subnet, "kind")


def interface_name(cluster: str) -> str:
    """Return the name of a cluster's interface on the machine, at most 15 characters."""
    return f"tri-{cluster.rpartition('-')[2]}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterFailure(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
