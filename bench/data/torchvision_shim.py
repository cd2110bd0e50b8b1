"""torchvision's models, also where its compiled operators cannot be loaded: `from torchvision_shim import models`.

torchvision's wheel is built against one build of torch. Next to another build (the CPU one, say) its extension does not
load, and `import torchvision` then fails because it registers shape functions for two operators that nobody declared.
No classification, segmentation or backbone network calls them, so declaring their names is enough; `nms`, which
detectors end with, is computed in Python.
Where the extension loads, this module declares nothing. After it, `import torchvision` and `import timm` work too.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from torch import library as registry

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _extension_loads() -> bool:
    """Whether torchvision's own operators can be loaded next to this torch."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    try:
        for path in Path(spec.origin).parent.glob("_C*.*"):
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except (ImportError, OSError):
        return False
    return hasattr(torch.ops.torchvision, "nms")


def _declare() -> registry.Library | None:
    """Declare the operators' names. The library is kept: when it goes, so do the names."""
    if _extension_loads():
        return None
    declared = registry.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in OPERATORS:
        declared.define(schema)  # type: ignore[no-untyped-call]
    declared.impl("nms", suppress, "CPU")  # type: ignore[no-untyped-call]
    return declared


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The boxes, best first, that overlap with no better one by more than the threshold: their indices."""
    order = scores.argsort(descending=True).tolist()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for i in order:
        corner, other = torch.maximum(boxes[i, :2], boxes[kept, :2]), torch.minimum(boxes[i, 2:], boxes[kept, 2:])
        common = (other - corner).clamp(min=0).prod(1)
        if not bool((common / (area[i] + area[kept] - common) > threshold).any()):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


LIBRARY = _declare()

from torchvision import models  # noqa: E402  the operators must be declared by now

__all__ = ["LIBRARY", "models"]
