"""One file per API family; adding a family is adding a file.

A module in this package offers ``ENDPOINTS``: any mix of ``GenerationEndpoint``
(read the request, let an engine answer it) and ``LocalEndpoint`` (answered here).
``load_endpoints`` finds them; every other path is unknown and never passed on.
"""

from __future__ import annotations

import importlib
import pkgutil

from trierarch.gateway.endpoints.endpoint import Endpoint


def load_endpoints() -> tuple[Endpoint, ...]:
    """Return the endpoints of every module in this package, in the order of file names."""
    found: list[Endpoint] = []
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        found.extend(getattr(module, "ENDPOINTS", ()))
    return tuple(found)
