"""Kernel families of GPUs, one row each. But for convolutions they plan as processors do, with planes for blocks."""

from __future__ import annotations

from secateur.codegen.kernels.elementwise import plan as elementwise
from secateur.codegen.kernels.elementwise.spec import MapSpec, MeanSpec
from secateur.codegen.kernels.matmul.spec import MatmulSpec
from secateur.codegen.kernels.norms import plan as norms
from secateur.codegen.kernels.norms.spec import GroupNormSpec, MomentSpec
from secateur.codegen.kernels.recurrent.spec import RecurrentSpec
from secateur.codegen.kernels.resize import plan as resize
from secateur.codegen.kernels.resize.spec import ResizeSpec
from secateur.codegen.kernels.rows import plan as rows
from secateur.codegen.kernels.rows.spec import RowSpec
from secateur.codegen.kernels.window import plan as window
from secateur.codegen.kernels.window.spec import WindowSpec
from secateur.codegen.plan.copy_specs import CopySpec, MoveSpec, TableCopySpec
from secateur.codegen.plan.family import Family

from .block_sparse import plan as block_sparse
from .block_sparse.spec import GpuSparseChoice, GpuSparseSpec
from .conv import plan as conv
from .conv.spec import GpuConvSpec
from .conv.tiles import GpuConvChoice
from .mma.plan import SparseTensorCores, TensorCores
from .mma.spec import (
    F16Choice,
    F16ConvSpec,
    SparseF16Choice,
    SparseF16ConvSpec,
    SparseTf32Choice,
    SparseTf32ConvSpec,
    Tf32Choice,
    Tf32ConvSpec,
)
from .recurrent import plan as recurrent

GPU_FAMILIES: tuple[Family, ...] = (
    Family("conv", {GpuConvSpec: GpuConvChoice}, conv.HEADS),
    Family("block_sparse", {GpuSparseSpec: GpuSparseChoice}, alternative=block_sparse, sparse=True),
    Family("tf32", {Tf32ConvSpec: Tf32Choice}, alternative=TensorCores(Tf32ConvSpec), dtype="tf32"),
    Family("f16", {F16ConvSpec: F16Choice}, alternative=TensorCores(F16ConvSpec), dtype="f16"),
    Family(
        "tf32_sparse",
        {SparseTf32ConvSpec: SparseTf32Choice},
        alternative=SparseTensorCores(SparseTf32ConvSpec),
        sparse=True,
        dtype="tf32",
    ),
    Family(
        "f16_sparse",
        {SparseF16ConvSpec: SparseF16Choice},
        alternative=SparseTensorCores(SparseF16ConvSpec),
        sparse=True,
        dtype="f16",
    ),
    Family("window", {WindowSpec: None}, window.HEADS),
    Family("elementwise", {MapSpec: None, MeanSpec: None}, elementwise.HEADS),
    Family("resize", {ResizeSpec: None}, resize.HEADS),
    Family("rows", {RowSpec: None}, rows.HEADS),
    Family("norms", {MomentSpec: None, GroupNormSpec: None}, norms.HEADS),
    Family("matmul", {MatmulSpec: None}),
    Family("recurrent", {RecurrentSpec: None}, nodes=recurrent.NODES),
    Family("copies", {CopySpec: None, TableCopySpec: None, MoveSpec: None}),
)
