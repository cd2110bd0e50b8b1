"""Tensors that are known while a captured graph is read, and the calls that make or take after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from .build import bind

# Their results hold only the shape of their tensor argument, not its data.
CREATES = frozenset(
    {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"}
)


# Their second argument gives a shape or an element type.
_TAKE_AFTER = frozenset({"type_as", "to", "expand_as", "view_as", "reshape_as"})


# A weight that passes through one of these is normalised, by what pruning would take from it.
NORMALISES = frozenset(
    {"batch_norm", "_native_batch_norm_legit", "native_batch_norm", "layer_norm", "instance_norm", "group_norm",
     "mean", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "sum", "amax", "amin", "_weight_norm",
     "_weight_norm_interface", "linalg_norm"}
)  # fmt: skip
WEIGHT_NORMS = frozenset({"_weight_norm", "_weight_norm_interface"})
# What a computed weight may pass through and still be cut where it is stored: its rows and columns go their own ways.
FOLLOWED = frozenset(
    {"add", "sub", "rsub", "mul", "div", "neg", "transpose", "permute", "t", "numpy_T", "matmul", "mm", "to",
     "_to_copy", "clone", "contiguous", "detach", "alias", "lift_fresh_copy"}
)  # fmt: skip
# Products whose operands may be weights: of those that are computed, matrices.
MATRICES = frozenset({"matmul", "mm", "addmm", "einsum"})
# Layers, by the arguments whose channels can be pruned; of products those that are matrices.
LAYER_WEIGHTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "conv_transpose1d", "conv_transpose2d",
             "conv_transpose3d", "linear", "embedding"), frozenset({"weight"})
        ),
        **dict.fromkeys(("matmul", "mm", "addmm"), frozenset({"self", "other", "mat1", "mat2"})),
        "einsum": frozenset({"tensors"}),
        **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), frozenset({"params"})),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Const:
    """A tensor known while importing, and the weights it was computed from.

    ``name`` is set for a weight of the module as it stands; ``folded`` says that a normalisation or reduction lies
    between the weights and this, ``strayed`` that something does which channels cannot be followed through.
    ``scaled`` is the axis each of whose entries has a length of its own, where weight norm alone lies between.
    """

    tensor: Any  # one tensor, or a sequence of them
    origins: frozenset[str] = frozenset()
    name: str = ""
    folded: bool = False
    strayed: bool = False
    scaled: int | None = None


def create(node: fx.Node, base: str, args: Callable[[Any], Any]) -> torch.Tensor:
    """What a call fills with one number, of which the arguments give the shape alone; ``args`` finds their values."""
    meta = node.meta["val"]
    fill: Any = 1 if "ones" in base else 0
    if "full" in base:
        fill = bind(node, args(node.args), args(node.kwargs)).fill_value
    return torch.full(tuple(int(d) for d in meta.shape), fill, dtype=meta.dtype)


def hollow(node: fx.Node, base: str, consts: Mapping[fx.Node, Const]) -> dict[fx.Node, torch.Tensor]:
    """Arguments of which a call takes the shape or the element type alone, as tensors that hold nothing."""
    if base not in _TAKE_AFTER or len(node.args) < 2 or not isinstance(node.args[1], fx.Node):
        return {}
    meta = node.args[1].meta.get("val")
    if node.args[1] in consts or not isinstance(meta, torch.Tensor):
        return {}
    return {node.args[1]: torch.empty(tuple(int(d) for d in meta.shape), dtype=meta.dtype)}


def rests(node: fx.Node) -> bool:
    """Is this a random call that is switched off, such as dropout in eval mode?"""
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    return "train" in names and dict(zip(names, node.args, strict=False)).get("train") is False
