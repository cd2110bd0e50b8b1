"""Criteria: one number per unit, higher = keep. One file each, named for its paper."""

from .apoz import APoZ
from .ccp import CCP
from .criterion import Criterion, OfWeights, check_criterion
from .dcp import DCP
from .entropy import Entropy
from .fpgm import FPGM
from .group_lasso import GroupLasso
from .hrank import HRank
from .l1 import L1
from .l2 import L2
from .lamp import LAMP
from .lasso import Lasso
from .nisp import NISP
from .obs import OBS
from .random import Random
from .scsp import SCSP
from .slimming import Slimming
from .snip import SNIP
from .subspace import Subspace
from .taylor import Taylor
from .thinet import ThiNet
from .whc import WHC

ALL = (
    L1, L2, GroupLasso, Slimming, SCSP, APoZ, Subspace, Entropy, ThiNet, Lasso, DCP, Taylor, CCP, NISP, SNIP, FPGM,
    OBS, LAMP, WHC, HRank, Random,
)  # fmt: skip

__all__ = ["ALL", "L1", "Criterion", "OfWeights", "check_criterion"]
