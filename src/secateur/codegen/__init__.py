"""Graph to machine code: placement, kernels by template, a tuner, and libraries in one file.

Importing this loads no TVM; ``build`` and ``load_library`` do when they are called.
"""

from .assembly import build, show_plan
from .build import approximate, kernel_seconds, read_results, tune, write_candidates
from .compact import cost_of_compact
from .inexact import alone, inexact_layers, narrow_layers
from .library import Library
from .parted import load_library
from .plan.precision import Precision
from .targets import TARGETS, Target, get_target, missing_features, target_for
from .tune.portable import for_here
from .tune.tracker import Tracker
from .tune.tuner import Outcome, open_records

__all__ = [
    "TARGETS", "Library", "Outcome", "Precision", "Target", "Tracker", "alone", "approximate", "build",
    "cost_of_compact", "get_target", "for_here", "inexact_layers", "kernel_seconds",
    "load_library", "missing_features", "narrow_layers",
    "open_records", "read_results", "show_plan", "target_for", "tune", "write_candidates",
]  # fmt: skip
