"""Folders of images: how a picture becomes an input, what folders say of classes, and pictures that are none."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import secateur
from secateur import Preparation
from secateur.calibration.images import Images
from secateur.calibration.load import opened
from secateur.cli.images import ImageOptions
from secateur.ir import Array, Graph, InputError
from support.nets import chain, residual

RGB = (200, 100, 50)


def picture(path: Path, colour: Any = RGB, size: tuple[int, int] = (30, 20), mode: str = "RGB", **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def only(folder: Path, preparation: Preparation | None = None, graph: Graph | None = None) -> Array:
    """The input that the folder's first picture becomes."""
    item = next(iter(Images.open(folder, graph or chain(), preparation or Preparation())))
    return np.asarray(item[0] if isinstance(item, tuple) else item)[0]


@pytest.mark.parametrize(
    ("preparation", "wanted"),
    [
        (None, [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (50 / 255 - 0.406) / 0.225]),
        (Preparation(bgr=True), [(50 / 255 - 0.406) / 0.225, (100 / 255 - 0.456) / 0.224, (200 / 255 - 0.485) / 0.229]),
        (Preparation(bgr=True, scale=1, mean=(104, 117, 123)), [50 - 104, 100 - 117, 200 - 123]),
        (Preparation(scale=1 / 255), [200 / 255, 100 / 255, 50 / 255]),
        (Preparation(mean=0.5, std=0.5), [200 / 127.5 - 1, 100 / 127.5 - 1, 50 / 127.5 - 1]),
        (Preparation(scale=1, std=(1, 2, 4)), [200, 50, 12.5]),
    ],
)
def test_pixels_become_inputs_as_said(preparation: Preparation | None, wanted: list[float], tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    x = only(tmp_path, preparation)
    assert x.shape == (3, 8, 8)
    np.testing.assert_allclose(x, np.broadcast_to(np.array(wanted)[:, None, None], x.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "seen"), [(None, 7), (8, 8), (16, 4), (80, 1)])
def test_the_middle_is_cut_out(size: int | None, seen: int, tmp_path: Path) -> None:
    """A picture of 8 columns that are 0, 30, 60 ..: the fewer of them are seen, the larger it was made."""
    columns = np.repeat(np.arange(8) * 30, 10).astype(np.uint8)
    Image.fromarray(np.tile(columns[None, :, None], (80, 1, 3))).save(tmp_path / "a.png")
    x = only(tmp_path, Preparation(scale=1, size=size))
    middle = x[0, 4]
    assert middle.max() - middle.min() <= seen * 30 + 15
    assert middle.max() - middle.min() >= (seen - 2) * 30
    assert middle.mean() == pytest.approx(105, abs=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": "104,117,123"}, "mean 104 117 123 lies outside of the pixels that it is taken from, 0 to 1"),
        ({"mean": "1,2"}, "give three numbers"),
        ({"mean": "a,b,c"}, "--mean a,b,c: give numbers with commas"),
        ({"mean": "nan"}, "--mean nan: give numbers"),
        ({"std": "0"}, "numbers above 0"),
        ({"scale": "255"}, "write 1 for a network that takes 0 to 255"),
        ({"scale": "0"}, "scale 0"),
        ({"scale": "1/0"}, "--scale 1/0: give numbers"),
        ({"scale": "1,1"}, "--scale 1,1: give one number"),
        ({"size": -1}, "size -1: give the shorter side in pixels"),
        ({"size": 7}, "size 7: 'chain' takes 8x8, which cannot be cut out"),
    ],
)
def test_senseless_preparations(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=message):
        only(tmp_path, ImageOptions(**options).parsed())


def test_without_a_folder_of_images_a_preparation_is_refused() -> None:
    for data in (None, [np.zeros((1, 3, 8, 8), np.float32)]):
        with pytest.raises(InputError, match="there is no folder of them"):
            secateur.compile(chain(), calibration=data, preparation=Preparation(bgr=True))


def test_what_was_used_is_said(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / f"{i}.png", (i * 50, 0, 0))
    said = secateur.compile(chain(), "apoz", calibration=tmp_path).report.remarks
    assert said[0] == (
        "calibrated on 5 images: RGB, scaled by 1/255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, shorter side 9, "
        "centre 8x8"
    )
    bgr = Preparation(bgr=True, scale=1, mean=(104, 117, 123), size=10)
    said = secateur.compile(chain(), "l1", calibration=tmp_path, preparation=bgr).report.remarks
    assert said[0] == (
        "calibrated on 5 images: BGR, scaled by 1, mean 104 117 123, std 1 1 1, shorter side 10, centre 8x8"
    )


# Classes


