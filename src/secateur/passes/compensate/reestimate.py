"""``reestimate_bn``: batch norm statistics of the slim network, from data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node
from secateur.passes.recipe import Recipe

from .original import EXAMPLES, kept_rows, noted

if TYPE_CHECKING:
    from .lockstep import Step


@dataclass(frozen=True)
class ReestimateBN:
    """Move the statistics of every batch norm by what pruning changed in its input (BN re-estimation).

    Fewer inputs shift and shrink what a batch norm sees. Its running mean moves by the difference of the two
    networks' means over the data, its variance by the ratio of their variances: where nothing was pruned nothing
    changes, however few the data. Layers before it are repaired first. Convolutions whose batch norm was folded (ONNX
    files) get the same through their weights and bias, where nothing else reads these.

    Before: ``y = batch_norm(x', mean, var)``. After: the same with the mean and variance of x'.
    """

    name: ClassVar[str] = "reestimate_bn"
    examples: int = EXAMPLES

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError without data."""
        if self.examples < 2:
            raise InputError(f"reestimate_bn{{examples={self.examples}}}: statistics need 2 examples or more")
        from .lockstep import lockstep

        recipe, weights = graph.note(Recipe), dict(graph.weights)
        for step in lockstep(graph, self.name, self.examples, lambda n: _normalised(graph, n)):
            repair = _repair_norm if step.node.op == "batch_norm" else _repair_conv
            changed = repair(step, recipe, weights)
            weights.update(changed)
            step.slim.weights.update(changed)
        return noted(graph.rewrite(weights=weights), self)

    @staticmethod
    def may_change(graph: Graph) -> frozenset[str]:
        """Running means and variances; weights and biases of convolutions whose batch norm was folded into them."""
        places = {"batch_norm": slice(3, 5), "conv": slice(1, 3)}
        names = (n for node in graph.nodes if _normalised(graph, node) for n in node.inputs[places[node.op]])
        return frozenset(name for name in names if name is not None)


def _repair_norm(step: Step, recipe: Recipe | None, weights: dict[str, Array]) -> dict[str, Array]:
    node = step.node
    mean, variance = str(node.inputs[3]), str(node.inputs[4])
    rows = kept_rows(recipe, mean)
    before, after = _moments(step, node.inputs[0] or "", rows)
    if before is None or after is None:
        return {}
    old_mean, old_variance = weights[mean], weights[variance]
    known = step.dense.weights.get(mean)  # the original's: what moved it since is in the difference already
    was = old_mean if known is None else known if rows is None else known[rows]
    ratio = _ratio(after[1], before[1])
    return {
        mean: (was + (after[0] - before[0]).reshape(old_mean.shape)).astype(old_mean.dtype),
        variance: (old_variance * ratio.reshape(old_variance.shape)).astype(old_variance.dtype),
    }


def _repair_conv(step: Step, recipe: Recipe | None, weights: dict[str, Array]) -> dict[str, Array]:
    """Scale and shift the layer's own outputs to the mean and deviation that they had."""
    import torch

    node = step.node
    name, bias = str(node.inputs[1]), str(node.inputs[2])
    rows = kept_rows(recipe, name)
    step.slim.reach(step.slim.at + 1)
    before, after = _moments(step, node.name, rows, node.name)
    if before is None or after is None:
        return {}
    scale = np.sqrt(_ratio(before[1], after[1]))
    weight = weights[name]
    fresh = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    shift = before[0] - (after[0] - weights[bias]) * scale
    for values in step.slim.values:  # computed already: scale and shift it in place
        x = values[node.name]
        shape = (1, -1, *(1,) * (x.dim() - 2))
        a = torch.from_numpy(scale.astype(np.float32)).reshape(shape)
        b = torch.from_numpy((before[0] - after[0] * scale).astype(np.float32)).reshape(shape)
        values[node.name] = x * a + b
    return {name: fresh.astype(weight.dtype), bias: shift.astype(weights[bias].dtype)}


Moments = tuple[Array, Array]


def _moments(
    step: Step, dense: str, rows: Array | None, slim: str | None = None
) -> tuple[Moments | None, Moments | None]:
    """(mean, variance) per channel of the original's value, at the channels that were kept, and of the slim one's."""
    import torch

    source = dense if slim is not None else step.dense_node.inputs[0] or ""
    if source not in step.dense.values[0]:
        return None, None
    sums = np.zeros(1)
    parts: list[list[Array]] = [[], []]
    for a, b in step.pairs(source, slim or dense):
        kept = a if rows is None else a[:, torch.from_numpy(rows)]
        for part, x in zip(parts, (kept, b), strict=True):
            flat = (x.flatten(2) if x.dim() > 2 else x[:, :, None]).double()  # squares of floats may overflow
            sums_of = (v.sum((0, 2)).numpy() for v in (flat, flat * flat))
            part.append(np.stack(list(sums_of)))
        sums += b.numel() / b.shape[1]
    found = []
    for part in parts:
        total = np.sum(part, axis=0) / sums
        found.append((total[0], np.maximum(total[1] - total[0] ** 2, 0.0)))
    return found[0], found[1]


def _ratio(new: Array, old: Array) -> Array:
    """new / old where both vary, 1 elsewhere; within a factor of 100."""
    usable = (old > 1e-12) & (new > 1e-12)
    return np.clip(np.where(usable, new / np.where(usable, old, 1.0), 1.0), 1e-2, 1e2)


def _normalised(graph: Graph, node: Node) -> bool:
    if node.op == "batch_norm":
        return all(n in graph.weights and len(graph.users[n]) == 1 for n in node.inputs[3:5] if n is not None)
    if node.op != "conv" or len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    followed = any(user.op == "batch_norm" for user in graph.users.get(node.name, ()))
    own = all(n in graph.weights and len(graph.users[n]) == 1 for n in node.inputs[1:] if n is not None)
    return own and not followed and node.name not in graph.outputs
