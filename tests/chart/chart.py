"""The chart as tests see it: rendered by Helm into objects, or refused with a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "trierarch"
CASES = sorted((CHART / "ci").glob("*-values.yaml"))
EXAMPLES = ROOT / "docs" / "examples"
CPU_VALUES = CHART / "values-cpu.yaml"

RELEASE = "trierarch"
NAMESPACE = "serving"

Object = dict[str, Any]


class Refused(Exception):
    """Helm did not do it; the message is Helm's."""


class Rendered:
    """The objects of one rendering.

    Attributes:
        objects: All of them.
    """

    def __init__(self, objects: Iterable[Object]) -> None:
        self.objects = list(objects)

    def all(self, kind: str) -> dict[str, Object]:
        """Return the objects of a kind by their names."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    def one(self, kind: str, name: str) -> Object:
        """Return an object; ``name`` is without the release's."""
        return self.all(kind)[f"{RELEASE}-{name}"]

    def pods(self) -> dict[str, Object]:
        """Return the pod template of everything that makes pods, by the maker's name."""
        found = {}
        for one in self.objects:
            if one["kind"] == "Pod":
                found[one["metadata"]["name"]] = one
            elif one["kind"] in {"Deployment", "StatefulSet", "Job"}:
                found[one["metadata"]["name"]] = one["spec"]["template"]
        return found


class Helm:
    """Helm with folders of its own, so that a user's plugins and repositories play no part.

    Args:
        program: The binary.
        home: Empty folder.
        kubeconfig: The cluster; none for commands that need none.
        timeout_seconds: How long a command may take.
    """

    def __init__(
        self,
        program: Path,
        home: Path,
        kubeconfig: Path | None = None,
        timeout_seconds: float = 120.0,
    ) -> None:
        self._program = program
        self._timeout_seconds = timeout_seconds
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }
        if kubeconfig is not None:
            self._environment["KUBECONFIG"] = str(kubeconfig)

    def run(self, *arguments: str | Path) -> str:
        """Run a command and return what it prints.

        Raises:
            Refused: If it fails.
        """
        done = subprocess.run(
            [self._program, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=self._timeout_seconds,
        )
        if done.returncode != 0:
            raise Refused(done.stdout + done.stderr)
        return done.stdout

    def render(
        self, values: Mapping[str, Any] | Path | None = None, *options: str | Path
    ) -> Rendered:
        """Render the chart.

        Args:
            values: A file of values, or what it would hold.
            options: Further options of ``helm template``.

        Raises:
            Refused: If the values are refused.
        """
        with tempfile.TemporaryDirectory() as folder:
            if not isinstance(values, Path):
                path = Path(folder) / "values.yaml"
                path.write_text(json.dumps(values or {}))
                values = path
            text = self.run(
                *("template", RELEASE, CHART, "--namespace", NAMESPACE),
                *("--values", values, *options),
            )
        return Rendered(each for each in yaml.safe_load_all(text) if each)


def environment(container: Object) -> dict[str, Any]:
    """Return a container's variables: the value, or where it comes from."""
    return {
        each["name"]: each["value"] if "value" in each else each["valueFrom"]
        for each in container.get("env", ())
    }
