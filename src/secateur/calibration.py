"""Calibration data from the command line: an .npz file, or a folder of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from secateur.ir import Array, Graph, InputError, Unsupported, Value

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"})
LABELS = ("y", "labels", "label", "targets")


@dataclass(frozen=True)
class Preparation:
    """How an image becomes an input: scaled to [0, 1], then ``(x - mean) / std`` per channel; ImageNet's by default.

    The shorter side becomes 8/7 of the network's size, and the middle is cut out.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def load_calibration(path: Path, graph: Graph, preparation: Preparation | None = None) -> Any:
    """Batches for this network. Raises InputError where the file or folder holds nothing of use.

    An .npz file holds arrays by input name, or one array and labels (``y``). A folder holds images; folders in it are
    classes, numbered in the order of their names.
    """
    if not path.exists():
        raise InputError(f"--calibration: there is no '{path}'; check the path")
    if path.is_dir():
        return Images(path, graph, preparation or Preparation())
    if path.suffix.lower() not in {".npz", ".npy"}:
        raise InputError(f"--calibration '{path}': give a .npz file of arrays by input name, or a folder of images")
    return [_from_npz(path, graph)]


def _from_npz(path: Path, graph: Graph) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"x": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--calibration '{path}' cannot be read as NumPy arrays: {error}") from error
    names = [v.name for v in graph.inputs]
    if set(names) <= set(arrays):
        return _with_labels({n: arrays[n] for n in names}, arrays)
    others = [n for n in arrays if n not in LABELS]
    if len(names) == 1 and len(others) == 1:
        return _with_labels({names[0]: arrays[others[0]]}, arrays)
    raise InputError(f"--calibration '{path}' holds {sorted(arrays)}; '{graph.name}' takes the inputs {names}")


def _with_labels(inputs: Mapping[str, Array], arrays: Mapping[str, Array]) -> Any:
    label = next((arrays[n] for n in LABELS if n in arrays and n not in inputs), None)
    if label is None:
        return inputs
    if len(inputs) != 1:
        raise InputError(f"--calibration: labels go with one input, this network takes {list(inputs)}")
    return next(iter(inputs.values())), label


class Images:
    """Images of a folder, decoded batch by batch whenever they are gone through."""

    def __init__(self, folder: Path, graph: Graph, preparation: Preparation, batch: int = 16) -> None:
        if find_spec("PIL") is None:
            raise Unsupported("reading images needs Pillow: pip install pillow, or give an .npz file")
        self.folder, self.preparation, self.batch = folder, preparation, batch
        self.channels_last, self.size = _picture(graph)
        self.files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        if not self.files:
            raise InputError(f"--calibration: '{folder}' holds no image ({', '.join(sorted(ENDINGS))})")
        classes = sorted({p.relative_to(folder).parts[0] for p in self.files if len(p.relative_to(folder).parts) > 1})
        number = {name: i for i, name in enumerate(classes)}
        labelled = bool(classes) and all(len(p.relative_to(folder).parts) > 1 for p in self.files)
        self.labels = [number[p.relative_to(folder).parts[0]] for p in self.files] if labelled else None

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.files), self.batch):
            files = self.files[start : start + self.batch]
            x = np.stack([self._read(file) for file in files])
            yield x if self.labels is None else (x, np.array(self.labels[start : start + len(files)]))

    def _read(self, file: Path) -> Array:
        from PIL import Image, UnidentifiedImageError

        height, width = self.size
        try:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(f"--calibration: '{file}' cannot be read as an image: {error}") from error
        scale = max(height / image.height, width / image.width) * 8 / 7
        image = image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        x = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
        mean, std = (np.array(v, np.float32) for v in (self.preparation.mean, self.preparation.std))
        scaled: Array = (x - mean) / std
        return scaled if self.channels_last else scaled.transpose(2, 0, 1)


def _picture(graph: Graph) -> tuple[bool, tuple[int, int]]:
    """(are channels last, (height, width)) of a network that takes one RGB picture. Raises InputError."""
    value: Value = graph.inputs[0]
    if len(graph.inputs) == 1 and len(value.shape) == 4 and value.dtype == "f32":
        if value.shape[1] == 3:
            return False, (int(value.shape[2]), int(value.shape[3]))
        if value.shape[3] == 3:
            return True, (int(value.shape[1]), int(value.shape[2]))
    raise InputError(
        f"--calibration with a folder of images: '{graph.name}' takes {', '.join(map(str, graph.inputs))}, not one RGB "
        "picture; give an .npz file"
    )
