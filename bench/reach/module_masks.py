"""A torch module with the zeros that a recipe asks for, run call by call: the law from the recipe alone.

Calls are those that ``torch.export`` records, with the layers whole. Listed weights lose their input columns where a
layer reads them, and inputs of nodes under ``mixing`` their channels. Nothing of how secateur cuts is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateur.ir.frontends.torch.capture import capture

Json = Mapping[str, Any]

# Layers by the position of their weight and the axis along which it has the input's channels.
_COLUMNS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), (1, 1)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (1, 0)),
    **dict.fromkeys(("matmul", "mm", "bmm"), (1, -2)),
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), (0, 1)),
}
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


class Inapplicable(Exception):
    """The recipe names what no call of the module shows by itself; its text says what."""


def masked_run(module: nn.Module, arguments: tuple[Any, ...], recipe: Json) -> list[Any]:
    """The results with zeros where the recipe says. Raises Inapplicable."""
    found = capture(module, arguments)
    names = {node.name for node in found.module.graph.nodes}
    # The sum of squares inside a weight norm: its weight is listed, and is cut where the norm reads it.
    norms = {f"{node.name}.0" for node in found.module.graph.nodes if "_weight_norm" in str(node.target)}
    strange = sorted({m["node"] for m in recipe["mixing"]} - names - norms)
    if strange:
        raise Inapplicable(f"'{strange[0]}' is a part of a call")
    if any(m["statistics"] for m in recipe["mixing"]):
        raise Inapplicable("statistics over kept channels")
    own = {name for name, _, _ in found.bound.values()}
    mask = _Masked(found.module, recipe, {place: name for place, (name, _, _) in found.bound.items()})
    given = iter(leaf for leaf in torch.utils._pytree.tree_leaves(arguments))
    holders = [n for n in found.module.graph.nodes if n.op == "placeholder"]
    values = [found.bound[n.name][1] if n.name in found.bound else next(given) for n in holders]
    with torch.no_grad():
        mask.run(*values)
    missed = sorted(n for n in recipe["weights"] if n in own and n not in mask.read and _columns_listed(recipe, n))
    stacked = [n for n in recipe["weights"] if n.rpartition(".")[2] in ("lstm", "gru", "rnn")]
    strange = [n for n in stacked if n.rpartition(".")[0] not in own]
    if strange:
        raise Inapplicable(f"'{strange[0]}' was computed from parameters")
    if missed:
        raise Inapplicable(f"'{missed[0]}' is read by no layer as it is stored")
    return [mask.kept[r.name] if isinstance(r, fx.Node) else r[0] for r in found.results]


def _columns_listed(recipe: Json, name: str) -> bool:
    return len(recipe["weights"][name]["kept"]) > 1


class _Masked(fx.Interpreter):
    """Runs the recorded calls with zeros in their arguments."""

    def __init__(self, module: fx.GraphModule, recipe: Json, bound: Mapping[str, str]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.recipe, self.bound = recipe, bound
        self.read: set[str] = set()
        self.kept: dict[str, Any] = {}
        self.order: list[fx.Node] = list(module.graph.nodes)

    def run_node(self, n: fx.Node) -> Any:
        """One call; what it reads is masked first."""
        value = super().run_node(n)
        self.kept[n.name] = value
        return value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Mask, then call."""
        node = self._here()
        base = getattr(getattr(target, "_schema", None), "name", "").rpartition("::")[2]
        places: list[Any] = list(args)
        self._weights(node, base, places)
        for m in self.recipe["mixing"]:
            if m["node"] == node.name:
                _at(node.name, places, m["input"], m["axis"], m["kept"])
        return super().call_function(target, tuple(places), kwargs)

    def _here(self) -> fx.Node:
        return self.order[len(self.kept)]

    def _weights(self, node: fx.Node, base: str, places: list[Any]) -> None:
        if base in _RECURRENT:
            for group in (i for i, a in enumerate(node.args) if isinstance(a, list | tuple)):
                holders: Sequence[Any] = node.args[group]  # type: ignore[assignment]
                places[group] = [self._cut(h, w, 1, base) for h, w in zip(holders, places[group], strict=True)]
        elif base == "addmm":
            places[2] = self._cut(node.args[2], places[2], 0)
        elif base in _COLUMNS:
            at, axis = _COLUMNS[base]
            places[at] = self._cut(node.args[at], places[at], axis)

    def _stacked(self, base: str, name: str) -> Mapping[str, Any]:
        """What is kept of a recurrent weight: both directions are stacked under the name of the first."""
        found = self.recipe["weights"].get(f"{name.removesuffix('_reverse')}.{base.partition('_')[0]}", {})
        return {str(int(axis) - 1): kept for axis, kept in found.get("kept", {}).items()}

    def _cut(self, holder: Any, weight: Tensor, axis: int, base: str = "") -> Tensor:
        name = self.bound.get(holder.name) if isinstance(holder, fx.Node) else None
        axis %= max(weight.ndim, 1)
        kept = self.recipe["weights"].get(name, {}).get("kept", {})
        if base and name is not None:
            kept = self._stacked(base, name)
        if name is None or str(axis) not in kept or weight.ndim < 2:
            return weight
        self.read.add(name)
        return weight * _mask(tuple(weight.shape), axis, kept[str(axis)]).to(weight.dtype)


def _at(name: str, places: list[Any], index: int, axis: int, kept: Sequence[int]) -> None:
    """Zero the channels that are not kept of the ``index``-th tensor among the arguments of a call.

    Raises Inapplicable where the tensor has no such channels: the recipe then speaks of a part of the call, which reads
    the tensor in another shape.
    """
    count = 0
    for i, item in enumerate(places):
        inner = list(item) if isinstance(item, list | tuple) else [item]
        for j, one in enumerate(inner):
            if isinstance(one, Tensor):
                if count == index:
                    if axis >= one.ndim or max(kept, default=0) >= one.shape[axis]:
                        raise Inapplicable(f"'{name}' reads tensor {index} in another shape")
                    mask = _mask(tuple(one.shape), axis, kept)
                    inner[j] = torch.where(mask, one, torch.zeros((), dtype=one.dtype))
                    places[i] = inner if isinstance(item, list | tuple) else inner[0]
                    return
                count += 1
    raise Inapplicable(f"a call has no tensor number {index}")


def _mask(shape: tuple[int, ...], axis: int, kept: Any) -> Tensor:
    """True where the channel stays; one list a group for grouped convolutions."""
    mask = torch.zeros(shape, dtype=torch.bool)
    if kept and isinstance(kept[0], list):
        rows = shape[0] // len(kept)
        for group, columns in enumerate(kept):
            mask[group * rows : (group + 1) * rows, columns] = True
    else:
        mask[(slice(None),) * axis + (list(kept),)] = True
    return mask