@pytest.mark.parametrize(
    ("folders", "listed", "labels", "said"),
    [
        (["a", "b", "c", "d", "e"], None, [0, 1, 2, 3, 4], "labels by folder, in alphabetical order: 0 = a, 1 = b"),
        (["cat", "dog"], None, None, r"2 folders \(cat, dog\) are not the network's 5 classes, so the images are used "
                                     "without labels; name each folder after the number of its class, or list"),
        (["4", "1", "03"], None, [3, 1, 4], "labels by folder, by number: 1 = 1, 3 = 03, 4 = 4"),
        (["2023", "2024"], None, None, "folder '2023' names no class of the network, which knows 0 to 4"),
        (["dog", "cat"], "bird\ncat\nfish\ndog\n", [1, 3], "in the order of classes.txt: 1 = cat, 3 = dog"),
        (["dog", "cat"], "a\nb\nc\nd\ne\ncat\ndog", None, "folder 'cat' names no class"),
        ([".", "cat"], None, None, "1 images lie outside of the folders"),
        (["."], None, None, ""),
    ],
)  # fmt: skip
def test_folders_are_classes_where_that_is_clear(
    folders: list[str], listed: str | None, labels: list[int] | None, said: str, tmp_path: Path
) -> None:
    for folder in folders:
        picture(tmp_path / folder / "a.png")
    if listed is not None:
        (tmp_path / "classes.txt").write_text(listed, encoding="utf-8")
    found = Images.open(tmp_path, chain(), Preparation())
    assert found.labels == (None if labels is None else tuple(labels))
    assert len(found.remarks) == (1 if not said else 2)
    if said:
        assert re.search(said, found.remarks[1])


def test_lists_of_classes_that_do_not_fit(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    for text, message in (
        (b"dog\n", "does not list the folder 'cat'"),
        (b"cat\ncat\n", "'cat' twice"),
        (b"\xff", "read"),
    ):
        (tmp_path / "classes.txt").write_bytes(text)
        with pytest.raises(InputError, match=message):
            Images.open(tmp_path, chain(), Preparation())


def test_folders_mean_nothing_where_no_classes_are_scored(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    found = Images.open(tmp_path, residual(), Preparation())
    assert found.labels is None
    assert "the network's first output is not scores by class" in found.remarks[1]


def test_labels_of_folders_give_top1(tmp_path: Path) -> None:
    for i in range(10):
        picture(tmp_path / str(i % 5) / f"{i}.png", (i * 25, 255 - i * 25, 0))
    report = secateur.compile(chain(), "taylor", calibration=tmp_path).report
    assert report.quality is not None
    assert report.quality["examples"] == 3
    assert report.quality["top1"] is not None


# Pictures of all kinds


def grey16(path: Path) -> None:
    Image.fromarray(np.full((9, 9), 0x6400, np.uint16)).save(path)


def palette(path: Path) -> None:
    Image.new("RGB", (9, 9), RGB).quantize(2).save(path)


def phone(path: Path) -> None:
    picture(path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole)  # what a camera appends is left alone


@pytest.mark.parametrize(
    ("name", "write", "wanted"),
    [
        ("a.png", lambda p: picture(p, 100, mode="L"), (100, 100, 100)),
        ("a.png", lambda p: picture(p, (*RGB, 255), mode="RGBA"), RGB),
        ("a.png", lambda p: picture(p, (100, 255), mode="LA"), (100, 100, 100)),
        ("a.png", lambda p: picture(p, 1, mode="1"), (255, 255, 255)),
        ("a.png", palette, RGB),
        ("a.png", grey16, (100, 100, 100)),
        ("a.jpg", lambda p: picture(p, (0, 0, 0, 55), mode="CMYK"), RGB[:1] * 3),
        ("a.JPEG", phone, RGB),
        ("a.bmp", picture, RGB),
        ("a.webp", lambda p: picture(p, lossless=True), RGB),
        ("a.ppm", picture, RGB),
        ("a.png", lambda p: picture(p, size=(1, 9000)), RGB),
    ],
)
def test_pictures_of_all_kinds(
    name: str, write: Callable[[Path], None], wanted: tuple[int, ...], tmp_path: Path
) -> None:
    write(tmp_path / name)
    x = only(tmp_path, Preparation(scale=1))
    np.testing.assert_allclose(x.mean((1, 2)), wanted, atol=3)


def cut_off(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:-900])


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), (i, 0, 0)) for i in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.png", cut_off, "cannot be read as an image"),
        ("a.png", lambda p: p.write_text("no picture"), "cannot be read as an image: cannot identify"),
        ("a.png", lambda p: p.write_bytes(b""), "cannot be read as an image"),
        ("a.png", animated, "it has 2 frames; give single pictures"),
        ("a.png", lambda p: picture(p, 7, mode="I", format="TIFF"), "32 bits and no known range"),
        ("a.txt", lambda p: p.write_text("notes"), "holds no image"),
    ],
)
def test_files_that_are_no_pictures(name: str, write: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        only(tmp_path)


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    with pytest.raises(InputError, match="10000 pixels"):
        only(tmp_path)


def test_a_bad_picture_is_found_before_any_work(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    cut_off(tmp_path / "z.png")
    told: list[str] = []
    with pytest.raises(InputError, match=r"z\.png"):
        secateur.compile(chain(), "apoz", calibration=tmp_path, progress=lambda stage: told.append(stage))
    assert "couple" not in told


def test_networks_that_take_no_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="not one RGB picture"):
        opened(tmp_path, chain().rewrite(inputs=[*chain().inputs] * 2), None, 0, 0, True)
