"""Build our own images from ``deploy/images``, with wheels from the host where no index is near."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.node.images import BASE_TAG
from tests.cluster.node.place import CHECKOUT, digest_of
from tests.cluster.node.wheels import copy_into_context, fetch_wheels
from tests.cluster.node.work import Work

DOCKERFILES = CHECKOUT / "deploy" / "images"

PLATFORM_TAG = "trierarch:local"
"""Gateway, operator and the rest."""

ENGINE_TAG = "trierarch-engine:host"
"""Ray and vLLM, with the environment of the host by volume."""

_CONTEXT = ("pyproject.toml", "README.md", "LICENSE", "requirements", *(
    "platform", "operators", "loadtests"
))  # fmt: skip


def build_with_own_engine(work: Work, environment: Mapping[str, str], base: Path) -> Path:
    """Return an archive of both images, built on the locally made base.

    Args:
        work: Progress and log.
        environment: Finds the engine.
        base: Archive of the base image, which bears the public one's name.
    """
    sources = [path for path in _find_context_files() if path.is_file()]
    dockerfiles = sorted(DOCKERFILES.glob("*.Dockerfile"))
    target = work.place.cache / f"own-{digest_of(base.parent.name, *sources, *dockerfiles)}.tar"
    with work.making(target) as made:
        if made is None:
            return target
        wheels = fetch_wheels(work)
        with work.step("Building our images from deploy/images") as step:
            context = made.parent / "context"
            _copy_context(context)
            copy_into_context(wheels, context)
            work.run(step, ["docker", "load", "--input", str(base)], environment)
            build = ["docker", "build", "--network", "none", "--build-arg", f"BASE={BASE_TAG}"]
            for name, tag, options in (
                ("trierarch", PLATFORM_TAG, ["--build-arg", "FIND=--no-index"]),
                ("engine", ENGINE_TAG, ["--target", "host"]),
            ):
                file = str(DOCKERFILES / f"{name}.Dockerfile")
                command = [*build, "--file", file, "--tag", tag, *options, str(context)]
                work.run(step, command, {**environment, "DOCKER_BUILDKIT": "1"})
            save = ["docker", "save", "--output", str(made), PLATFORM_TAG, ENGINE_TAG]
            work.run(step, save, environment)
    return target


def _find_context_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_CONTEXT],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [CHECKOUT / name for name in sorted(listing.split("\0")) if name]


def _copy_context(context: Path) -> None:
    for path in _find_context_files():
        if path.is_file():
            target = context / path.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            os.utime(target, (0, 0))
