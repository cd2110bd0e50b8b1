"""What pruning does to a trained classifier: MobileNetV2 with ImageNet weights on twenty labelled photos.

    python -m bench.data.photos [--macs 90%]

Ten per cent of the multiply-accumulates go, by the L1 norm over the whole network, with nothing done to repair the
rest. Twenty photos are twenty photos: one is five points, so agreement with the original and the error of the logits
stand next to top-1, and none of it is ImageNet accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import material
from bench.lib import common

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def mobilenet_v2() -> nn.Module:
    """torchvision's network with torchvision's ImageNet weights, in eval mode."""
    import torch

    from bench.data.torchvision_shim import models

    module: nn.Module = models.mobilenet_v2(weights=None)
    module.load_state_dict(torch.load(material.path("mobilenet_v2.pth"), weights_only=True))
    return module.eval()


def load(path: Path) -> Tensor:
    """A photo as f32[3, 224, 224]: shorter side 256, centre 224, ImageNet's mean and deviation."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return torch.from_numpy(((pixels - MEAN) / DEVIATION).astype(np.float32)).permute(2, 0, 1).contiguous()


def prune(module: nn.Module, x: Tensor, macs: float, seed: int) -> Any:
    """The product's call: what it returns has `.module()` and `.report`."""
    import secateur

    return secateur.compile(module, "l1", example_inputs=(x,), macs=macs, seed=seed)


def main() -> int:
    """Prune, run both on all photos, print and append one row."""
    parser = common.parser(__doc__, "photos.jsonl")
    parser.add_argument("--macs", default="90%", help="what remains of the multiply-accumulates (default 90%%)")
    arguments = parser.parse_args()
    import torch

    labelled = material.photos()
    photos = torch.stack([load(path) for path, _ in labelled])
    labels = torch.tensor([label for _, label in labelled])
    module = mobilenet_v2()
    slim = prune(module, photos[:1], float(arguments.macs.rstrip("%")) / 100, arguments.seed)
    with torch.no_grad():
        dense, thin = module(photos), slim.module().eval()(photos)
    right = [int((y.argmax(1) == labels).sum()) for y in (dense, thin)]
    agree = int((dense.argmax(1) == thin.argmax(1)).sum())
    error = float((dense - thin).norm() / dense.norm())
    print(slim.report)
    head = ["photos", "top-1 before", "top-1 after", "agree", "logit error"]
    print(common.table(head, [[len(labelled), *right, agree, error]]))
    row = {
        "model": "mobilenet_v2", "policy": "l1", "macs": arguments.macs, "photos": len(labelled),
        "top1": right, "agreement": agree, "logit_rel_error": error,
    }  # fmt: skip
    common.append(arguments.output, [row | common.circumstances(arguments.seed)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
