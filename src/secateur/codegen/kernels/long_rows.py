"""Kernels that work pixel by pixel, seen in a plainer shape: rows and images that follow each other as one long row."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from secateur.codegen.plan.strides import Strides

from .conv.spec import ConvSpec
from .elementwise.spec import MapSpec
from .rows.spec import RowSpec

S = TypeVar("S", ConvSpec, MapSpec, RowSpec)


def flatten(spec: ConvSpec) -> ConvSpec:
    """A 1x1 convolution whose pixels follow each other reads them as one long row, those of all images."""
    return merge(spec) if _pointwise(spec) else spec


def long_rows(spec: ConvSpec) -> ConvSpec:
    """A 1x1 convolution whose pixels follow each other reads those of each image as one long row."""
    return _merge_rows(spec) if _pointwise(spec) else spec


def _pointwise(spec: ConvSpec) -> bool:
    return spec.kernel == (1, 1) and spec.stride == (1, 1)


def _every(spec: S) -> list[Strides]:
    return [spec.x, spec.y, *(s.strides for s in spec.post_ops if s.strides is not None)]


def _merge_rows(spec: S) -> S:
    """A kernel that works pixel by pixel, rows that follow each other as one long row."""
    one = all(s.row == spec.w * s.column for s in _every(spec))
    return replace(spec, h=1, w=spec.h * spec.w) if one else spec


def merge(spec: S) -> S:
    """A kernel that works pixel by pixel, rows and images that follow each other as one long row."""
    spec = _merge_rows(spec)
    every = _every(spec)
    if spec.h == 1 and (spec.w == 1 or all(s.image == spec.w * s.column for s in every)):
        post_ops = tuple(replace(s, strides=_images(s.strides, spec.w)) if s.strides else s for s in spec.post_ops)
        spec = replace(
            spec, n=1, w=spec.n * spec.w, x=_images(spec.x, spec.w), y=_images(spec.y, spec.w), post_ops=post_ops
        )
    return spec


def _images(s: Strides, w: int) -> Strides:
    """Images of one pixel each in a row, or rows that follow each other."""
    return replace(s, column=s.image) if w == 1 else s
