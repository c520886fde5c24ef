"""Where the ranks of a group meet."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from trierarch.serving import expert_group
from trierarch.serving.expert_group import choose_rendezvous


@pytest.fixture(autouse=True)
def this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_group, "get_node_ip_address", lambda: "127.0.0.1")


def test_ranks_meet_at_ports_that_no_outgoing_connection_is_given() -> None:
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not given.exists():
        pytest.skip("only Linux tells which ports it gives to outgoing connections")
    lowest = int(given.read_text().split()[0])
    meeting = choose_rendezvous()
    assert meeting.address == "127.0.0.1"
    assert 19999 < meeting.port < meeting.first_group_port
    assert meeting.first_group_port + 4 < lowest


def test_a_port_that_somebody_listens_at_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = choose_rendezvous().port
    monkeypatch.setattr(expert_group, "_QUIET_PORTS", range(first, first + 7))
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
        other.listen()
        assert choose_rendezvous().port == first + 1


def test_no_free_ports_are_an_error_that_names_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = int(other.getsockname()[1])
        monkeypatch.setattr(expert_group, "_QUIET_PORTS", range(taken - 3, taken + 4))
        with pytest.raises(RuntimeError, match=str(taken - 3)):
            choose_rendezvous()
