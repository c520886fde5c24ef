"""Build our own images from ``deploy/images``, with wheels from the host where no index is near."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
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

_CONTEXT = (
    "pyproject.toml", "README.md", "LICENSE", "requirements", "platform", "operators", "loadtests",
)  # fmt: skip


def build_with_own_engine(
    work: Work, environment: Mapping[str, str], base: Path
) -> tuple[Path, Path]:
    """Return the archives of both images, built on the locally made base.

    Args:
        work: Progress and log.
        environment: Finds the engine.
        base: Archive of the base image, which bears the public one's name.
    """
    sources = [path for path in _find_context_files() if path.is_file()]
    find = ["--build-arg", "FIND=--no-index"]
    return (
        _build(work, environment, base, "engine", ENGINE_TAG, ["--target", "host"], []),
        _build(work, environment, base, "trierarch", PLATFORM_TAG, find, sources),
    )


def build_with_registry(
    work: Work, engine: str, *, engine_target: str, base: str = ""
) -> tuple[Path, Path]:
    """Return archives of both images, built by the machine's own engine.

    Args:
        work: Progress and log.
        engine: ``docker`` or ``podman``.
        engine_target: ``host`` where nodes see this machine's environment, else ``cpu``.
        base: Image to build on; the Dockerfiles' own, which has a digest, when left out.
    """
    archives = []
    on = ["--build-arg", f"BASE={base}"] if base else []
    for name, tag, options in (
        ("engine", ENGINE_TAG, ["--target", engine_target]),
        ("trierarch", PLATFORM_TAG, []),
    ):
        with work.step(f"Building the image {tag} from deploy/images") as step:
            file = str(DOCKERFILES / f"{name}.Dockerfile")
            command = [engine, "build", "--file", file, "--tag", tag, *on, *options, str(CHECKOUT)]
            work.run(step, command, {"DOCKER_BUILDKIT": "1"})
            archive = work.place.state / f"{name}.tar"
            work.run(step, [engine, "save", "--output", str(archive), tag])
            archives.append(archive)
    return archives[0], archives[1]


def _build(
    work: Work,
    environment: Mapping[str, str],
    base: Path,
    name: str,
    tag: str,
    options: Sequence[str],
    sources: Sequence[Path],
) -> Path:
    """Return the archive of one image; sources are what its Dockerfile copies."""
    file = DOCKERFILES / f"{name}.Dockerfile"
    target = work.place.cache / f"{name}-{digest_of(base.parent.name, tag, file, *sources)}.tar"
    with work.making(target) as made:
        if made is None:
            return target
        wheels = fetch_wheels(work) if sources else None
        with work.step(f"Building the image {tag} from deploy/images") as step:
            context = made.parent / "context"
            context.mkdir()
            _copy_context(sources, context)
            if wheels is not None:
                copy_into_context(wheels, context)
            work.run(step, ["docker", "load", "--input", str(base)], environment)
            build = ["docker", "build", "--network", "none", "--build-arg", f"BASE={BASE_TAG}"]
            command = [*build, "--file", str(file), "--tag", tag, *options, str(context)]
            work.run(step, command, {**environment, "DOCKER_BUILDKIT": "1"})
            work.run(step, ["docker", "save", "--output", str(made), tag], environment)
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


def _copy_context(sources: Sequence[Path], context: Path) -> None:
    for path in sources:
        target = context / path.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        os.utime(target, (0, 0))
