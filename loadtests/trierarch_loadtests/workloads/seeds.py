"""Independent random streams from one seed.

Each purpose (arrivals, lengths, prompts) gets its own stream, so that changing
how many numbers one of them draws does not change the others.
"""

import random


def stream(seed: int, *purpose: str | int) -> random.Random:
    """Return the generator for ``purpose``; the same arguments give the same numbers anywhere."""
    name = "/".join(str(part) for part in (seed, *purpose))
    return random.Random(name)  # noqa: S311  # a workload, not a secret
