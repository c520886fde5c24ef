"""What nodes see of this machine: the Python environment, the source and models, read-only.

On a node ``/trierarch/environment`` is a whole virtual environment: its programs and settings are
made here, its libraries and interpreter are the host's. Packing 6 GB into an image is saved.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.cluster.node.place import CHECKOUT
from tests.cluster.node.work import Work

from trierarch.serving.models import resolve_model

ON_NODES = "/trierarch/environment"
"""Where nodes and pods find the environment."""

MODELS_ON_NODES = "/trierarch/models"

Mount = dict[str, object]


def make_environment(work: Work) -> list[Mount]:
    """Return the mounts that give nodes this checkout's environment."""
    venv, base = Path(sys.prefix), Path(sys.base_prefix)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = work.place.state / "environment"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lib", "python", "source"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(venv / "bin", folder / "bin", symlinks=True)
    for name in ("python", "python3", f"python{version}"):
        link = folder / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"../python/bin/python{version}")
    settings = f"home = {ON_NODES}/python/bin\ninclude-system-site-packages = false\n"
    (folder / "pyvenv.cfg").write_text(settings)
    return [
        _mount(folder, ON_NODES),
        _mount(venv / "lib", f"{ON_NODES}/lib"),
        _mount(base, f"{ON_NODES}/python"),
        _mount(CHECKOUT / "platform", f"{ON_NODES}/source"),
    ]


def make_models(work: Work, names: tuple[str, ...]) -> list[Mount]:
    """Make small models that nodes may load; return their mounts."""
    mounts = []
    for name in names:
        with work.step(f"Making the model {name}") as step:
            model = resolve_model(name, work.place.cache, lambda text, _share: step.tick(text))
        mounts.append(_mount(model.path, f"{MODELS_ON_NODES}/{name}"))
    return mounts


def _mount(source: Path, target: str) -> Mount:
    return {"hostPath": os.fspath(source), "containerPath": target, "readOnly": True}
