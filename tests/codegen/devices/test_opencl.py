"""What is said where OpenCL is missing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from secateur import InputError, codegen
from secateur.codegen.devices import opencl
from support.network import Net

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def test_without_the_package_or_a_platform_a_library_is_built_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Net(1, 4, 3, 3)
    library = codegen.build(net.graph(net.conv("x", 4)), "opencl")
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    with pytest.raises(InputError, match=r"built for opencl; this machine lacks .*pip install 'secateur\[opencl\]'"):
        library(np.zeros((1, 4, 3, 3), np.float32))
    bare = SimpleNamespace(get_platforms=lambda: [], Error=RuntimeError, device_type=SimpleNamespace(GPU=4))
    monkeypatch.setitem(sys.modules, "pyopencl", bare)
    assert opencl.missing() == [opencl.DRIVER]
    with pytest.raises(InputError, match=r"this machine lacks an OpenCL platform with a device .*pocl-opencl-icd"):
        library(np.zeros((1, 4, 3, 3), np.float32))


def test_tuning_for_a_gpu_is_refused() -> None:
    net = Net(1, 4, 3, 3)
    with pytest.raises(InputError, match="cannot tune for opencl"):
        codegen.build(net.graph(net.conv("x", 4)), "opencl", tune=1.0)
