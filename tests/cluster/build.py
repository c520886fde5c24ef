"""Build the test cluster's tools from pinned Go modules, because no binary is downloaded.

Each folder under ``tools`` is one Go module. A binary lies in the user's cache folder under the
hash of its ``go.mod`` and ``go.sum``, and appears there only when it is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs

TOOLS = Path(__file__).parent / "tools"
PACKAGES = {"etcd": "go.etcd.io/etcd/server/v3", "kind": "sigs.k8s.io/kind"}


class BuildError(RuntimeError):
    """A tool could not be built; the message says what to do."""


def binary_path(name: str, cache: Path | None = None) -> Path:
    """Return where the binary of the pinned tool lies once it is built."""
    folder = cache or Path(platformdirs.user_cache_dir("trierarch")) / "test-cluster"
    digest = hashlib.sha256()
    for pinned in ("go.mod", "go.sum"):
        digest.update((TOOLS / name / pinned).read_bytes())
    return folder / digest.hexdigest()[:16] / name


def find_go() -> str:
    """Return the Go command, from PATH or its usual folder."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise BuildError("no Go compiler found: install Go 1.26 or put its bin folder on PATH")
    return found


def build(name: str, cache: Path | None = None) -> Path:
    """Build one tool unless its binary is already in the cache."""
    if name not in PACKAGES:
        raise BuildError(f"unknown tool {name!r}: choose from {', '.join(PACKAGES)}")
    target = binary_path(name, cache)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / name
        command = ["env", "CGO_ENABLED=0", find_go(), "build", "-trimpath", "-mod=readonly"]
        command += ["-p", "1", "-ldflags", "-s -w", "-o", str(made), PACKAGES[name]]
        done = subprocess.run(  # a fixed command
            command, cwd=TOOLS / name, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BuildError(f"building {name} failed: {done.stderr.strip()[-2000:]}")
        made.replace(target)
    return target


def main() -> int:
    """Build the named tools, or all, and print the path of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.build", description=__doc__)
    parser.add_argument("command", choices=["build"])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PACKAGES)}; all when left out")
    arguments = parser.parse_args()
    for name in arguments.names or PACKAGES:
        print(f"building {name}", file=sys.stderr, flush=True)
        try:
            print(f"{name} {build(name)}", flush=True)
        except BuildError as failure:
            print(failure, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
