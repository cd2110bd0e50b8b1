"""TVM loads without PyTorch in processes of our own, and PyTorch still loads after it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("tvm")

SCRIPT = """
import sys
from secateur.codegen.emit.loading import load_tvm
load_tvm()
assert "tvm" in sys.modules and not any(name.partition(".")[0] == "torch" for name in sys.modules)
import torch
load_tvm()
assert torch.zeros(1) is not None
"""


def test_loads_without_torch() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
