"""TIR to the text of CUDA and OpenCL: the few passes of TVM that such kernels need, and its code generators."""

from __future__ import annotations

import re
from collections.abc import Mapping

import tvm
from tvm import tirx

from secateur.codegen.emit.types import Function
from secateur.codegen.targets import Target

from .fragments import prelude

RESIDENT = 512  # work items of a multiprocessor that there must be registers for: all have 65,536


def device_target(target: Target) -> tvm.target.Target:
    """TVM's name for a target."""
    if target.triple == "cuda":
        return tvm.target.Target({"kind": "cuda", "arch": target.mcpu})
    return tvm.target.Target({"kind": "opencl"})


def source(functions: Mapping[str, Function], target: Target) -> str:
    """The text of kernels, by name. It is compiled by the device's driver (OpenCL) or by nvcc (CUDA).

    Raises tvm.error.TVMError for what TVM refuses.
    """
    device = device_target(target)
    t = tirx.transform
    module = tvm.IRModule(
        {
            tvm.ir.GlobalVar(name): f.with_attr("global_symbol", name).with_attr("target", device)
            for name, f in functions.items()
        }
    )
    module = tvm.ir.transform.Sequential([t.FlattenBuffer(), t.LowerIntrin()])(module)
    made = tvm.get_global_func(f"target.build.{device.kind.name}")(module, device)
    cuda, text = target.triple == "cuda", str(made.inspect_source())
    return prelude(re.sub(r"__launch_bounds__\((\d+)\)", _bounds, text) if cuda else text, cuda)


def _bounds(found: re.Match[str]) -> str:
    """What a kernel promises nvcc, and what it asks for: 128 registers a work item, where it needs them.

    Left to itself ptxas stops at as many as more groups would find room with, and may spill for it.
    """
    items = int(found[1])
    return f"__launch_bounds__({items}, {max(1, RESIDENT // items)})"
