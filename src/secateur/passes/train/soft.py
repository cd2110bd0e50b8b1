"""Soft filter pruning: He et al., "Soft Filter Pruning for Accelerating Deep CNNs", IJCAI 2018."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from secateur.ir import InputError
from secateur.passes.allocate.select import by_share, climb, count_for_share
from secateur.passes.notes import Importance
from secateur.passes.score.criterion import Criterion
from secateur.passes.score.l2 import L2

from .coupled import Units
from .hook import Hook, State
from .masks import Masks
from .weights import check_share


class SoftPruning(Hook):
    """Every ``every`` steps set the channels that a criterion ranks lowest to zero, and let them train on.

    With ``L2()`` soft filter pruning (He et al., IJCAI 2018), with ``SCSP()`` the soft self-adaption of SCSP (Zhuo et
    al. 2018): what was cleared may come back, and the choice is made anew. ``share`` of every set of channels is
    cleared, filters, biases and norms alike, so that the channel is zero and not its batch norm's shift. Where the same
    units were chosen ``patience`` times running, and after ``finish``, they stay at zero: ``l1,zeros`` removes exactly
    them.
    """

    def __init__(
        self, units: Units, share: float, every: int, criterion: Criterion | None = None, patience: int = 3
    ) -> None:
        """Raises InputError for a criterion that needs data, and for numbers that make no sense."""
        check_share(share, "share")
        if every < 1 or patience < 1:
            raise InputError(f"every={every}, patience={patience}: give 1 or more")
        self.criterion = L2() if criterion is None else criterion
        if self.criterion.data:
            raise InputError(f"criterion '{self.criterion.name}' needs data; between steps only weights are at hand")
        self.units, self.share, self.every, self.patience = units, share, every, patience
        self.step = self.alike = 0
        self.masks: Masks | None = None
        self.kept = torch.ones(units.size, dtype=torch.bool)

    @property
    def settled(self) -> bool:
        """Is the choice made?"""
        return self.masks is not None

    def before_step(self, optimiser: Optimizer) -> None:
        if self.masks is not None:
            self.masks.before_step(optimiser)

    def after_step(self, optimiser: Optimizer) -> None:
        self.step += 1
        if self.masks is not None:
            self.masks.after_step(optimiser)
        elif self.step % self.every == 0:
            self._choose()

    def finish(self) -> None:
        """What is chosen now goes for good."""
        if self.masks is None:
            self._choose()
            self._settle()

    def _choose(self) -> None:
        kept = chosen(self.units, self.criterion, self.share)
        self.alike = self.alike + 1 if torch.equal(kept, self.kept) else 1
        self.kept = kept
        self.units.scale(kept.double())
        if self.alike >= self.patience:
            self._settle()

    def _settle(self) -> None:
        self.masks = Masks(self.units.parameters, self.units.masks(self.kept))

    def state_dict(self) -> State:
        return {"step": self.step, "alike": self.alike, "settled": self.settled, "kept": self.kept}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.step, self.alike = cast(int, state["step"]), cast(int, state["alike"])
        self.kept, self.masks = cast(Tensor, state["kept"]), None
        if state["settled"]:
            self._settle()


def chosen(units: Units, criterion: Criterion, share: float) -> Tensor:
    """bool[units]: what stays when every set of channels loses this share of its lowest scores."""
    graph = criterion(units.with_weights())
    importance = graph.note(Importance)
    assert importance is not None
    ladder = climb(units.coupling, np.asarray(importance.scores))
    order = by_share(ladder)
    return torch.from_numpy(ladder.mask(ladder.kept(order, count_for_share(ladder, order, 1 - share))))
