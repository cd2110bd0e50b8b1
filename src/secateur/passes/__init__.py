"""Graph in, graph out: analyses, criteria, allocation and rewrites, and the table of all of them."""

from .allocate.amount import Allocator
from .notes import Coupling, Importance, KeepMask
from .pipeline import Pass, Pipeline, parse_spec, print_spec
from .score import Criterion, OfWeights
from .tables import AFTER_CUT, ALLOCATORS, BEFORE_CUT, COMPENSATION, CRITERIA, PASSES, REWRITES, SPARSITY

__all__ = [
    "AFTER_CUT", "ALLOCATORS", "BEFORE_CUT", "COMPENSATION", "CRITERIA", "PASSES", "REWRITES", "SPARSITY", "Allocator",
    "Coupling", "Criterion", "Importance", "KeepMask", "OfWeights", "Pass", "Pipeline", "parse_spec", "print_spec",
]  # fmt: skip
