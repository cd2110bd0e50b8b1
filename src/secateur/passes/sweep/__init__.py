"""One streaming sweep over calibration data: what criteria need to know, gathered for all of them at once.

``needs`` says what can be known and holds the results; ``run.sweep`` gathers it and is the only part that loads torch.
"""

from .needs import Examples, Gates, InputMoments, Need, Pooled, Reach, ReadSite, Statistics, WeightGradients, need_bytes
from .read_sites import consumers, read_sites

__all__ = [
    "Examples", "Gates", "InputMoments", "Need", "Pooled", "Reach", "Statistics", "ReadSite", "WeightGradients",
    "consumers", "need_bytes", "read_sites",
]  # fmt: skip
