"""What the cluster looked like when it was last heard of: every read of the operators.

Filled by watches, repaired by full lists, and told of our own writes at once, so
that a reconciliation that follows a write does not write again. An older version
of an object never replaces a newer one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trierarch.adapters.kubernetes import Resource

Object = Mapping[str, Any]
Listener = Callable[[Resource, Object], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One object's name; the namespace of an object without one is empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return ``NAMESPACE/NAME``."""
        return f"{self.namespace}/{self.name}"


def key_of(found: Object) -> Key:
    """Return an object's key."""
    metadata = found["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def version_of(found: Object) -> int:
    """Return the object's version as a number that grows with every change."""
    return int(found["metadata"].get("resourceVersion", "0"))


def controller_of(found: Object) -> Mapping[str, Any] | None:
    """Return the reference to the object's controller; None if it has none."""
    references = found["metadata"].get("ownerReferences", ())
    return next((reference for reference in references if reference.get("controller")), None)


_MOST_SHARED_LENGTH = 64


def _slim(found: Object) -> dict[str, Any]:
    """Return a copy that takes less space: without managed fields, with each word kept once.

    A thousand objects of a kind have the same fields and mostly the same short values.
    """
    metadata = {name: value for name, value in found["metadata"].items() if name != "managedFields"}
    slim: dict[str, Any] = _share({**found, "metadata": metadata})
    return slim


def _share(value: Any) -> Any:
    if isinstance(value, dict):
        return {sys.intern(name): _share(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_share(inner) for inner in value]
    if isinstance(value, str) and len(value) <= _MOST_SHARED_LENGTH:
        return sys.intern(value)
    return value


class ObjectCache:
    """The objects of all watched kinds.

    Args:
        on_change: Called with every object that has come, changed or gone.
    """

    def __init__(self, on_change: Listener) -> None:
        self._on_change = on_change
        self._objects: dict[Resource, dict[Key, Object]] = {}
        self._by_label: dict[tuple[Resource, Key], dict[Key, None]] = {}

    def get(self, resource: Resource, key: Key) -> Object | None:
        """Return an object; None if there is none."""
        return self._objects.get(resource, {}).get(key)

    def all(self, resource: Resource) -> tuple[Object, ...]:
        """Return all objects of a kind."""
        return tuple(self._objects.get(resource, {}).values())

    def labelled(self, resource: Resource, label: str, owner: Key) -> Iterator[Object]:
        """Return the objects in the owner's namespace whose label is the owner's name."""
        for key in self._by_label.get((resource, owner), ()):
            found = self._objects[resource][key]
            if found["metadata"].get("labels", {}).get(label) == owner.name:
                yield found

    def index(self, resource: Resource, found: Object, owner: Key | None) -> None:
        """Remember whose object this is, for ``labelled``."""
        if owner is not None:
            self._by_label.setdefault((resource, owner), {})[key_of(found)] = None

    def put(self, resource: Resource, found: Object, owner: Key | None = None) -> None:
        """Take an object as it is now; one older than the known one is ignored."""
        objects = self._objects.setdefault(resource, {})
        key = key_of(found)
        known = objects.get(key)
        if known is not None and version_of(found) <= version_of(known):
            return
        slim = _slim(found)
        objects[key] = slim
        self.index(resource, slim, owner)
        self._on_change(resource, slim)

    def remove(self, resource: Resource, key: Key, owner: Key | None = None) -> None:
        """Forget an object that is gone."""
        found = self._objects.get(resource, {}).pop(key, None)
        if owner is not None:
            self._by_label.get((resource, owner), {}).pop(key, None)
        if found is not None:
            self._on_change(resource, found)

    def keys(self, resource: Resource) -> set[Key]:
        """Return the keys of all objects of a kind."""
        return set(self._objects.get(resource, {}))
