"""What the kind cluster decides before it starts anything."""

from __future__ import annotations

import io
import ipaddress
import json
import tarfile
from pathlib import Path

import pytest
import yaml
from tests.cluster.node import cluster
from tests.cluster.node.addresses import RANGE, Network, pick_network
from tests.cluster.node.archives import Image, pack_files, write_archive
from tests.cluster.node.cluster import CONFIGURATION, PulledImages, bring_up, configure
from tests.cluster.node.engine import interface_name
from tests.cluster.node.limits import NEEDED, raise_limit, restore_limit
from tests.cluster.node.place import Place, find_place
from tests.cluster.node.situation import judge
from tests.cluster.node.work import ClusterFailure, Work


def test_networks_of_two_clusters_do_not_meet() -> None:
    first = pick_network([])
    second = pick_network([first.nodes])
    assert not first.whole.overlaps(second.whole)


def test_a_route_of_the_machine_is_left_alone() -> None:
    taken = ipaddress.IPv4Network("10.213.0.0/23")
    assert pick_network([taken]).whole == ipaddress.IPv4Network("10.213.2.0/24")


def test_no_free_network_is_an_error_that_names_the_range() -> None:
    with pytest.raises(ClusterFailure, match=str(RANGE)):
        pick_network([RANGE])


def test_the_parts_of_a_network_do_not_overlap() -> None:
    network = Network(ipaddress.IPv4Network("10.213.7.0/24"))
    link = ipaddress.IPv4Network("10.213.7.0/30")
    assert network.host in link
    assert network.engine in link
    assert not network.builds.network.overlaps(link)
    assert not network.builds.network.overlaps(network.nodes)


@pytest.mark.parametrize(
    ("engine", "root", "missing", "kind"),
    [
        ("docker", False, (), "docker"),
        ("podman", True, (), "podman"),
        (None, True, (), "own-engine"),
        (None, True, ("apt-get",), "api-tier-only"),
        (None, False, (), "api-tier-only"),
    ],
)
def test_each_situation_is_told_from_what_is_there(
    engine: str | None, root: bool, missing: tuple[str, ...], kind: str
) -> None:
    situation = judge(engine, root=root, missing_programs=missing)
    assert situation.kind == kind
    assert "\n" not in situation.sentence


def test_what_is_missing_is_named() -> None:
    assert "apt-get" in judge(None, root=True, missing_programs=("apt-get",)).sentence
    assert "root" in judge(None, root=False, missing_programs=()).sentence


def test_images_to_pull_are_refused_where_nothing_can_be_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    situation = judge(None, root=True, missing_programs=())
    monkeypatch.setattr(cluster, "find_situation", lambda: situation)
    work = Work(Place("trierarch-unit", tmp_path, tmp_path / "trierarch-unit"), io.StringIO())
    with pytest.raises(ClusterFailure, match="--node-image"):
        bring_up(work, pulled=PulledImages(node="registry.example/node:1"))


def test_the_shared_configuration_gets_the_machine_s_parts_only() -> None:
    document = yaml.safe_load(CONFIGURATION.read_text())
    mount: dict[str, object] = {"hostPath": "/a", "containerPath": "/b", "readOnly": True}
    each: list[list[dict[str, object]]] = [[{"hostPath": f"/disk/{number}"}] for number in range(3)]
    made = configure(document, mounts=[mount], api_address="10.213.0.2", each=each)
    assert made["networking"]["apiServerAddress"] == "10.213.0.2"
    assert made["networking"]["podSubnet"] == document["networking"]["podSubnet"]
    assert [node["role"] for node in made["nodes"]] == [n["role"] for n in document["nodes"]]
    assert [node["extraMounts"] for node in made["nodes"]] == [[mount, *own] for own in each]
    assert "extraMounts" not in document["nodes"][0]


def test_names_fit_and_differ_between_checkouts_and_purposes() -> None:
    places = [find_place(), find_place("tests"), find_place("", Path("/elsewhere"))]
    assert len({place.name for place in places}) == 3
    assert all(len(interface_name(place.name)) <= 15 for place in places)


def test_an_archive_names_its_images_and_writes_a_shared_layer_once(tmp_path: Path) -> None:
    layer = pack_files({"bin/tool": b"tool"}, tmp_path / "layer.tar")
    images = [Image(f"example/{name}:1", [layer], {"Entrypoint": ["/bin/tool"]}) for name in "ab"]
    write_archive(images, tmp_path / "images.tar")
    with tarfile.open(tmp_path / "images.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        assert [entry["RepoTags"] for entry in manifest] == [["example/a:1"], ["example/b:1"]]
        assert [name for name in tar.getnames() if name.endswith("layer.tar")] == [
            f"{layer.digest}/layer.tar"
        ]


def test_the_same_files_give_the_same_layer(tmp_path: Path) -> None:
    first = pack_files({"a/b": b"1", "c": b"2"}, tmp_path / "1.tar")
    second = pack_files({"c": b"2", "a/b": b"1"}, tmp_path / "2.tar")
    assert first.digest == second.digest


def test_a_cached_thing_is_whole_or_not_there(tmp_path: Path) -> None:
    work = Work(find_place(), io.StringIO())
    target = tmp_path / "thing"

    def be_interrupted() -> None:
        with work.making(target) as made:
            assert made is not None
            made.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert not target.exists()
    with work.making(target) as made:
        assert made is not None
        made.write_text("whole")
    with work.making(target) as made:
        assert made is None
    assert target.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_leftovers_of_a_killed_attempt_are_deleted(tmp_path: Path) -> None:
    (tmp_path / ".thing.making-killed").mkdir()
    with Work(find_place(), io.StringIO()).making(tmp_path / "thing") as made:
        assert made is not None
        made.mkdir()
    assert not (tmp_path / ".thing.making-killed").exists()


def test_a_raised_limit_is_put_back_also_after_a_crash(tmp_path: Path) -> None:
    setting = tmp_path / "setting"
    setting.write_text("128\n")
    raise_limit(tmp_path, setting)
    raise_limit(tmp_path, setting)  # the start after a crash
    assert int(setting.read_text()) == NEEDED
    restore_limit(tmp_path, setting)
    restore_limit(tmp_path, setting)
    assert int(setting.read_text()) == 128


def test_a_limit_that_is_high_enough_or_changed_by_others_is_left_alone(tmp_path: Path) -> None:
    setting = tmp_path / "setting"
    setting.write_text("4096\n")
    raise_limit(tmp_path, setting)
    restore_limit(tmp_path, setting)
    assert int(setting.read_text()) == 4096
    setting.write_text("128\n")
    raise_limit(tmp_path, setting)
    setting.write_text("2048\n")
    restore_limit(tmp_path, setting)
    assert int(setting.read_text()) == 2048
