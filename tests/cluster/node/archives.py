"""Write container images as archives that ``docker load`` and ``ctr images import`` both take."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EPOCH = "1970-01-01T00:00:00Z"
"""The same content gives the same image, whenever it was made."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image: an uncompressed tar file and its digest."""

    path: Path
    digest: str


@dataclasses.dataclass(frozen=True)
class Image:
    """What an archive says about one image.

    Attributes:
        tag: Name and tag.
        layers: Lowest first.
        config: Entrypoint, environment and the like, in the image format's own words.
    """

    tag: str
    layers: Sequence[Layer]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def document(self) -> bytes:
        """Return the image's configuration file."""
        content = {
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": dict(self.config),
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{layer.digest}" for layer in self.layers],
            },
            "history": [{"created": EPOCH, "created_by": "trierarch"} for _ in self.layers],
        }
        return json.dumps(content, sort_keys=True).encode()


def pack_folder(root: Path, layer: Path) -> Layer:
    """Pack a whole file system into a layer."""
    order = ["--sort=name", "--numeric-owner", "--xattrs", "--one-file-system"]
    subprocess.run(["tar", *order, "-C", str(root), "-cf", str(layer), "."], check=True)
    return _layer(layer)


def pack_files(files: Mapping[str, Path | bytes], layer: Path, *, mode: int = 0o755) -> Layer:
    """Pack single files, by their path in the image; all get one mode."""
    with tarfile.open(layer, "w") as tar:
        folders: set[str] = set()
        for name, source in sorted(files.items()):
            for parent in reversed(Path(name).parents):
                if str(parent) not in (".", "/") and str(parent) not in folders:
                    folders.add(str(parent))
                    entry = tarfile.TarInfo(str(parent))
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            if isinstance(source, bytes):
                entry.size = len(source)
                tar.addfile(entry, io.BytesIO(source))
            else:
                entry.size = source.stat().st_size
                with source.open("rb") as content:
                    tar.addfile(entry, content)
    return _layer(layer)


def write_archive(images: Sequence[Image], archive: Path) -> None:
    """Write images into one archive; a layer that several share is written once."""
    manifest = []
    with tarfile.open(archive, "w") as tar:
        written: set[str] = set()
        for image in images:
            for layer in image.layers:
                if layer.digest not in written:
                    written.add(layer.digest)
                    tar.add(layer.path, f"{layer.digest}/layer.tar", filter=_plain)
            document = image.document()
            name = f"{hashlib.sha256(document).hexdigest()}.json"
            _add(tar, name, document)
            manifest.append(
                {
                    "Config": name,
                    "RepoTags": [image.tag],
                    "Layers": [f"{layer.digest}/layer.tar" for layer in image.layers],
                }
            )
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _layer(path: Path) -> Layer:
    with path.open("rb") as content:
        return Layer(path, hashlib.file_digest(content, "sha256").hexdigest())


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    return entry


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
