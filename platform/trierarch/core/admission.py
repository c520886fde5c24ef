"""What a scaling decision says of the lanes that can wait, as every process may know it."""

from __future__ import annotations

import dataclasses

from trierarch.core.usage import ServiceTier


@dataclasses.dataclass(frozen=True, slots=True)
class Admission:
    """What the gateway should do with lanes that can wait.

    Without a word the lanes are ordinary: flex goes last and nothing is refused.

    Attributes:
        flex_open: Flex requests may fill idle capacity.
        shed_tiers: Lanes to refuse now, first to give way first.
    """

    flex_open: bool = True
    shed_tiers: tuple[ServiceTier, ...] = ()


OPEN = Admission()
"""What holds while nobody has decided, or nobody is heard of."""
