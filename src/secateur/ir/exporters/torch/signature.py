"""The arguments of a written module: what the original took, in the same structure."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.ir.torch_origin import TorchOrigin

from .emitter import Emitter

ARGUMENTS = "secateur_arguments"  # under which a GraphModule's ``meta`` has its structure


def arguments(e: Emitter) -> None:
    """A placeholder for each argument of the original's forward; containers are taken apart.

    Without a structure, or with one that only its own classes know, the graph's inputs are the arguments.
    """
    tree = _tree(e.origin, len(e.graph.inputs))
    if tree is None:
        for value in e.graph.inputs:
            e.env[value.name] = e.argument(value.name)
        return
    args, kwargs = tree
    items = [*enumerate(args), *kwargs.items()]
    last = max((i for i, (_, item) in enumerate(items) if any(_names(e, item))), default=-1)
    for i, (key, item) in enumerate(items):
        names = list(_names(e, item))
        if isinstance(item, int) and names:
            e.env[names[0]] = e.argument(names[0])
            continue
        held = e.argument(key if isinstance(key, str) else _common(names) or f"argument_{key}")
        if i > last:  # nothing that is read follows, so the caller may leave it out
            held.args = (None,)
        _take_apart(e, held, item)


def call_flat(module: nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
    """Call a module that was written with the graph's inputs in order."""
    origin = getattr(module, "meta", {}).get(ARGUMENTS)
    if origin is None or _tree(origin, len(inputs)) is None:
        return module(*inputs)
    given = iter(inputs)
    leaves = [next(given) if tensor else None for tensor in origin.arguments]
    args, kwargs = pytree.tree_unflatten(leaves, origin.in_spec)
    return module(*args, **kwargs)


def _tree(origin: TorchOrigin | None, count: int) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """The structure with the number of each leaf; None where the tensors are the arguments, or where it is unknown."""
    if origin is None or origin.in_spec is None or sum(origin.arguments) != count:
        return None
    args, kwargs = pytree.tree_unflatten(list(range(len(origin.arguments))), origin.in_spec)
    plain = all(origin.arguments) and not kwargs and all(isinstance(item, int) for item in args)
    known = all(map(_known, (*args, *kwargs.values())))
    return None if plain or not known else (args, kwargs)


def _known(item: Any) -> bool:
    if isinstance(item, int):
        return True
    inner = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else None
    return inner is not None and all(map(_known, inner))


def _names(e: Emitter, item: Any) -> Iterator[str]:
    """The inputs that an argument holds."""
    assert e.origin is not None
    for leaf in pytree.tree_leaves(item):
        if e.origin.arguments[leaf]:
            yield e.graph.inputs[sum(e.origin.arguments[:leaf])].name


def _common(names: Sequence[str]) -> str:
    """What torch.export puts before the names of all that a container holds."""
    first = [name.partition("_")[0] for name in names]
    return first[0] if len(set(first)) == 1 and len(names) > 1 else ""


def _take_apart(e: Emitter, held: Any, item: Any) -> None:
    assert e.origin is not None
    if isinstance(item, int):
        if e.origin.arguments[item]:
            e.env[e.graph.inputs[sum(e.origin.arguments[:item])].name] = held
        return
    for key, inner in item.items() if isinstance(item, dict) else enumerate(item):
        if any(_names(e, inner)):
            _take_apart(e, e.call(operator.getitem, held, key), inner)
