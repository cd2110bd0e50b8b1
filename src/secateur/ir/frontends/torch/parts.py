"""Calls without a rule, as the calls that torch itself says they are made of.

``torch.outer(a, b)`` is a product of two views, ``einsum`` a product of permuted ones: torch runs them so, and each of
their parts has a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import torch
from torch import fx
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

# Kept as they are: they have a form in ONNX that does better, or a rule that says on purpose what it leaves out.
WHOLE = frozenset(
    {"grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "topk", "sort", "gather", "lstm", "gru", "rnn_tanh",
     "rnn_relu", "embedding_bag", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_unpool2d", "max_unpool3d",
     "col2im", "cumprod", "median", "kthvalue", "scatter", "scatter_add", "scatter_reduce", "index_put", "index_add",
     "stft", "istft", "batch_norm", "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "nonzero",
     "native_dropout", "bernoulli", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "native_batch_norm",
     "masked_select"}
)  # fmt: skip


def parts_of(node: fx.Node, base: str, rules: Container[str]) -> fx.GraphModule | None:
    """The call as a module of others that all have rules, its placeholders in the order of the call's tensors.

    None where torch does not say, or where one of the parts has no rule. Complex numbers are left alone.
    """
    if base in WHOLE or base.startswith("fft_"):
        return None
    tensors = node.all_input_nodes
    if not tensors or not all(isinstance(n.meta.get("val"), torch.Tensor) for n in tensors):
        return None
    metas = [n.meta["val"] for n in tensors]
    if any(m.is_complex() for m in (*metas, *_leaves(node.meta.get("val")))):
        return None
    call: Callable[..., Any] = node.target  # type: ignore[assignment]

    def run(*given: torch.Tensor) -> Any:
        at = dict(zip(tensors, given, strict=True))
        return call(*fx.map_arg(node.args, at.__getitem__), **fx.map_arg(node.kwargs, at.__getitem__))

    table = core_aten_decompositions()
    examples = [torch.zeros(tuple(map(int, m.shape)), dtype=m.dtype) for m in metas]
    try:
        module = make_fx(run, decomposition_table={k: table[k] for k in table})(*examples)
    except Exception:  # what torch's own code raises on zeros
        return None
    if not all(_known(n, base, rules) for n in module.graph.nodes if n.op == "call_function"):
        return None
    for inner in module.graph.nodes:
        inner._rename(f"{node.name}_{inner.name}")
        inner.meta = {**node.meta, "val": inner.meta.get("val")}
    return module


def _known(part: fx.Node, base: str, rules: Container[str]) -> bool:
    """Has a part a rule, or does it depend on nothing, and is it another call than the whole?"""
    if not isinstance(part.target, torch._ops.OpOverload):
        return False
    name = part.target._schema.name.rpartition("::")[2]
    known = name in rules or name.removesuffix("_") in rules or not part.all_input_nodes
    return known and name != base


def _leaves(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
