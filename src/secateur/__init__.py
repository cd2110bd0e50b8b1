"""secateur: a pruning compiler. A trained network in, a smaller one out that is proven to compute the same.

    slim = secateur.compile(model, "l1", example_inputs=(x,), macs=0.5)
    print(slim.report)
    slim.save("slim.onnx")

Importing this package loads neither torch nor onnx; what needs them loads them when it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .api import Compiled, apply, compile, inspect, load, rewrite, scores, trace, verify
    from .calibration.images import Preparation
    from .deploy import load_library
    from .ir import BudgetError, Error, Graph, InputError, LawError, PassError, SlowerError, Unsupported, VerifyError
    from .passes import PASSES, Pipeline
    from .passes.law import Verification
    from .passes.recipe import Recipe
    from .policy import Policy
    from .report.report import Report

_HOMES = {
    **dict.fromkeys(
        ("Compiled", "apply", "compile", "inspect", "load", "rewrite", "scores", "trace", "verify"), "secateur.api"
    ),
    "load_library": "secateur.deploy",  # light: a process that only runs a library loads no pass
    **dict.fromkeys(
        (
            "BudgetError",
            "Error",
            "Graph",
            "InputError",
            "LawError",
            "PassError",
            "SlowerError",
            "Unsupported",
            "VerifyError",
        ),
        "secateur.ir",
    ),
    **dict.fromkeys(("PASSES", "Pipeline"), "secateur.passes"),
    "Verification": "secateur.passes.law",
    "Recipe": "secateur.passes.recipe",
    "Policy": "secateur.policy",
    "Preparation": "secateur.calibration.images",
    "Report": "secateur.report.report",
}

__all__ = [
    "PASSES", "BudgetError", "Compiled", "Error", "Graph", "InputError", "LawError", "PassError", "Pipeline", "Policy",
    "Preparation", "Recipe", "Report", "SlowerError", "Unsupported", "Verification", "VerifyError", "__version__",
    "apply", "compile", "inspect", "load", "load_library", "rewrite", "scores", "trace", "verify",
]  # fmt: skip


_STAGES = ("ir", "passes", "codegen")  # public for those who extend them: `import secateur; secateur.ir.Graph`


def __getattr__(name: str) -> Any:
    if name in _STAGES:
        return import_module(f"secateur.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'secateur' has no attribute '{name}'")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted((*__all__, *_STAGES))
