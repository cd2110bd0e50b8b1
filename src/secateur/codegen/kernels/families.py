"""All kernel families, one row each, and what is looked up in them. Nothing else names a family."""

from __future__ import annotations

from secateur.codegen.plan.copy_specs import CopySpec, FillSpec, MoveSpec, TableCopySpec
from secateur.codegen.plan.family import Family

from .bf16 import plan as bf16
from .bf16.spec import Bf16Choice, Bf16ConvSpec
from .block_sparse import plan as block_sparse
from .block_sparse.spec import (
    BlockSparseChoice,
    BlockSparseSpec,
    PanelChoice,
    PanelSpec,
    UnstructuredChoice,
    UnstructuredSpec,
)
from .conv import plan as conv
from .conv import transposed
from .conv.spec import ConvChoice, ConvSpec
from .elementwise import plan as elementwise
from .elementwise.spec import MapSpec, MeanSpec
from .grouped.spec import GroupedConvChoice, GroupedConvSpec
from .matmul import plan as matmul
from .matmul.spec import MatmulSpec
from .norms import plan as norms
from .norms.spec import GroupNormSpec, MomentSpec
from .recurrent import plan as recurrent
from .recurrent.spec import RecurrentSpec
from .resize import plan as resize
from .resize.spec import ResizeSpec
from .row_sparse import plan as row_sparse
from .row_sparse.spec import RowSparseChoice, RowSparseSpec
from .rows import plan as rows
from .rows.spec import RowSpec
from .sparse_winograd import plan as sparse_winograd
from .sparse_winograd.spec import SparseWinogradChoice, SparseWinogradSpec
from .strassen import plan as strassen
from .strassen.spec import StrassenChoice, StrassenSpec
from .window import plan as window
from .window.spec import WindowChoice, WindowSpec
from .winograd import plan as winograd
from .winograd.spec import WinogradChoice, WinogradSpec

FAMILIES: tuple[Family, ...] = (
    Family("conv", {ConvSpec: ConvChoice}, {**conv.HEADS, **transposed.HEADS}),
    Family("winograd", {WinogradSpec: WinogradChoice}, alternative=winograd, exact=False, sums_pixels=True),
    Family("strassen", {StrassenSpec: StrassenChoice}, alternative=strassen, exact=False, sums_pixels=True),
    Family(
        "block_sparse",
        {BlockSparseSpec: BlockSparseChoice, PanelSpec: PanelChoice, UnstructuredSpec: UnstructuredChoice},
        alternative=block_sparse,
        sparse=True,
    ),
    Family("row_sparse", {RowSparseSpec: RowSparseChoice}, alternative=row_sparse, sparse=True),
    Family(
        "sparse_winograd",
        {SparseWinogradSpec: SparseWinogradChoice},
        alternative=sparse_winograd,
        exact=False,
        sums_pixels=True,
        sparse=True,
    ),
    Family("bf16", {Bf16ConvSpec: Bf16Choice}, alternative=bf16, dtype="bf16"),
    Family("grouped", {GroupedConvSpec: GroupedConvChoice}),
    Family("window", {WindowSpec: WindowChoice}, window.HEADS),
    Family("elementwise", {MapSpec: None, MeanSpec: None}, elementwise.HEADS),
    Family("resize", {ResizeSpec: None}, resize.HEADS),
    Family("rows", {RowSpec: None}, rows.HEADS),
    Family("norms", {MomentSpec: None, GroupNormSpec: None}, norms.HEADS),
    Family("matmul", {MatmulSpec: None}, matmul.HEADS),
    Family("recurrent", {RecurrentSpec: None}, nodes=recurrent.NODES),
    Family("copies", {CopySpec: None, TableCopySpec: None, MoveSpec: None, FillSpec: None}),
)
