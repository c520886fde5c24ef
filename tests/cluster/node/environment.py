"""What nodes see of this machine: the Python environment, the source and models, read-only.

On a node ``/trierarch/environment`` is a whole virtual environment: its programs and settings are
made here, its libraries and interpreter are the host's. Packing 6 GB into an image is saved.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from tests.cluster.node.place import CHECKOUT
from tests.cluster.node.work import Work

from trierarch.serving.models import resolve_model

ON_NODES = "/trierarch/environment"
"""Where nodes and pods find the environment."""

MODELS_ON_NODES = "/trierarch/models"

Mount = dict[str, object]

_COMPILE = """
import compileall, sys
for path in sys.argv[1:]:
    compileall.compile_dir(path, maxlevels=20, quiet=2, workers=2)
"""
"""Packages have files for other versions of Python too: those cannot be compiled, nor imported."""

_COMPILED = ("ray", "torch", "vllm")
"""Packages that are compiled whole; of the others what an import of those needs."""

_IMPORTED = (
    "ray.serve", "trierarch.serving.application", "vllm.entrypoints.launchers.app",
    "vllm.entrypoints.launchers.api_server.app_state", "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core", "vllm.v1.worker.cpu_worker",
)  # fmt: skip


def make_environment(work: Work) -> list[Mount]:
    """Return the mounts that give nodes this checkout's environment."""
    _compile(work)
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


def _compile(work: Work) -> None:
    """Compile the modules of engines: nodes cannot, and each of a replica's processes would."""
    purelib = Path(sysconfig.get_paths()["purelib"])
    # Set where files are to be left alone; here they are what is wanted.
    write = {"PYTHONDONTWRITEBYTECODE": ""}
    # Only another set of packages makes it necessary again, and that has other names.
    installed = "\n".join(sorted(path.name for path in purelib.glob("*.dist-info")))
    stamp = Path(sys.prefix, "compiled-for-nodes.txt")
    with work.step("Compiling the modules of engines") as step:
        source = str(CHECKOUT / "platform")
        work.run(step, [sys.executable, "-c", _COMPILE, source], write)
        if stamp.is_file() and stamp.read_text() == installed:
            return
        packages = [str(purelib / name) for name in _COMPILED if (purelib / name).is_dir()]
        work.run(step, [sys.executable, "-c", _COMPILE, *packages], write)
        imports = "; ".join(f"import {name}" for name in _IMPORTED)
        work.run(step, [sys.executable, "-c", imports], write)
        stamp.write_text(installed)


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
