"""Sparsity in training: hooks for any PyTorch loop. What they leave at exactly zero, ``zeros`` and ``slim`` remove.

    lasso = GroupLasso(net, strength=1e-3)
    with attach(optimiser, lasso):
        ...                                             # the loop as it was
    slim = secateur.compile(net, "l1,zeros,slim", example_inputs=(x,))

This part of the passes imports torch, as the sweep does; ``secateur.passes`` does not import it.
"""

from secateur.passes.sweep.objective import Objective

from .coupled import CoupledLasso, Units
from .dcp import Discrimination, Selection, select_channels
from .group_lasso import GroupLasso
from .hard_threshold import HardThreshold
from .hook import Attached, Hook, attach
from .loop import Loop
from .lottery import Actions, Ticket, rounds, ticket
from .masks import Masks
from .schedule import Gradual, magnitude_masks, sparsity_at
from .settings import Epoch, Settings, Tuned
from .slimming import BatchNormL1
from .snip import snip
from .soft import SoftPruning
from .supermask import Supermask, edge_popup, supermask

__all__ = [
    "Actions", "Attached", "BatchNormL1", "CoupledLasso", "Discrimination", "Epoch", "Gradual", "GroupLasso",
    "HardThreshold",
    "Hook", "Loop", "Masks", "Objective", "Selection", "Settings", "SoftPruning", "Supermask", "Ticket", "Tuned",
    "Units", "attach", "edge_popup",
    "magnitude_masks", "rounds", "select_channels", "snip", "sparsity_at", "supermask", "ticket",
]  # fmt: skip
