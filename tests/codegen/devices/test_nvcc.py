"""What ptxas reports, and what is said where nvcc is missing."""

from __future__ import annotations

import pytest

from secateur import InputError, codegen
from secateur.codegen.devices import nvcc
from secateur.codegen.devices.code import Resources
from support.network import Net

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k1' for 'sm_90'
ptxas info    : Function properties for k1
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes stack, 20480 bytes smem
ptxas info    : Compiling entry function 'k0' for 'sm_90'
ptxas info    : Function properties for k0
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers
"""


def test_a_report_is_read() -> None:
    assert nvcc.resources(REPORT) == {"k1": Resources(255, 28, 20480), "k0": Resources(12, 0, 0)}


def test_without_nvcc_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tvm", reason="code generation needs apache-tvm")
    monkeypatch.setattr(nvcc, "find", lambda: None)
    net = Net(1, 4, 3, 3)
    with pytest.raises(InputError, match=r"takes nvcc, .* pip install 'secateur\[cuda\]'"):
        codegen.build(net.graph(net.conv("x", 4)), "cuda:sm_90")
