"""A folder of images as calibration data: how a picture becomes an input, and what its folder says of its class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Array, Graph, InputError, Unsupported, Value
from secateur.passes.sweep.batches import classes_of

from .folder_labels import labels_of

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"})
IMAGENET = (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # scale, mean and deviation of red, green and blue
MARGIN = 8 / 7  # of the network's size that the picture covers before its middle is cut out: 256 for 224
TOGETHER = 16  # images in a batch
KEPT = 1 << 28  # bytes of prepared images that are kept rather than decoded again


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes an input: resized, its middle cut out, then ``x = (pixel * scale - mean) / std``.

    ``pixel`` is 0 to 255. ``mean`` and ``std`` are one number for each channel in the order in which the network takes
    them: red, green, blue, or with ``bgr`` blue, green, red; one number alone holds for all three. ``size`` is the
    shorter side, in pixels, before the middle is cut out; without it the picture covers 8/7 of the network's size (256
    for 224). With neither ``scale`` nor ``mean`` nor ``std`` they are ImageNet's: 1/255, (0.485, 0.456, 0.406) and
    (0.229, 0.224, 0.225) for red, green, blue. With one of them the others are 1/255, 0 and 1.
    """

    mean: tuple[float, ...] | float | None = None
    std: tuple[float, ...] | float | None = None
    bgr: bool = False
    scale: float | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError for numbers that make no sense, or not together."""
        scale, mean, std = self.numbers
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise InputError(f"{name} {_list(values)}: give three numbers, one for each channel, or one for all")
        if not 0 < scale <= 1:
            raise InputError(
                f"scale {scale:g}: pixels are 0 to 255 and are multiplied by it; write 1 for a network that takes 0 to "
                "255, 1/255 for one that takes 0 to 1"
            )
        if min(std) <= 0:
            raise InputError(f"std {_list(std)}: pixels are divided by it, so give numbers above 0")
        if min(mean) < 0 or max(mean) > 255 * scale:
            raise InputError(
                f"mean {_list(mean)} lies outside of the pixels that it is taken from, 0 to {255 * scale:g}; for a "
                "network that takes 0 to 255 give scale 1, for one that takes 0 to 1 give scale 1/255"
            )
        if self.size is not None and self.size < 1:
            raise InputError(f"size {self.size}: give the shorter side in pixels, such as 256")

    @property
    def numbers(self) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        """(scale, mean, std), the last two by channel in the network's order."""
        if self.scale is None and self.mean is None and self.std is None:
            scale, mean, std = IMAGENET
            return (scale, mean[::-1], std[::-1]) if self.bgr else IMAGENET
        scale = 1 / 255 if self.scale is None else self.scale
        return scale, _three(self.mean, 0.0), _three(self.std, 1.0)

    def __str__(self) -> str:
        scale, mean, std = self.numbers
        factor = f"1/{1 / scale:.6g}" if scale < 1 and abs(1 / scale - round(1 / scale)) < 1e-6 else f"{scale:g}"
        return f"{'BGR' if self.bgr else 'RGB'}, scaled by {factor}, mean {_list(mean)}, std {_list(std)}"


def _three(given: tuple[float, ...] | float | None, otherwise: float) -> tuple[float, ...]:
    values = (otherwise,) if given is None else (given,) if isinstance(given, int | float) else tuple(given)
    return values * 3 if len(values) == 1 else values


def _list(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:g}" for v in values)


