"""How every kind of spec is written for GPUs. TVM is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.codegen.plan.family import Template

from . import matmul, pointwise, reductions
from .block_sparse import template as block_sparse
from .conv import template as conv
from .mma import template as mma
from .recurrent import template as recurrent

GPU_TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {
        **conv.TEMPLATES,
        **block_sparse.TEMPLATES,
        **mma.TEMPLATES,
        **matmul.TEMPLATES,
        **pointwise.TEMPLATES,
        **reductions.TEMPLATES,
        **recurrent.TEMPLATES,
    }
)
