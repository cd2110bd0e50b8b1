"""What fine-tuning minimises: labels, what the original says (Hinton et al., "Distilling the Knowledge", 2015), or
both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.ir import InputError

from .loss import is_classifier, log_probabilities

By = Literal["auto", "square"]


def mean_square(x: Tensor) -> Tensor:
    """f32[]: the mean of the squares."""
    return x.float().square().mean()


@dataclass(frozen=True)
class Objective:
    """``distill`` of the loss follows the original's outputs, the rest the labels; all of it where there are none.

    For scores by class temperature^2 * KL(original || slim) at this temperature, for anything else, and for scores too
    with ``by`` "square", half the mean square of the difference over that of the original's outputs. The divergence
    does not see a number that is added to all scores of an example.
    """

    distill: float = 0.5
    temperature: float = 2.0
    by: By = "auto"

    def __post_init__(self) -> None:
        """Raises InputError for numbers that make no sense."""
        if not 0 <= self.distill <= 1 or not 0 < self.temperature < float("inf"):
            raise InputError(
                f"distill={self.distill:g}, temperature={self.temperature:g}: distill is a share from 0 to 1, the "
                "temperature a number above 0"
            )

    def losses(
        self, outputs: Sequence[Tensor], labels: Tensor | None, wanted: Sequence[Tensor] | None,
        square: Callable[[Tensor], Tensor] = mean_square,
    ) -> Tensor:  # fmt: skip
        """f32[n]: the loss of each example. ``wanted``: the original's outputs; ``square``: their mean square, over
        more examples than these where processes share a batch. Raises InputError with nothing to follow.
        """
        share = 0.0 if wanted is None else 1.0 if labels is None else self.distill
        if labels is None and wanted is None:
            raise InputError("fine-tuning: batches have no labels and distill is 0, so there is nothing to train on")
        found = torch.zeros(len(outputs[0]))
        if labels is not None and share < 1:
            found = found + (1 - share) * F.nll_loss(log_probabilities(outputs[0].float()), labels, reduction="none")
        if wanted is not None and share > 0:
            found = found + share * self._apart(outputs, wanted, square)
        return found

    def _apart(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor], square: Callable[[Tensor], Tensor]) -> Tensor:
        if is_classifier(outputs) and self.by == "auto":
            mine, theirs = (
                F.log_softmax(log_probabilities(o[0].float()) / self.temperature, 1) for o in (outputs, wanted)
            )
            return self.temperature**2 * F.kl_div(mine, theirs, reduction="none", log_target=True).sum(1)
        parts = [
            (a.float() - b.float()).square().flatten(1).mean(1) / square(b).clamp_min(1e-12) / 2
            for a, b in zip(outputs, wanted, strict=True)
            if a.is_floating_point() and a.dim() > 0
        ]
        return torch.stack(parts).sum(0)


def right(outputs: Sequence[Tensor], labels: Tensor | None, wanted: Sequence[Tensor] | None) -> Tensor | None:
    """bool[n]: is the most likely class the label's, or the original's; None where outputs are not scores by class."""
    if not is_classifier(outputs) or (labels is None and wanted is None):
        return None
    classes = labels if labels is not None else None if wanted is None else wanted[0].argmax(1)
    assert classes is not None
    return outputs[0].argmax(1) == classes