@dataclass(eq=False)
class Images:
    """Images of a folder in batches ``x`` or ``(x, labels)``, decoded when they are gone through, and kept if few.

    A file with several frames is not a single picture: it is refused. Transparency is left out,
    pictures are not turned by what a camera noted, and 16-bit greys keep their upper half.
    """

    folder: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    said: tuple[str, ...]
    preparation: Preparation
    channels_last: bool
    crop: tuple[int, int]
    _kept: dict[int, Array] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def open(folder: Path, graph: Graph, preparation: Preparation) -> Images:
        """Find the images. Raises InputError where there are none or the network takes no picture."""
        if find_spec("PIL") is None:
            raise Unsupported("reading images needs Pillow: pip install pillow, or give an .npz file")
        channels_last, crop = _picture(graph)
        if preparation.size is not None and preparation.size < max(crop):
            raise InputError(
                f"size {preparation.size}: '{graph.name}' takes {crop[0]}x{crop[1]}, which cannot be cut out of "
                f"pictures with a shorter side of {preparation.size}; give {max(crop)} or more"
            )
        files = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file()))
        if not files:
            raise InputError(f"--calibration: '{folder}' holds no image ({', '.join(sorted(ENDINGS))})")
        labels, said = labels_of([p.relative_to(folder) for p in files], folder, classes_of(graph))
        return Images(folder, files, labels, said, preparation, channels_last, crop)

    @property
    def remarks(self) -> tuple[str, ...]:
        """How the pictures were prepared, and what they were labelled with."""
        height, width = self.crop
        if self.preparation.size is not None or height == width:
            size = f"shorter side {self.preparation.size or round(MARGIN * height)}"
        else:
            size = f"covering {round(MARGIN * height)}x{round(MARGIN * width)}"
        count = f"{len(self.files)} image{'s' if len(self.files) > 1 else ''}"
        return (f"calibrated on {count}: {self.preparation}, {size}, centre {height}x{width}", *self.said)

    def __iter__(self) -> Iterator[object]:
        for start in range(0, len(self.files), TOGETHER):
            x = self._kept.get(start)
            if x is None:
                x = np.stack([self._read(file) for file in self.files[start : start + TOGETHER]])
                if len(self.files) * (x.nbytes // len(x)) <= KEPT:
                    self._kept[start] = x
            yield x if self.labels is None else (x, np.array(self.labels[start : start + len(x)]))

    def _read(self, file: Path) -> Array:
        """f32[3, height, width] of one file, channels last if the network takes them so. Raises InputError."""
        from PIL import Image

        with warnings.catch_warnings():  # what Pillow only warns of as too large is too large
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                with Image.open(file) as opened:
                    pixels = self._middle(_coloured(opened))
            except Exception as error:  # decoders raise whatever they stumble over
                why = str(error).partition("\n")[0] or type(error).__name__
                raise InputError(f"--calibration: '{file}' cannot be read as an image: {why}; repair it or take it out "
                                 "of the folder") from error  # fmt: skip
        scale, mean, std = self.preparation.numbers
        ordered = pixels[:, :, ::-1] if self.preparation.bgr else pixels
        x = (ordered * np.float32(scale) - np.array(mean, np.float32)) / np.array(std, np.float32)
        made: Array = np.ascontiguousarray(x if self.channels_last else x.transpose(2, 0, 1), np.float32)
        return made

    def _middle(self, image: Image) -> Array:
        """f32[height, width, 3], 0 to 255: the part of the picture that stays, resized in one step."""
        from PIL import Image as pillow

        height, width = self.crop
        if self.preparation.size is None:
            scale = max(height / image.height, width / image.width) * MARGIN
        else:
            scale = self.preparation.size / min(image.height, image.width)
        across, down = width / scale, height / scale  # of the picture's own pixels
        left, top = (image.width - across) / 2, (image.height - down) / 2
        box = (max(left, 0), max(top, 0), min(left + across, image.width), min(top + down, image.height))
        return np.asarray(image.resize((width, height), pillow.Resampling.BICUBIC, box), np.float32)


def _coloured(image: Image) -> Image:
    """The picture as RGB, 8 bits a channel. Raises ValueError for several frames and pixels of no known range."""
    from PIL import Image as pillow

    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's, with the picture first
        raise ValueError(f"it has {image.n_frames} frames; give single pictures")  # type: ignore[attr-defined]
    if image.mode.startswith("I;16"):
        return pillow.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits and no known range; save it with 8 bits")
    return image.convert("RGB")


def _picture(graph: Graph) -> tuple[bool, tuple[int, int]]:
    """(are channels last, (height, width)) of a network that takes one RGB picture. Raises InputError."""
    value: Value = graph.inputs[0]
    if len(graph.inputs) == 1 and len(value.shape) == 4 and value.dtype in ("f32", "f16", "bf16", "f64"):
        if value.shape[1] == 3:
            return False, (int(value.shape[2]), int(value.shape[3]))
        if value.shape[3] == 3:
            return True, (int(value.shape[1]), int(value.shape[2]))
    raise InputError(
        f"--calibration with a folder of images: '{graph.name}' takes {', '.join(map(str, graph.inputs))}, not one RGB "
        "picture; give an .npz file"
    )
