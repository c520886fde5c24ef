"""Write what is generated from the chart's values: what ``make generate`` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from trierarch_chart.files import build_files

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write the files that are older than their source."""
    for path, text in build_files(ROOT).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
