"""Models: from the name a user gives to a folder an engine can load.

The models made here need no download: they come from weights inside a package
or from a fixed seed, so the same name gives the same bytes on every machine.
"""

from trierarch.serving.models.cache import resolve_model
from trierarch.serving.models.local_model import LocalModel
from trierarch.serving.models.recipes import MODEL_NAMES

__all__ = ["MODEL_NAMES", "LocalModel", "resolve_model"]
