"""Fetch the wheels of our images on the host, because an engine of our own reaches no index."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

from tests.cluster.node.place import CHECKOUT, digest_of
from tests.cluster.node.work import Work

from trierarch_setup.layout import Layout
from trierarch_setup.session import Session

EXTRAS = ("gateway", "operators", "postgresql")
"""Of the image of the gateway and the operator."""

_REQUIREMENTS = CHECKOUT / "requirements"


def fetch_wheels(work: Work) -> Path:
    """Return a folder with all wheels that ``deploy/images/trierarch.Dockerfile`` installs."""
    inputs = [CHECKOUT / "pyproject.toml", *sorted(_REQUIREMENTS.glob("*.lock"))]
    target = work.place.cache / f"wheels-{digest_of(EXTRAS, sys.version_info[:2], *inputs)}"
    with work.making(target) as made:
        if made is None:
            return target
        with work.step("Fetching the wheels of the gateway and operator image") as step:
            lock = made.parent / "image.lock"
            extras = [word for extra in EXTRAS for word in ("--extra", extra)]
            options = [*extras, "--generate-hashes", "--quiet", "--no-emit-find-links"]
            options += ["--constraint", str(_REQUIREMENTS / "all.lock"), "-o", str(lock)]
            with open(os.devnull) as nothing:
                session = Session(Layout(CHECKOUT), os.environ, work.stream, nothing.fileno())
                session.uv_pip(["compile", str(CHECKOUT / "pyproject.toml"), *options], step)
            made.mkdir()
            python = [str(Path(sys.base_prefix) / "bin" / "python3"), "-m", "pip"]
            pip = [*python, "download", "--only-binary", ":all:", "--dest", str(made)]
            for requirements in (lock, _REQUIREMENTS / "bootstrap.lock"):
                work.run(step, [*pip, "--no-deps", "--require-hashes", "-r", str(requirements)])
            # What turns the source into a wheel.
            work.run(step, [*pip, *_find_build_requirements()])
    return target


def _find_build_requirements() -> list[str]:
    document = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return [str(word) for word in document["build-system"]["requires"]]


def copy_into_context(wheels: Path, context: Path) -> None:
    """Put wheels where the Dockerfile looks for them."""
    shutil.copytree(wheels, context / "dist" / "wheels", dirs_exist_ok=True)
