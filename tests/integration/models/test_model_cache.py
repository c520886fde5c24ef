"""Models are made whole, once and equal, whatever is killed, damaged or asked for twice."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trierarch.core.errors import InvalidInput, Unavailable
from trierarch.serving.models import MODEL_NAMES, LocalModel, resolve_model

NAME = "tiny-qwen3-moe"
MAKER = Path(__file__).with_name("make_model.py")

WEIGHTS_SHA256 = {
    "pocket": "be8cd1d5cc50a37234669b7a3e81faa79bd0a5b3acb9ed8603621d228360d5fb",
    "tiny-deepseek-v3": "971c1a5e96de74636fc80bbc9b7f196a520fa66d6feb3c0dbfffe4f22758b79c",
    "tiny-qwen3-moe": "e91c6e68bbecdd6116fa3596bc7b8cb00263492d2e37ffe35932dbf838dae5a7",
}
"""Of ``model.safetensors``: the same bytes on every machine."""


def make(name: str, data_dir: Path) -> LocalModel:
    return resolve_model(name, data_dir, lambda _text, _share: None)


def start_maker(data_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(MAKER), NAME, str(data_dir), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted in line:
            return line
    raise AssertionError(f"{wanted!r} was never printed")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_models(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "models").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_model_is_the_same_bytes_everywhere(name: str, tmp_path: Path) -> None:
    model = make(name, tmp_path)
    assert digest(model.path / "model.safetensors") == WEIGHTS_SHA256[name]
    assert model.name == name


def test_a_made_model_is_taken_as_it_is(tmp_path: Path) -> None:
    before = (make(NAME, tmp_path).path / "model.safetensors").stat()
    after = (make(NAME, tmp_path).path / "model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_killed_making_leaves_no_model_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    maker = start_maker(tmp_path, "pause")
    read_until(maker, "paused")
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    assert [name for name in find_models(tmp_path) if not name.startswith(".")] == []
    model = make(NAME, tmp_path)
    assert find_models(tmp_path) == [model.path.name]


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    first = start_maker(tmp_path, "pause")
    read_until(first, "paused")
    second = start_maker(tmp_path)
    read_until(second, "another process is making it")
    # Pauses again at each further step; an end of input lets all of them pass.
    said_first, _ = first.communicate()
    said_second, _ = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert said_first.splitlines()[-1] == said_second.splitlines()[-1]
    assert "making the weights" not in said_second


@pytest.mark.parametrize("damage", ["truncated", "gone", "inventory-torn"])
def test_a_damaged_model_is_made_anew(damage: str, tmp_path: Path) -> None:
    folder = make(NAME, tmp_path).path
    weights = folder / "model.safetensors"
    if damage == "truncated":
        with weights.open("r+b") as file:
            file.truncate(1000)
    elif damage == "gone":
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "trierarch-model.json").write_text('{"files": {')
    assert make(NAME, tmp_path).path == folder
    assert digest(weights) == WEIGHTS_SHA256[NAME]
    assert (folder / "tokenizer.json").is_file()


def test_too_little_space_is_told_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(
        Unavailable, match=r"no room for model pocket .* and 1,000 are free"
    ) as told:
        make("pocket", tmp_path)
    assert "\n" not in str(told.value)
    assert find_models(tmp_path) == []


def test_a_write_that_fails_half_way_leaves_nothing_and_says_where(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from trierarch.core.errors import Unavailable\n"
        "from trierarch.serving.models import resolve_model\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
        "try:\n"
        "    resolve_model(sys.argv[1], Path(sys.argv[2]), lambda text, share: None)\n"
        "except Unavailable as error:\n"
        "    print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, NAME, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = answer.stdout.splitlines()
    assert line.startswith(f"cannot keep model {NAME} in {tmp_path}")
    assert line.endswith("choose another --data-dir")
    assert find_models(tmp_path) == []


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no model 'pockt'.*pocket, tiny-deepseek-v3"):
        make("pockt", tmp_path)


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["SomeForCausalLM"],
                "text_config": {"dtype": "bfloat16", "max_position_embeddings": 4096},
            }
        )
    )
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_any_hugging_face_folder_is_taken(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "my-model")
    assert make(str(folder), tmp_path) == LocalModel("my-model", folder, "bfloat16", 4096)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(remove("config.json"), "no config.json", id="no-configuration"),
        pytest.param(put("config.json", "{"), "config.json is not JSON", id="torn-configuration"),
        pytest.param(put("config.json", "[]"), "names no architectures", id="no-architecture"),
        pytest.param(remove("tokenizer.json"), "no tokenizer", id="no-tokenizer"),
        pytest.param(remove("model-00001-of-00001.safetensors"), r"no weights \(", id="no-weights"),
        pytest.param(
            put("model.safetensors.index.json", '{"weight_map": {"a": "other.safetensors"}}'),
            r"1 weight file\(s\) are missing, first other.safetensors",
            id="a-missing-shard",
        ),
    ],
)
def test_a_folder_that_is_no_model_is_refused_in_one_line(
    spoil: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "my-model")
    spoil(folder)
    with pytest.raises(InvalidInput, match=told) as refused:
        make(str(folder), tmp_path)
    assert "\n" not in str(refused.value)
