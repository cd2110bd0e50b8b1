"""Rewrites: other operators that compute the same, or nearly: the architectures that are efficient before training."""

from secateur.passes.pipeline import Pass

from .canonicalize import Canonicalize
from .drop_layer import DropLayer
from .fold_bn import FoldBN
from .fold_shuffle import FoldShuffle
from .grouped import Grouped
from .low_rank import LowRank
from .regroup import Regroup
from .separable import Separable
from .shuffled import Shuffled
from .squeeze_excite import SqueezeExcite

# In the order in which they are listed; ``slim`` cuts and stands for itself.
ALL: tuple[type[Pass], ...] = (
    Canonicalize, SqueezeExcite, LowRank, Separable, Grouped, Shuffled, Regroup, DropLayer, FoldBN, FoldShuffle,
)  # fmt: skip

__all__ = ["ALL"]
