"""TIR to machine code: the few passes of TVM that kernels need, in order, and LLVM after them.

TVM's own list has some fifty, most of them for scheduled blocks and for graphics processors. On a kernel that is
written statement by statement they find nothing to do, and may take longer than LLVM: the bounds of every access
to every buffer are worked out to shrink buffers that have the right size (``CompactBufferAllocation``). Functions with
blocks, which come from TVM's operator library, are lowered by the passes that are theirs, and by no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import tvm
from tvm import s_tir, tirx

from secateur.codegen.targets import Target

from .types import Function

Pass: TypeAlias = tvm.ir.transform.Pass
PACKED = 1  # TVM's CallingConv.kCPackedFunc: "has its final form", or TVM would make it callable from outside
BLOCKS = "blocks"  # attribute of a function that TVM's operator library made
INDEX_BITS = 32


def compile_module(
    functions: Mapping[tvm.ir.GlobalVar, Function], target: Target, entry: str = "main"
) -> tvm.runtime.Module:
    """Machine code for functions, by their global variables; ``entry`` is the only one that can be called from outside.

    ``functions`` are what templates, ``topi`` and ``threads`` write. Raises tvm.error.TVMError for what TVM or
    LLVM refuses.
    """
    machine = llvm_target(target)
    named = {name: f if name.name_hint == entry else _apart(name, f) for name, f in functions.items()}
    blocks = {name: f for name, f in named.items() if f.attrs and BLOCKS in f.attrs}
    module = tirx.transform.BindTarget(machine.with_host(machine))(tvm.IRModule(named))
    if blocks:
        module.update(_in_order(_lowering())(tvm.IRModule({name: module[name] for name in blocks})))
    module = _in_order(_finishing())(module)
    return tvm.get_global_func("target.build.llvm")(module, machine)


def llvm_target(target: Target) -> tvm.target.Target:
    """TVM's name for a target.

    TVM tells LLVM that buffers of different names never overlap. Here they are pieces of one arena, used again and
    again, so type-based alias analysis must be off: with it, LLVM moves a kernel's reads before the writes of the last.
    """
    options = ["-enable-tbaa:bool=false"]
    named = {"mtriple": target.triple, "mcpu": target.mcpu, "num-cores": target.cores}
    return tvm.target.Target({"kind": "llvm", **named, "cl-opt": options})


def _apart(name: tvm.ir.GlobalVar, function: Function) -> Function:
    """A kernel with a symbol of its own, called as it is.

    Without one LLVM inlines each that is called once, and where they make up one large function their accumulators no
    longer stay in registers.
    """
    return function.with_attr("global_symbol", f"secateur_{name.name_hint}").with_attr("calling_conv", PACKED)


def _in_order(passes: Sequence[Pass]) -> Pass:
    return tvm.ir.transform.Sequential(list(passes))


def _lowering() -> Sequence[Pass]:
    """From blocks to loops, and from narrow floats to those that processors have."""
    s, t = s_tir.transform, tirx.transform
    return [
        s.CanonicalizeLoop(), s.LowerInitBlock(), s.PlanAndUpdateBufferAllocationLocation(), s.ConvertBlocksToOpaque(),
        s.CompactBufferAllocation(), s.LowerMatchBuffer(), s.StmtSimplify(), s.LowerOpaqueBlock(), t.FlattenBuffer(),
        t.BF16ComputeLegalize(), t.NarrowDataType(INDEX_BITS), t.VectorizeLoop(True), s.HoistIfThenElse(),
        t.UnrollLoop(), s.RenormalizeSplitPattern(), t.StmtSimplify(), t.RemoveNoOp(), s.RewriteUnsafeSelect(),
        t.FP8ComputeLegalize(), t.FP8StorageLegalize(), t.BF16StorageLegalize(),
    ]  # fmt: skip


def _finishing() -> Sequence[Pass]:
    """From loops to calls of the runtime, and to what LLVM knows."""
    t = tirx.transform
    return [
        t.FlattenBuffer(), t.NarrowDataType(INDEX_BITS), t.StmtSimplify(), s_tir.transform.RewriteUnsafeSelect(),
        t.VerifyMemory(), t.AnnotateEntryFunc(), t.SplitHostDevice(), t.MakePackedAPI(), t.LowerTVMBuiltin(),
        t.LowerIntrin(),
    ]  # fmt: skip
