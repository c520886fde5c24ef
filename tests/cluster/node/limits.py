"""What the machine grants, and its one setting that nodes need higher.

The setting is raised while engines run, then put back.

Every systemd, kubelet and containerd of every node watches files, and all of them count as one
user's. What it was is noted before it is changed, so that the next start or end after a crash
puts it back.
"""

from __future__ import annotations

from pathlib import Path

SETTING = Path("/proc/sys/fs/inotify/max_user_instances")

NEEDED = 1024
"""One cluster of three nodes takes about 60."""

_CAP_SYS_RESOURCE = 24
"""From ``linux/capability.h``."""

SETTING_NAME = "fs/inotify/max_user_instances"
"""As ``settings.read_settings`` calls it."""


def lacks_resource_capability() -> bool:
    """Whether this root may not raise limits, as in some virtual machines."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return not int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1
    return True


def raise_limit(cache: Path, setting: Path = SETTING) -> None:
    """Raise the limit if it is too low, and note what it was."""
    note = _note(cache)
    current = setting.read_text().strip()
    if int(current) >= NEEDED:
        return
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_suffix(".partial")
        partial.write_text(current)
        partial.replace(note)
    setting.write_text(f"{NEEDED}\n")


def restore_limit(cache: Path, setting: Path = SETTING) -> None:
    """Put the limit back if it was raised here and nobody has changed it since."""
    note = _note(cache)
    if not note.exists():
        return
    if int(setting.read_text()) == NEEDED:
        setting.write_text(f"{note.read_text().strip()}\n")
    note.unlink()


def _note(cache: Path) -> Path:
    return cache / "inotify-instances"
