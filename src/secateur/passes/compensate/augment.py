"""Examples as they might have been: crops, mirror images and mixtures, the same for both networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PICTURES = (1, 3, 4)  # channels of inputs that may be shifted and mirrored
SHIFT = 8  # pictures are shifted by up to this part of their size


def shifts(x: Tensor) -> bool:
    """Are these pictures, which may be shifted?"""
    return _first(x) or _last(x)


def _first(x: Tensor) -> bool:
    """Pictures with channels first."""
    return x.dim() == 4 and x.shape[1] in PICTURES and x.is_floating_point() and min(x.shape[2:]) >= SHIFT


def _last(x: Tensor) -> bool:
    """Pictures with channels last, as TensorFlow has them."""
    return x.dim() == 4 and x.shape[3] in PICTURES and x.is_floating_point() and min(x.shape[1:3]) >= SHIFT


def drawn(x: Tensor, random: torch.Generator, mirror: bool) -> Tensor:
    """Pictures shifted, with their border repeated, and half of them mirrored; anything else as it is."""
    if not _first(x):
        return drawn(x.permute(0, 3, 1, 2), random, mirror).permute(0, 2, 3, 1) if _last(x) else x
    h, w = x.shape[2:]
    down, right = (torch.randint(-(n // SHIFT), n // SHIFT + 1, (len(x), 1), generator=random) for n in (h, w))
    mirrored = (torch.rand(len(x), 1, generator=random) < 0.5) & mirror
    rows = (torch.arange(h) + down).clamp(0, h - 1)
    columns = (torch.where(mirrored, torch.arange(w).flip(0), torch.arange(w)) + right).clamp(0, w - 1)
    # Channels first in memory, too: the other way round torch 2.13 frees memory twice in the gradients of some
    # convolutions (1x1, stride 2, 7 to 17 channels), which ends the process.
    examples, channels = torch.arange(len(x))[:, None, None, None], torch.arange(x.shape[1])[:, None, None]
    return x[examples, channels, rows[:, None, :, None], columns[:, None, None, :]]


def mixed(ones: Mapping[str, Tensor], others: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
    """Each example and another one, by a share that is drawn evenly from 0 to 1 (mixup)."""
    share = torch.rand(len(next(iter(ones.values()))), generator=random)
    return {name: torch.lerp(others[name], x, share.reshape(-1, *[1] * (x.dim() - 1))) for name, x in ones.items()}
