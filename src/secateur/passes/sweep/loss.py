"""The loss whose gradients the sweep takes: with labels, or a substitute from the network's own output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from secateur.ir import Array, InputError

Tensor = torch.Tensor
LABELS = "cross-entropy with the labels"
OWN = "cross-entropy with the network's own most likely class (no labels were given)"
ENERGY = "half the mean square of the outputs (no classifier, no labels)"


def is_classifier(outputs: Sequence[Tensor]) -> bool:
    """One row of scores for each example, two classes at least."""
    return outputs[0].dim() == 2 and outputs[0].shape[1] > 1 and outputs[0].is_floating_point()


def loss_of(outputs: Sequence[Tensor], labels: Array | None, examples: int) -> tuple[Tensor, str]:
    """(sum of the losses of the examples that count, what it is called).

    Each example's loss has weight 1, so gradients are per example. A first output that is softmaxed already is told
    from its rows' sums and read as probabilities. Raises InputError for labels that do not fit.
    """
    scores = outputs[0][:examples]
    if not is_classifier(outputs):
        if labels is not None:
            raise InputError(f"calibration has labels, but the network's first output is {list(outputs[0].shape)}, no "
                             "scores by class; give inputs alone")  # fmt: skip
        total = sum((o[:examples].float().square().flatten(1).mean(1).sum() / 2
                     for o in outputs if o.is_floating_point()), torch.zeros(()))  # fmt: skip
        return total, ENERGY
    target = scores.detach().argmax(1) if labels is None else _targets(labels, scores.shape[1])
    return F.nll_loss(log_probabilities(scores), target, reduction="sum"), OWN if labels is None else LABELS


def projected(outputs: Sequence[Tensor], examples: int, seed: Sequence[int]) -> tuple[Tensor, float]:
    """A random projection of the outputs of the examples that count, and the sum of their squares.

    Rows that are probabilities already are read as their logarithms, where errors of scores show.
    """
    rng = np.random.default_rng(list(seed))
    total, energy = torch.zeros(()), 0.0
    for out in outputs:
        if not out.is_floating_point() or not out.numel():
            continue
        y = (log_probabilities(out) if out.dim() == 2 and _are_probabilities(out) else out)[:examples].float()
        energy += float(y.detach().double().square().sum())
        total = total + (y * torch.from_numpy(rng.standard_normal(tuple(y.shape), np.float32))).sum()
    return total, energy


def log_probabilities(scores: Tensor) -> Tensor:
    """f32[n, classes]: of scores, or of rows that are probabilities already."""
    if _are_probabilities(scores):
        return scores.clamp_min(1e-12).log()
    return F.log_softmax(scores, 1)


def _are_probabilities(scores: Tensor) -> bool:
    rows = scores.detach()
    return bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-3).all())


def _targets(labels: Array, classes: int) -> Tensor:
    if labels.dtype.kind not in "iu" or (len(labels) and (labels.min() < 0 or labels.max() >= classes)):
        shown = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
        raise InputError(
            f"calibration labels are {labels.dtype} from {shown}; the network knows the classes 0 to {classes - 1}, "
            "as whole numbers"
        )
    return torch.from_numpy(labels.astype("int64"))
