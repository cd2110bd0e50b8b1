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
    from .codegen import TARGETS, Library
    from .deploy import build, load_library, tune
    from .fine_tuning import finetune
    from .ir import BudgetError, Error, Graph, InputError, LawError, PassError, SlowerError, Unsupported, VerifyError
    from .ir.progress import Progress
    from .passes import PASSES, Pipeline
    from .passes.law import Verification
    from .passes.recipe import Recipe
    from .policy import Policy
    from .report.report import Report
    from .run import evaluate
    from .save import save_onnx

_NAMES = {
    "secateur.api": ("Compiled", "apply", "compile", "inspect", "load", "rewrite", "scores", "trace", "verify"),
    "secateur.calibration.images": ("Preparation",),
    "secateur.fine_tuning": ("finetune",),
    "secateur.run": ("evaluate",),
    "secateur.save": ("save_onnx",),
    "secateur.codegen": ("TARGETS", "Library"),
    "secateur.deploy": ("build", "load_library", "tune"),  # light: a process that only runs a library loads no pass
    "secateur.ir": (
        "BudgetError", "Error", "Graph", "InputError", "LawError", "PassError", "SlowerError", "Unsupported",
        "VerifyError",
    ),
    "secateur.ir.progress": ("Progress",),
    "secateur.passes": ("PASSES", "Pipeline"),
    "secateur.passes.law": ("Verification",),
    "secateur.passes.recipe": ("Recipe",),
    "secateur.policy": ("Policy",),
    "secateur.report.report": ("Report",),
}  # fmt: skip
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = [
    "PASSES", "TARGETS", "BudgetError", "Compiled", "Error", "Graph", "InputError", "LawError", "Library", "PassError",
    "Pipeline", "Policy", "Preparation", "Progress", "Recipe", "Report", "SlowerError", "Unsupported", "Verification",
    "VerifyError", "__version__", "apply", "build", "compile", "evaluate", "finetune", "inspect", "load",
    "load_library", "rewrite", "save_onnx", "scores", "trace", "tune", "verify",
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
