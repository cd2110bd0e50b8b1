"""Finds what a network writes into its own tensors: state that the next call would read, and writes through views."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import fx, nn

from secateur.ir.errors import Unsupported

from .source import source_of


class Stateful(Unsupported):
    """The network's answer depends on what earlier calls wrote into its own tensors."""


_STATE = (
    "{what} is written to in forward{where} and read by the next call: such state would be lost. Make it an input and "
    "an output of forward, as in `y, state = model(x, state)`, and compile that."
)
# In-place calls that leave nothing of what the tensor held.
_REPLACES = frozenset({"copy_", "fill_", "zero_", "copy", "fill", "zero"})


def check_state(graph: fx.Graph, bound: Mapping[str, tuple[str, torch.Tensor, str]]) -> None:
    """Raise Stateful if a tensor of the module is written to, and what it held before reaches a result."""
    output = next(n for n in graph.nodes if n.op == "output")
    for holder in graph.nodes:
        if holder.op != "placeholder" or holder.name not in bound:
            continue
        write = _write_to(holder)
        if write is None or not _reaches(holder, output):
            continue
        name, _, kind = bound[holder.name]
        place = source_of(write)
        raise Stateful(_STATE.format(what=f"{kind} '{name}'", where=f" ({place.where or place.name or write.name})"))


def held_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that are plain attributes, by their path."""
    return {
        f"{path}.{name}" if path else name: item
        for path, child in module.named_modules()
        for name, item in child.__dict__.items()
        if isinstance(item, torch.Tensor)
    }


def check_held(
    module: nn.Module, held: Mapping[str, torch.Tensor], bound: Mapping[str, tuple[str, torch.Tensor, str]], said: str
) -> None:
    """Raise Stateful if forward read a tensor among its attributes and put another one in its place.

    Torch puts back what was assigned to attributes of the outermost module, and says so in a warning.
    """
    read = {tensor.data_ptr() for _, tensor, kind in bound.values() if kind == "constant"}
    for name, tensor in held.items():
        path, _, last = name.rpartition(".")
        assigned = module.get_submodule(path).__dict__.get(last) is not tensor or (
            "assigned during export" in said and f"self.{name}" in re.split(r"[\s,]+", said)
        )
        if assigned and tensor.data_ptr() in read:
            raise Stateful(_STATE.format(what=f"attribute '{name}'", where=""))


def _write_to(holder: fx.Node) -> fx.Node | None:
    """The first in-place call on this tensor or a view of it."""
    todo = [holder]
    while todo:
        node = todo.pop()
        for user in node.users:
            schema = getattr(user.target, "_schema", None)
            if schema is None or not user.args or user.args[0] is not node:
                continue
            if schema.is_mutable:
                return user
            if _is_view(user):
                todo.append(user)
    return None


def _reaches(holder: fx.Node, output: fx.Node) -> bool:
    """Does what the tensor held before the call flow into a result?"""
    todo, seen = [holder], {holder}
    while todo:
        node = todo.pop()
        if node is output:
            return True
        for user in node.users:
            name = getattr(getattr(user.target, "_schema", None), "name", "").rpartition("::")[2]
            replaced = name in _REPLACES and user.args[0] is node and node not in user.args[1:]
            if user not in seen and not replaced:
                seen.add(user)
                todo.append(user)
    return False


def mutates_views(graph: fx.Graph) -> bool:
    """Does an in-place call write through a view, or into a tensor whose views are read later?"""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        target = node.args[0]
        if _is_view(target):
            return True
        for view in target.users:
            if order[view] < order[node] and _is_view(view) and any(order[u] > order[node] for u in view.users):
                return True
    return False


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or schema.is_mutable:
        return False
    return any(r.alias_info is not None for r in schema.returns)
