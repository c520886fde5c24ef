"""The machine's kernel settings, to prove that a cluster changes none of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_FOLDERS = ("vm", "kernel", "fs", "net")

_MOVING = (
    "random", "ns_last_pid", "pty/nr", "dentry-state", "file-nr", "inode-nr", "inode-state",
    "aio-nr", "dentry-negative", "stat_refresh", "route/flush", "nf_conntrack_count",
    "sched_domain", "net/ipv4/conf/", "net/ipv4/neigh/", "net/ipv6/conf/", "net/ipv6/neigh/",
    "kernel/perf_event_max_sample_rate", "quota",
)  # fmt: skip
"""Counters, and what exists once per interface."""


def read_settings() -> dict[str, str]:
    """Return every readable kernel setting that does not move by itself."""
    found = {}
    for folder in _FOLDERS:
        # Unlike Path.rglob this goes on when the folder of an interface is gone meanwhile.
        for parent, _, files in os.walk(Path("/proc/sys", folder)):
            for path in (Path(parent, file) for file in files):
                name = str(path.relative_to("/proc/sys"))
                if any(part in name for part in _MOVING):
                    continue
                try:
                    found[name] = path.read_text(errors="replace")
                except OSError:
                    continue
    return found


def find_changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return each setting that differs, with its value before and after."""
    return {
        name: (value, after[name])
        for name, value in before.items()
        if name in after and after[name] != value
    }
