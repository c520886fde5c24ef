"""Write what is generated from the custom resources' models and their reasons.

``python -m trierarch_operators.generate`` writes the chart's definitions, the reference page
and the runbook into a checkout; a test fails when a file is older than its model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from trierarch.api.v1alpha1.definitions import KINDS, build_definition
from trierarch.api.v1alpha1.reference import build_reference
from trierarch_operators.runbook import build_pages

DEFINITIONS = Path("deploy/helm/trierarch/files/crds")
REFERENCE = Path("docs/reference/custom-resources.md")
RUNBOOK = Path("docs/runbook")


def build_files() -> dict[Path, str]:
    """Return every generated file's text by its path in the checkout."""
    files = {
        DEFINITIONS / f"{kind.plural}.yaml": yaml.safe_dump(
            build_definition(kind), sort_keys=False, width=100
        )
        for kind in KINDS
    }
    files[REFERENCE] = build_reference()
    files |= {RUNBOOK / name: text for name, text in build_pages().items()}
    return files


def main() -> int:
    """Write the files below the current folder."""
    for path, text in build_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
