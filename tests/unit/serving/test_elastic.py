"""What stands against elastic groups is said in the order in which a user can mend it."""

from __future__ import annotations

from trierarch.serving.elastic import find_obstacles
from trierarch.serving.specification import EngineSpec, Parallelism


def spec(device: str = "cuda", **fields: object) -> EngineSpec:
    given = {
        "model_path": "/m",
        "served_name": "m",
        "variant": "v",
        "device": device,
        "parallelism": Parallelism(data=8, expert=True),
        "engine_arguments": {"enable-eplb": True},
        **fields,
    }
    return EngineSpec.model_validate(given)


def test_the_first_obstacle_is_one_that_a_user_can_mend() -> None:
    assert "needs GPUs" in find_obstacles(spec("cpu"))[0]
    assert "parallelism.expert" in find_obstacles(spec(parallelism=Parallelism(data=8)))[0]
    assert "enable-eplb" in find_obstacles(spec(engine_arguments={}))[0]


def test_what_is_left_is_our_own_way_of_placing_ranks() -> None:
    (only,) = find_obstacles(spec())
    assert "Trierarch places and starts every rank itself" in only
