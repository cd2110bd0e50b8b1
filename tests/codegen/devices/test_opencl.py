"""What is said where OpenCL is missing."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from secateur import InputError, codegen
from secateur.codegen.devices import opencl
from support.cuda import CODE
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


def test_timing_waits_for_what_was_launched_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in of pyopencl that notes which queue is given a kernel, and which is waited for."""
    noted: list[str] = []

    def queue(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, flush=lambda: None, finish=lambda: noted.append(f"wait for {name}"))

    def launch(on: SimpleNamespace, *_: object) -> SimpleNamespace:
        noted.append(on.name)
        return SimpleNamespace(profile=SimpleNamespace(start=0, end=5))

    cl = MagicMock(Error=RuntimeError, enqueue_nd_range_kernel=launch)
    cl.CommandQueue.side_effect = [queue("plain"), queue("timing")]
    devices = [SimpleNamespace(type=4, max_work_group_size=256)]
    cl.get_platforms.return_value = [SimpleNamespace(get_devices=lambda: devices)]
    cl.device_type.GPU = 4
    monkeypatch.setitem(sys.modules, "pyopencl", cl)
    session = opencl.OpenClSession(CODE)
    session.launch()
    assert session.seconds() == [5e-9, 5e-9]
    assert noted == ["plain", "plain", "wait for plain", "timing", "timing", "wait for timing"]


def test_tuning_for_a_gpu_is_refused() -> None:
    net = Net(1, 4, 3, 3)
    with pytest.raises(InputError, match="cannot tune for opencl"):
        codegen.build(net.graph(net.conv("x", 4)), "opencl", tune=1.0)
