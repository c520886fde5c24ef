"""What clients of a release see while its model is updated, and while a bad update goes back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from tests.cluster.node.fixtures import wait_for
from tests.e2e.clients import Clients, End
from tests.e2e.release import Release

UPDATE_SECONDS = 420.0
"""For a second cluster beside the first, on two busy cores."""

OTHER_MODEL = "file:///trierarch/models/tiny-qwen3-moe"
"""Another architecture with another tokenizer, under the same name."""

BAD = {"max-num-seqs": 8, "max-model-len": 10**9}
"""No engine starts with it: the model has no such context."""


@contextlib.contextmanager
def no_stream_lost(clients: Clients) -> Iterator[None]:
    """Expect that no answer ends before its end."""
    clients.expect_answers()
    began_seconds = time.monotonic()
    yield
    clients.expect_answers()
    seen = clients.describe(began_seconds)
    print(f"clients saw {seen}")
    assert not clients.ended(End.CUT, began_seconds), seen
    assert not clients.ended(End.REFUSED, began_seconds), seen


def expect_an_update_beside_what_serves(
    release: Release, clients: Clients, meanwhile: Callable[[], None]
) -> None:
    """Change the model and the engine's arguments while clients ask, until the old group has gone.

    Args:
        release: With a model that serves.
        clients: Ask without a pause.
        meanwhile: Called while the new group starts.
    """
    [old] = release.clusters()
    began_seconds = time.monotonic()
    args = {"max-num-seqs": 12}
    release.change(OTHER_MODEL, minReplicas=1, maxReplicas=1, engineArgs=args)
    wait_for(lambda: len(release.clusters()) == 2, 180, describe=release.explain)
    meanwhile()
    with no_stream_lost(clients):
        wait_for(lambda: old not in release.clusters(), UPDATE_SECONDS, describe=release.explain)
    print(f"an update was over after {time.monotonic() - began_seconds:.0f} s")
    assert release.status()["readyReplicas"] == 1


def expect_a_bad_update_to_go_back(release: Release, clients: Clients) -> None:
    """Change the engine's arguments to what no engine starts with, while clients ask.

    What served before goes on, and KubeRay starts the same once more in a cluster of its own: it
    compares what is wanted with its newest cluster only. That is not waited for.
    """
    [old] = release.clusters()
    began_seconds = time.monotonic()
    with no_stream_lost(clients):
        release.change(engineArgs=BAD)
        wait_for(lambda: len(release.clusters()) == 2, 180, describe=release.explain)
        [bad] = release.clusters() - {old}
        wait_for(lambda: bad not in release.clusters(), UPDATE_SECONDS, describe=release.explain)
    print(f"a bad update was gone after {time.monotonic() - began_seconds:.0f} s")
    [said] = release.events("RolledBack")
    assert "the update does not start" in said
    assert "max_model_len" in said, "the engine's own words"
    conditions = {one["type"]: one for one in release.status()["conditions"]}
    assert conditions["Progressing"]["reason"] == "RolledBack"
    assert conditions["Available"]["status"] == "True"
