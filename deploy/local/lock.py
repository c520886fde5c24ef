"""Regenerate the locks in ``requirements/``: what ``make lock`` runs."""

from __future__ import annotations

import sys

from trierarch_setup.locking import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
