"""Outputs: whole or not at all; devices, pipes and links are written through and stay what they are."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import secateur
from secateur.codegen.library import Library
from secateur.ir import InputError, files
from secateur.ir.exporters.onnx import write as exporter
from support.nets import chain


def test_write_all_is_all_or_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("old")

    def fail(path: Path) -> None:
        raise OSError(errno.EROFS, "read-only")

    with pytest.raises(InputError, match=r"b': the file system is read-only"):
        files.write_all([files.text_job(first, "new"), (second, fail)])
    assert first.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_permissions_are_the_umask_s_or_the_file_s_own(tmp_path: Path) -> None:
    plain, ours, private = tmp_path / "plain", tmp_path / "ours", tmp_path / "private"
    plain.write_text("")
    private.write_text("")
    private.chmod(0o600)
    seen: list[int] = []
    files.write_text(ours, "text")
    files.write_whole(private, lambda temporary: seen.append(temporary.stat().st_mode & 0o777))
    assert ours.stat().st_mode == plain.stat().st_mode
    assert private.stat().st_mode & 0o777 == 0o600
    assert seen == [0o600]  # nor could anybody read it meanwhile


@pytest.mark.parametrize("kind", ["relative", "absolute", "dangling", "chain"])
def test_links_stay_and_their_targets_are_replaced_beside_themselves(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "elsewhere"
    there.mkdir()
    target, link = there / "real.json", tmp_path / "link.json"
    if kind != "dangling":
        target.write_text("old")
        target.chmod(0o640)
    link.symlink_to(target if kind == "absolute" else Path("elsewhere/real.json"))
    named = link
    if kind == "chain":
        named = tmp_path / "first.json"
        named.symlink_to("link.json")
    folders: list[Path] = []

    def write(temporary: Path) -> None:
        folders.append(temporary.parent)
        temporary.write_text("new")

    files.write_whole(named, write)
    assert folders == [there]  # so that the last step is a rename, which is atomic
    assert named.is_symlink()
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == (
        0o640 if kind != "dangling" else (tmp_path / "elsewhere").stat().st_mode & 0o666
    )
    assert [p.name for p in there.iterdir()] == ["real.json"]


def test_a_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    files.write_text(tmp_path / "link" / "a.json", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a.json").read_text() == "new"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for refuse in (lambda p: files.write_text(p, ""), files.check_writable):
        with pytest.raises(InputError, match=r"a': its symbolic links lead in a circle"):
            refuse(tmp_path / "a")


@pytest.fixture
def unreplaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming onto anything fails the test."""
    monkeypatch.setattr(files.os, "replace", lambda *paths: pytest.fail(f"replaced {paths[-1]}"))


Read = Callable[[], bytes]


@pytest.fixture
def fifo(tmp_path: Path) -> tuple[Path, Read]:
    """A pipe with a name, and what a reader at its other end gets."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()

    def read() -> bytes:
        reader.join(60)
        return got[0]

    return path, read


@pytest.mark.usefixtures("unreplaced")
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to(tmp_path: Path, fifo: tuple[Path, Read], linked: bool) -> None:
    path, read = fifo
    named = path
    if linked:
        named = tmp_path / "link"
        named.symlink_to("pipe")
    files.check_writable(named)
    files.write_text(named, "a line\n")
    assert read() == b"a line\n"
    assert path.is_fifo()
    assert {p.name for p in tmp_path.iterdir()} == {"pipe", *(["link"] if linked else [])}


@pytest.mark.usefixtures("unreplaced")
def test_a_device_is_written_to(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    for path in (Path(os.devnull), link):
        files.check_writable(path)
        files.write_text(path, "nothing")
        assert path.is_char_device()


@pytest.mark.usefixtures("unreplaced")
def test_an_open_file_of_this_process_goes_on_where_it_stands(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system has no /proc")
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b"before,")
        files.write_text(f"/proc/self/fd/{log.fileno()}", "between,")
        log.write(b"after")
    assert (tmp_path / "log").read_bytes() == b"before,between,after"


def test_what_cannot_be_taken_back_comes_first(fifo: tuple[Path, Read], tmp_path: Path) -> None:
    """A file that fails to be written leaves the pipe without a word; one that was written is not alone."""
    path, read = fifo

    def fail(temporary: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(InputError, match="the disk is full"):
        files.write_all([files.text_job(path, "too early"), (tmp_path / "file", fail)])
    files.write_all([files.text_job(tmp_path / "file", "text"), files.text_job(path, "in time")])
    assert read() == b"in time"
    assert (tmp_path / "file").read_text() == "text"


def test_devices_are_no_file_that_is_named_twice(tmp_path: Path) -> None:
    assert not files.same_file(os.devnull, os.devnull)
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to("a")
    assert files.same_file(tmp_path / "a", tmp_path / "b")
    assert files.same_file(tmp_path / "not yet", tmp_path / "." / "not yet")


@pytest.mark.usefixtures("unreplaced")
def test_every_output_of_the_package_is_written_through(tmp_path: Path) -> None:
    """Recipe, policy, report, model and library: each to a device."""
    slim = secateur.compile(chain(), "l1", macs=0.6)
    slim.recipe.save(os.devnull)
    secateur.Policy.parse("l1").save(os.devnull)
    slim.report.to_html(os.devnull)
    exporter.save(slim.graph, os.devnull)
    library = slim.build()
    assert isinstance(library, Library)
    library.save(os.devnull)
    assert Path(os.devnull).is_char_device()
