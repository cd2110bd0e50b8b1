"""SNIP on single weights, before training: Lee, Ajanthan and Torr, ICLR 2019."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.ir import InputError

from .weights import check_share, keep_largest, layers, path_of, weight_of

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, labels) -> mean over the examples


def snip(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    density: float,
    floor: int = 1,
    loss: Loss = F.cross_entropy,
    names: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Masks by parameter name (``Masks``) that keep the connections to which the loss is most sensitive.

    round(density * number) weights stay, of all layers together, ranked by |w * dL/dw| summed over the batches before
    the absolute value; ``floor`` of each layer at least, since at densities of 1 % whole layers vanish. Biases and
    norms are left alone. The weights that were scored are those to train, drawn with a scale that follows the fan-in,
    as torch draws them: otherwise the scale of layers decides. The module is left as it was. Raises InputError where no
    gradient reaches a weight.
    """
    check_share(density, "density")
    scores = sensitivities(module, batches, loss, names)
    total = sum(s.numel() for s in scores.values())
    flat = torch.cat([s.flatten() for s in scores.values()])
    least = torch.cat([keep_largest(s, min(floor, s.numel())).flatten() for s in scores.values()])
    count = round(density * total)
    if density == 0:
        least = torch.zeros_like(least)
    kept = keep_largest(torch.where(least, math.inf, flat), max(count, int(least.sum())))
    parts = torch.split(kept, [s.numel() for s in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def sensitivities(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss = F.cross_entropy,
    names: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """f64 of each weight's shape: |sum over batches of w * dL/dw| over the sum of all of them, so that they add up to
    1.

    Works on a copy, whose batch norms learn from the batches as in training. Raises InputError where all are zero.
    """
    copied = copy.deepcopy(module).train()
    weights = {path_of(name): weight_of(layer) for name, layer in layers(copied, names).items()}
    total = {name: torch.zeros(weight.shape, dtype=torch.float64) for name, weight in weights.items()}
    for x, y in batches:
        found = torch.autograd.grad(loss(copied(x), y), list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), found, strict=True):
            if gradient is not None:
                total[name] += (weight.detach() * gradient).double()
    return shares(total)


def shares(products: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Absolute values over the sum of all of them. Raises InputError where that is zero or not finite."""
    size = sum(float(p.abs().sum()) for p in products.values())
    if not 0 < size < math.inf:
        raise InputError(
            f"snip: the sensitivities of all weights add up to {size:g}; give batches with labels on which the network "
            "has a finite loss and gradients (dead ReLUs have none)"
        )
    return {name: p.abs() / size for name, p in products.items()}
