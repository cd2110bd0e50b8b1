"""Importing TVM without what secateur does not use of it."""

from __future__ import annotations

import contextlib
import sys


def load_tvm() -> None:
    """Import TVM without PyTorch, which its Relax imports where it finds it: seconds and 200 MB for nothing used here.

    Only for processes of secateur's own, the command line and the workers that measure: whoever uses Relax with PyTorch
    in the same process would miss its exchange of tensors. Does nothing where either is imported already, nor where
    TVM is missing, which ``deploy.build`` reports.
    """
    if "tvm" in sys.modules or "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        with contextlib.suppress(ImportError):
            import tvm  # noqa: F401
    finally:
        del sys.modules["torch"]
